"""Rows and files with mistakes of every kind, through every reader and into a pool.

Each row comes out once, as an example or as a reject with its reason; rows that nothing was done to
come out as they went in; a pool gives back what was written into it. Where a file cannot be read,
the error is one of ours.
"""

import copy
import csv
import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

from fuzzing.cases import Area, Report
from fuzzing.place import call, faults_of, working_in
from fuzzing.values import ROLES, TEXTS, mutate, mutate_bytes, nested, odd

ROWS = 20
"""Rows of each case."""
FORMATS = ("messages", "alpaca", "sharegpt", "prompt_completion")
KEYS = [
    "messages", "role", "content", "conversations", "from", "value", "instruction", "input",
    "output",
    "history", "system", "prompt", "completion", "dataset", "source", "category", "id", "label",
    "meta",
    "weight", "train", "loss", "tool_calls", "tools", "functions", "reasoning_content", "thinking",
    "text", "type", "name", "chosen", "rejected", "question", "answer", "response", "", "\ud83d",
    "x" * 300,
]  # fmt: skip
KINDS = ("lines", "array", "csv", "parquet", "less", "hub", "selection")
RAW = (
    "[" * 100_000, '{"a":' * 100_000, "{", "nan", "1" * 5000, '{"messages": [' + "1" * 5000 + "]}",
    "\x00",
    '{"a": 1}{"a": 1}', "'x'", "//", '{"prompt": "\\ud800", "completion": "x"}', "\u2028",
    "\x1b[2J", "}" * 9,
    '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'
    ', "messages": 1}',
)  # fmt: skip
"""Lines that are no JSON, or JSON at its edges."""


class Raw(str):
    """A line to write as it is."""


Turns = tuple[tuple[str, str], ...]


def row_of(generator: random.Random, kind: str, number: int) -> tuple[dict[str, Any], Turns]:
    """Return a good row of a format, and the turns that a reader must make of it."""
    mark = f"{number} " + generator.choice(
        ("q", "é\u4e16", "a\nb", "</s><|user|>", '"x"', "\U0001f600")
    )
    question, answer = f"question {mark}", f"answer {mark}"
    turns: list[tuple[str, str]] = [("user", question), ("assistant", answer)]
    row: dict[str, Any]
    if kind == "alpaca":
        row = {"instruction": question, "input": "", "output": answer}
    elif kind == "prompt_completion":
        row = {"prompt": question, "completion": answer}
    else:
        if generator.random() < 0.4:
            turns += [("user", f"more {mark}"), ("assistant", f"again {mark}")]
        if generator.random() < 0.3:
            turns.insert(0, ("system", f"be {mark}"))
        names = ("role", "content") if kind == "messages" else ("from", "value")
        roles = {"user": "human", "assistant": "gpt"} if kind == "sharegpt" else {}
        listed = [{names[0]: roles.get(role, role), names[1]: text} for role, text in turns]
        row = {"messages" if kind == "messages" else "conversations": listed}
    if generator.random() < 0.5:
        row |= {"dataset": generator.choice("ab"), "id": str(number), "label": "l"}
    return row, tuple(turns)


def run(generator: random.Random, folder: Path) -> Report:
    """Write a file of good and bad rows, read it, and make a pool of it."""
    report = Report(counts={"rows": ROWS})
    kind, form = generator.choice(KINDS), generator.choice(FORMATS)
    if kind == "csv":
        form = generator.choice(("alpaca", "prompt_completion"))
    if kind in ("less", "selection"):
        form = "messages"
    report.did.append(f"{ROWS} rows of {form} as {kind}")
    rows, kept = _rows(generator, kind, form, report)
    file, options = _write(generator, folder, kind, rows, report)
    if file is None:  # Arrow does not hold these rows
        kind = "lines"
        file, options = _write(generator, folder, kind, rows, report)
    assert file is not None
    counted = _count(kind, file, rows)
    if generator.random() < 0.25:
        content, did = mutate_bytes(generator, file.read_bytes())
        file.write_bytes(content)
        report.did.append(f"bytes: {did}")
        # What can still be counted is lines; another kind of damage may change what a file is.
        counted, kept = _lines(content) if kind in ("lines", "less") else None, {}
    _read(report, folder, options, counted, kept)
    if generator.random() < 0.1:
        _command(report, folder, options, generator.choice(("skip", "stop")))
    return report


