"""The report in a headless Chromium: search, sorting, shades, escaping, paper, keys, speed."""

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, browser, browser_path
from report_runs import Run, accuracy, example, full_run, made_up_load, made_up_tokens

from selectmoe_core.data.shown import TokenDetail
from selectmoe_core.report import write_report

pytestmark = pytest.mark.skipif(browser_path() is None, reason="there is no Chromium here")

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
SHOWN = "Array.from(document.querySelectorAll('.example')).filter(e => !e.hidden)"
PAPER = 794
"""Pixels of A4 at 96 dots an inch."""


@pytest.fixture(scope="module")
def chrome(tmp_path_factory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    run = full_run(tmp_path_factory.mktemp("run"), sources=14, rows=60)
    return write_report(run.record("selectmoe run default seed=3"), run.folder).page


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, False), (1280, True)])
def test_it_opens_without_an_error_a_request_or_a_part_outside(chrome, page, width, dark):
    chrome.open(page, width=width, dark=dark)
    assert chrome.problems() == []
    assert chrome.run("document.documentElement.scrollWidth") <= width
    assert chrome.run("document.querySelectorAll('script').length") == 1
    paper = chrome.run("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", paper)[:3]))
    assert (brightness < 150) == dark


def contrast(first: list[int], second: list[int]) -> float:
    """Return the contrast of two colours, as WCAG 2 defines it."""
    light = []
    for colour in (first, second):
        parts = np.array(colour) / 255
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_texts_can_be_read(chrome, page, dark):
    chrome.open(page, dark=dark)
    colours = chrome.run(
        """(() => { const of = (v) => { const e = document.createElement('i');
        e.style.color = `var(${v})`; document.body.append(e);
        const c = getComputedStyle(e).color.match(/\\d+/g).slice(0, 3).map(Number); e.remove();
        return c; };
        return Object.fromEntries(['paper','panel','ink','muted','accent','warn','warn-paper',
        'good','good-paper','bad','bad-paper'].map(n => [n, of('--' + n)])); })()"""
    )
    pairs = [("ink", "paper"), ("muted", "paper"), ("muted", "panel"), ("accent", "paper")]
    pairs += [("warn", "warn-paper"), ("good", "good-paper"), ("bad", "bad-paper")]
    found = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert min(found.values()) >= 4.5, found


def choose(chrome: Browser, element: str, value: str) -> list[dict]:
    """Set a control of the tools; return what is shown, in order."""
    chrome.run(
        f"(() => {{ const e = document.getElementById({json.dumps(element)});"
        f"e.value = {json.dumps(value)};"
        "e.dispatchEvent(new Event(e.type === 'search' ? 'input' : 'change')); })()"
    )
    return chrome.run(f"{SHOWN}.map(e => ({{...e.dataset, text: e.textContent}}))")


def test_examples_are_searched_filtered_and_sorted(chrome, page):
    chrome.open(page)
    everything = choose(chrome, "example-kind", "")
    assert len(everything) > 25
    scores = [float(one["score"]) for one in everything]
    assert scores == sorted(scores, reverse=True)
    worst = choose(chrome, "example-kind", "worst")
    assert len(worst) == 10
    assert all("worst" in one["kinds"].split() for one in worst)
    said = "document.getElementById('example-count').textContent"
    assert chrome.run(said) == f"10 of {len(everything)} examples"
    choose(chrome, "example-kind", "")
    found = choose(chrome, "example-search", "SOURCE word3")
    expected = [one for one in everything if "word3" in one["text"]]
    assert [one["text"] for one in found] == [one["text"] for one in expected]
    assert 0 < len(found) < len(everything)
    assert choose(chrome, "example-search", "no such words anywhere") == []
    assert chrome.run("document.getElementById('example-none').hidden") is False
    choose(chrome, "example-search", "")
    source = everything[3]["source"]
    assert {one["source"] for one in choose(chrome, "example-source", source)} == {source}
    choose(chrome, "example-source", "")
    for key, attribute in (("length", "length"), ("percentile", "percentile"), ("score", "score")):
        rising = [float(one[attribute]) for one in choose(chrome, "example-sort", key)]
        assert rising == sorted(rising)
    falling = [float(one["length"]) for one in choose(chrome, "example-sort", "-length")]
    assert falling == sorted(falling, reverse=True)
    assert chrome.problems() == []


