"use strict";
// The page is complete without this script: it adds searching, sorting, and opening for print.
(function () {
  const $ = (id) => document.getElementById(id);

  // Examples: search, filter, sort.
  const list = $("example-list");
  if (list) {
    const all = Array.from(list.children);
    const parts = ".source, .turn pre, .find";
    const texts = all.map((item) =>
      Array.from(item.querySelectorAll(parts), (part) => part.textContent).join("\n").toLowerCase());
    const place = new Map(all.map((item, number) => [item, number]));
    const search = $("example-search"), kind = $("example-kind"), source = $("example-source");
    const sort = $("example-sort"), open = $("example-open");
    const number = (item, key) => {
      const value = parseFloat(item.dataset[key]);
      return Number.isNaN(value) ? -Infinity : value;
    };
    const update = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      all.forEach((item, at) => {
        const fits = words.every((word) => texts[at].includes(word)) &&
          (!kind.value || item.dataset.kinds.split(" ").includes(kind.value)) &&
          (!source.value || item.dataset.source === source.value);
        item.hidden = !fits;
        shown += fits;
      });
      const [, sign, key] = /^(-?)(.*)$/.exec(sort.value);
      const order = all.slice().sort((a, b) => {
        const gap = key ? number(a, key) - number(b, key) : 0;
        return (sign ? -gap : gap) || place.get(a) - place.get(b);
      });
      list.append(...order);
      $("example-count").textContent = shown + " of " + all.length + " examples";
      $("example-none").hidden = shown > 0;
    };
    search.addEventListener("input", update);
    [kind, source, sort].forEach((choice) => choice.addEventListener("change", update));
    open.addEventListener("click", () => {
      const opened = open.getAttribute("aria-pressed") !== "true";
      open.setAttribute("aria-pressed", String(opened));
      open.textContent = opened ? "Close all" : "Open all";
      all.forEach((item) => { item.open = opened; });
    });
    const form = open.form;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    update();
  }

  // Tables: a click on a head sorts by its column.
  const valueOf = (cell) => {
    const text = cell.dataset.value || cell.textContent.trim();
    const found = /^[^\d+\-\u2212]*([+\-\u2212]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?)/i.exec(text);
    return found ? parseFloat(found[1].replace(/,/g, "").replace("\u2212", "-")) : -Infinity;
  };
  document.querySelectorAll("table.sortable").forEach((table) => {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      if (head.hasAttribute("data-fixed")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      const textual = head.classList.contains("text");
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const up = before ? before === "descending" : textual;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const keys = new Map(rows.map((row) => {
          const cell = row.cells[column];
          return [row, textual ? cell.textContent.trim() : valueOf(cell)];
        }));
        const order = rows.slice().sort((a, b) => {
          const one = keys.get(a), other = keys.get(b);
          const gap = textual ? one.localeCompare(other) : one === other ? 0 : one < other ? -1 : 1;
          return up ? gap : -gap;
        });
        body.append(...order);
      });
    });
  });

  // Paper has no folds: open everything, and close it again afterwards.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = Array.from(document.querySelectorAll("details:not([open])"));
    folded.forEach((item) => { item.open = true; });
  });
  window.addEventListener("afterprint", () => {
    folded.forEach((item) => { item.open = false; });
    folded = [];
  });
})();