def _rows(
    generator: random.Random, kind: str, form: str, report: Report
) -> tuple[list[Any], dict[int, Turns]]:
    """Return rows of which some are mutated, and the turns of those that are not."""
    rows: list[Any] = []
    kept: dict[int, Turns] = {}
    for number in range(ROWS):
        row, turns = row_of(generator, form, number)
        # The first row is good: it says what the format of the file is.
        if number and generator.random() < 0.5:
            report.did.append(f"row {number}: {_spoil(generator, row, kind)}")
            if generator.random() < 0.05 and kind in ("lines", "array", "less", "selection"):
                row = generator.choice((odd(generator), nested(300, 1), [row]))
            if generator.random() < 0.05 and kind in ("lines", "less"):
                row = Raw(generator.choice(RAW))
        else:
            kept[number] = turns
        rows.append(row)
    return rows, kept


def _spoil(generator: random.Random, row: dict[str, Any], kind: str) -> str:
    if kind in ("csv", "parquet", "hub"):
        key = generator.choice(list(row))
        row[key] = generator.choice([*TEXTS, *ROLES]).replace("\0", "")
        return f"{key} = {row[key]!r:.100}"
    return "; ".join(
        mutate(generator, row, KEYS, lambda: odd(generator))
        for _ in range(generator.choice((1, 1, 2)))
    )


def _write(
    generator: random.Random, folder: Path, kind: str, rows: list[Any], report: Report
) -> tuple[Path | None, dict[str, Any]]:  # fmt: skip
    """Write rows as a file and return it, with what the reader's table must say."""
    place = folder / "data"
    place.mkdir(exist_ok=True)
    if kind == "csv":
        return _write_table(generator, place, rows)
    if kind in ("parquet", "hub"):
        return _write_arrow(place, kind, rows, report)
    if kind == "array":
        file = place / generator.choice(("rows.json", "rows.jsonl"))
        file.write_text(json.dumps(rows, indent=generator.choice((None, 1))), encoding="utf-8")
        return file, {"use": "jsonl", "path": str(file)}
    if kind == "selection":
        rows = [{**row, "score": 1.5, "rank": 1} if isinstance(row, dict) else row for row in rows]
    lines = "".join((row if isinstance(row, Raw) else json.dumps(row)) + "\n" for row in rows)
    if kind == "less":
        file = place / "dolly" / "dolly_data.jsonl"
        file.parent.mkdir()
        file.write_text(lines, encoding="utf-8")
        return file, {"use": "less", "path": str(place), "sources": ["dolly"]}
    file = place / generator.choice(("rows.jsonl", "rows.json", "train-00000-of-00002.jsonl"))
    file.write_text(lines, encoding="utf-8")
    return file, {"use": "jsonl", "path": str(file)}


def _write_table(
    generator: random.Random, place: Path, rows: list[Any]
) -> tuple[Path, dict[str, Any]]:
    names = sorted({str(key) for row in rows for key in row})
    tabs = generator.random() < 0.3
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter="\t" if tabs else ",", lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        cells = [str(row.get(name, "")).replace("\r", "") for name in names]
        writer.writerow(cells)
    file = place / ("rows.tsv" if tabs else "rows.csv")
    content = sink.getvalue().encode("utf-8", "surrogatepass")
    packed = generator.random() < 0.2
    if packed:
        file = file.with_name(f"{file.name}.gz")
    file.write_bytes(gzip.compress(content) if packed else content)
    return file, {"use": "csv", "path": str(file)}