def test_tables_are_sorted_by_their_heads(chrome, page):
    chrome.open(page)
    column = """(() => { const t = [...document.querySelectorAll('table.sortable')].find(
        t => t.caption.textContent.startsWith('Sources of the pool and'));
        const place = [...t.tHead.rows[0].cells].findIndex(h => h.textContent === 'chosen');
        CLICK; return [...t.tBodies[0].rows].map(
        r => Number(r.cells[place].textContent.replaceAll(',', ''))); })()"""
    click = "t.tHead.rows[0].cells[place].querySelector('button').click()"
    before = chrome.run(column.replace("CLICK", ""))
    down = chrome.run(column.replace("CLICK", click))
    up = chrome.run(column.replace("CLICK", click))
    assert down == sorted(before, reverse=True)
    assert up == sorted(before)
    head = "[...document.querySelectorAll('th[aria-sort]')].map(h => h.ariaSort)"
    assert chrome.run(head) == ["ascending"]


def test_tokens_are_shaded_by_their_numbers(chrome, page):
    chrome.open(page)
    chrome.run("document.getElementById('example-open').click()")
    assert chrome.run(f"{SHOWN}.every(e => e.open)")
    colours = chrome.run(
        "Object.fromEntries([1, 2, 3, 4, 5].map(n => [n, getComputedStyle("
        "document.querySelector('.tokens .p' + n)).backgroundColor]))"
    )
    strength = [float(re.findall(r"[\d.]+", colours[str(n)])[-1]) for n in range(1, 6)]
    assert strength == sorted(strength)
    assert strength[0] < 0.15
    assert strength[-1] > 0.5
    titles = chrome.run(
        "[...document.querySelectorAll('.tokens span')].map(s => [s.className, Number(s.title)])"
    )
    largest = max(value for _, value in titles)
    for name, value in titles:
        level = int(name[1])
        assert abs(value - level * largest / 5) <= 0.25 * largest, (name, value)


def test_nothing_of_the_data_is_executed(chrome, tmp_path):
    run = Run(tmp_path)
    rows = [
        example(f"{HOSTILE}{n % 2}", f"{HOSTILE}{n}", HOSTILE, HOSTILE, HOSTILE) for n in range(9)
    ]
    pool = run.pool(rows)
    detail = TokenDetail(HOSTILE, (HOSTILE, HOSTILE), np.array([0.1, 0.9]), np.ones(2, bool))
    run.score(
        pool, list(range(9)), details={HOSTILE: np.ones((9, 2))}, warnings=[HOSTILE],
        meanings={HOSTILE: {"title": HOSTILE, "each": HOSTILE}}, shading={0: detail, 8: detail},
    )  # fmt: skip
    run.select(pool, [8, 7], reasons=[HOSTILE, HOSTILE])
    run.select(pool, [1], "select@random", ("random",))
    run.train("train", [{"step": n, "loss": 1.0 / n, HOSTILE: n} for n in (1, 2, 3)], (HOSTILE,))
    run.evaluate("selected", {HOSTILE: accuracy(0.5, 0.1)})
    command = f"selectmoe run r '{HOSTILE}=1'"
    chrome.open(write_report(run.record(command), run.folder).page)
    chrome.run("document.getElementById('example-open').click()")
    choose(chrome, "example-search", HOSTILE)
    assert chrome.run("window.hacked === undefined")
    assert chrome.run("document.querySelectorAll('script, img').length") == 1
    assert chrome.problems() == []
    assert HOSTILE in chrome.run("document.querySelector('.example summary').textContent")


def test_paper_opens_what_is_folded_and_cuts_no_column(chrome, page, tmp_path):
    chrome.open(page, width=PAPER)
    folded = "document.querySelectorAll('details:not([open])').length"
    assert chrome.run(folded) > 20
    chrome.run("window.dispatchEvent(new Event('beforeprint'))")
    assert chrome.run(folded) == 0
    chrome.call("Emulation.setEmulatedMedia", {"media": "print"})
    over = chrome.run(
        f"""[...document.querySelectorAll('table, pre, svg, .tokens')].filter(
        e => e.getBoundingClientRect().right > {PAPER} + 1).map(e => e.outerHTML.slice(0, 99))"""
    )
    assert over == []
    assert chrome.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    chrome.run("window.dispatchEvent(new Event('afterprint'))")
    assert chrome.run(folded) > 20
    chrome.paper(tmp_path / "paper.pdf")
    assert (tmp_path / "paper.pdf").stat().st_size > 20_000
    text = pdf_text(tmp_path / "paper.pdf")
    if text is not None:
        for said in ("The recipe as resolved", "random arm", "Token by token", "read from"):
            assert said in text