def _write_arrow(
    place: Path, kind: str, rows: list[Any], report: Report
) -> tuple[Path | None, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = place / ("rows.parquet" if kind == "parquet" else "train.parquet")
    try:
        pq.write_table(pa.Table.from_pylist(rows), file)
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
        report.did.append("Arrow does not hold these rows: as lines")
        return None, {}
    if kind == "hub":
        return file, {"use": "hub", "path": str(place)}
    return file, {"use": "parquet", "path": str(file)}


def _lines(content: bytes) -> int | None:
    """Count the lines of JSON lines; ``None`` where the content may be another kind of file."""
    head = content.lstrip()[:1]
    if head != b"{" or b"\0" in content:
        return None
    return sum(bool(line.strip()) for line in content.split(b"\n"))


def _count(kind: str, file: Path, rows: list[Any]) -> int | None:
    """Return how many rows must come out."""
    return _lines(file.read_bytes()) if kind in ("lines", "less", "selection") else len(rows)


def _read(
    report: Report,
    folder: Path,
    options: dict[str, Any],
    counted: int | None,
    kept: dict[int, Turns],
) -> None:
    """Read a file as the pool stage does and compare what comes out."""
    from selectmoe_core import DataError, Job, RecipeError
    from selectmoe_core.config import parse
    from selectmoe_core.data.pool_writer import build_pool
    from selectmoe_core.plugin.component import Kind
    from selectmoe_core.plugin.manager import load_plugins
    from selectmoe_core.plugin.registry import Registry

    options = copy.deepcopy(options)
    component = Registry(load_plugins()).get(Kind.READER, options.pop("use"), where="x").component
    try:
        part = component.build(parse(component.config, options, where="[pool]"))
        if hasattr(part, "check"):
            part.check(Job(seed=0))
        found = list(part.read(Job(seed=0)))
    except (DataError, RecipeError) as error:
        report.came = "refused"
        report.did.append(f"refused: {error}")
        if not str(error).strip() or not error.hint:
            report.fault("an error without words or hint", repr(error))
        if kept:
            report.fault("a file with good rows is refused", f"{error}\n{error.hint}")
        return
    report.came = "read"
    if counted is not None and len(found) != counted:
        report.fault("lost or doubled rows", f"{counted} rows went in, {len(found)} came out")
    _compare_good(report, found, kept)
    (folder / "pool").mkdir()
    try:
        pool = build_pool(found, folder / "pool", on_reject="skip")
    except DataError as error:
        report.came = "empty"
        if "empty" not in str(error) or kept:
            report.fault("the pool stage fails under skip", str(error))
        return
    _compare_pool(report, found, pool)


def _compare_good(report: Report, found: list[Any], kept: dict[int, Turns]) -> None:
    from selectmoe_core import RawExample

    came = {
        tuple((m.role, m.content) for m in one.messages)
        for one in found
        if isinstance(one, RawExample)
    }
    for number, turns in kept.items():
        if turns not in came:
            rejects = [one for one in found if not isinstance(one, RawExample)]
            report.fault(
                "a good row did not come out as it went in", f"row {number}: {turns}\n{rejects[:5]}"
            )
            return


def _compare_pool(report: Report, found: list[Any], pool: Any) -> None:
    """Compare a pool, read back, with a plain list of what went into it."""
    from selectmoe_core import RawExample, Reject
    from selectmoe_core.data.pool import Pool

    first: dict[Any, str] = {}
    for one in found:
        if isinstance(one, RawExample):
            first.setdefault(one.messages, one.source)
    pool = Pool.open(pool.folder)
    back = [(example.messages, example.source) for example in pool.examples()]
    rejected = [one for one in found if isinstance(one, Reject)]
    counts = pool.sources.values()
    total = sum(n.examples + n.rejected + n.duplicates for n in counts)
    if total != len(found) or len(back) != len(pool):
        report.fault("the pool's counts do not add up", f"{len(found)} rows, counts {pool.sources}")
    given = {messages for messages, _ in back}
    if len(given) != len(back):
        report.fault("the pool holds a row twice")
    # What the pool itself refuses is a reject of the pool: it was no sound conversation.
    missing = [messages for messages in first if messages not in given]
    refused = sum(n.rejected for n in counts) - len(rejected)
    if not given <= first.keys() or len(missing) > refused:
        report.fault("the pool does not give back what was written", f"{missing[:3]} {refused}")
    if len(list(pool.rejects())) != sum(n.rejected for n in counts):
        report.fault("rejects are not all in the file of rejects")


def _command(report: Report, folder: Path, options: dict[str, Any], on_reject: str) -> None:
    """Make the pool by the command line, as a user would."""
    import tomli_w

    recipe = {
        "format": 1,
        "name": "rows",
        "pool": {**options, "on_reject": on_reject},
        "score": {"use": "random"},
        "select": {"use": "top-fraction", "fraction": 0.5},
    }
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe), encoding="utf-8")
    with working_in(folder):
        said = call("run", "recipe.toml", "--outputs", str(folder / "outputs"))
    report.did.append(f"run with on_reject = {on_reject}: {said.code}")
    for kind, what in faults_of(said, (0, 1, 2)):
        report.fault(f"run: {kind}", what)


AREA = Area("rows", run, seconds=60.0, chunk=100)