def pdf_text(path: Path) -> str | None:
    """Return the text of a document, or ``None`` where poppler is not installed."""
    try:
        done = subprocess.run(["pdftotext", path, "-"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        return None
    return done.stdout


@pytest.mark.parametrize("outputs", [12, 20, 72, 136])
def test_heat_maps_of_many_outputs_fit_phone_screen_and_paper(chrome, tmp_path, outputs):
    rng = np.random.default_rng(0)
    run = Run(tmp_path)
    pool = run.pool([example("ab"[n % 2], f"q{n}", f"answer {n}") for n in range(30)])
    log = [{"step": n, "loss": 1.0 / n} for n in (1, 2, 3)]
    run.train("warmup", log, facts={"expert_load": made_up_load(rng, 16, outputs)})
    run.score(pool, list(range(30)))
    page = write_report(run.record(), run.folder).page
    over = "e => e.getBoundingClientRect().right"
    for width in (1280, 400):
        chrome.open(page, width=width)
        assert chrome.run("document.documentElement.scrollWidth") <= width
    chrome.open(page, width=PAPER)
    chrome.call("Emulation.setEmulatedMedia", {"media": "print"})
    ends = chrome.run(f"[...document.querySelectorAll('table.heat td')].map({over})")
    assert len(ends) == 2 * 16 * outputs
    assert max(ends) <= PAPER + 1
    # Every number is there for a reader who does not see colours.
    texts = "[...document.querySelectorAll('table.heat td')].map(e => Number(e.textContent))"
    found = np.array(chrome.run(texts)).reshape(2, 16, outputs)
    np.testing.assert_allclose(found.sum(axis=2), 100, atol=0.5 * outputs)
    assert chrome.problems() == []


def test_everything_is_reached_by_keys_and_named_for_screen_readers(chrome, page):
    chrome.open(page)
    chrome.press("Tab")
    assert chrome.run("document.activeElement.className") == "skip"
    unnamed = chrome.run(
        """(() => { const named = (e) => (e.labels && e.labels.length) || e.textContent.trim()
        || e.getAttribute('aria-label');
        const all = 'input, select, button, summary, [role=region], svg[role]';
        return [...document.querySelectorAll(all)].filter(e => !named(e))
        .map(e => e.outerHTML.slice(0, 99)); })()"""
    )
    assert unnamed == []
    regions = "[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0)"
    assert chrome.run(regions)
    levels = chrome.run(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))"
    )
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = chrome.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    chrome.run("document.querySelector('.example summary').focus()")
    chrome.press("Enter")
    assert chrome.run("document.querySelector('.example').open")


def test_a_hundred_thousand_examples_open_in_two_seconds(chrome, tmp_path):
    rng = np.random.default_rng(0)
    run = Run(tmp_path)
    text = " ".join(f"word{n}" for n in rng.integers(0, 900, 400))
    pool = run.pool(
        example(
            f"source {n % 30}",
            f"Question {n}: {text[n % 400 :][:600]}",
            text[n % 700 : n % 700 + 900],
        )
        for n in range(100_000)
    )
    values = rng.normal(size=len(pool))
    meaning = {"title": "mass on trash cans", "complement": True, "each": "layer", "share": True}
    run.score(
        pool, values, details={"layers": rng.random((len(pool), 16))}, meanings={"layers": meaning},
        shading=made_up_tokens(pool, values, rng), parts=25,
    )  # fmt: skip
    order = np.argsort(-values)
    run.select(pool, order[:5000].tolist())
    run.select(pool, rng.permutation(len(pool))[:5000].tolist(), "select@random", ("random",))
    page = write_report(run.record(), run.folder).page
    assert page.stat().st_size < 3_000_000
    assert min(chrome.open(page) for _ in range(2)) < 2.0
    assert "100,000" in chrome.run("document.querySelector('header').textContent")
    assert chrome.problems() == []
