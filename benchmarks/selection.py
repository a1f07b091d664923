"""Selecting from synthetic score tables, and building a pool from JSON lines.

    python benchmarks/selection.py --work DIR                   # 100 million rows: 6 GB of disk
    python benchmarks/selection.py --work DIR --tiny            # a few seconds
    python benchmarks/selection.py --work DIR --only equal rows_10m

Tables are written by the core's own ``write_part`` and selected from as the stage does it: read the
columns, choose, check, write ``selection.parquet``; each in a process of its own, whose wall time
without imports, processor time and peak of anonymous memory are given. Scores are normal numbers
in float32, as a GPU leaves them: among 100 million of them ties are the rule, and their order by id
is part of the work. Beside it: a plain sort of everything with numpy, on the 10 million rows.
``equal`` compares small random tables with that plain sort. ``pool`` builds a pool from JSON lines,
beside ``datasets.load_dataset("json")``, and writes some of its rows as ``selected_data.jsonl``.
Writes JSON lines. (Not ``select.py``: that would hide the standard library's ``select`` from every
script of this folder.)
"""

import argparse
import json
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from measuring import Results, call, described, spread

MILLION = 1_000_000
PART = 1 << 16
"""Rows of a part, as the score stage cuts a large pool."""
SOURCES = 12
WAYS = {
    "top-fraction 0.05 of each source": ("top-fraction", {"fraction": 0.05, "per": "source"}),
    "top-fraction 0.3 of each source": ("top-fraction", {"fraction": 0.3, "per": "source"}),
    "top-fraction 0.05": ("top-fraction", {"fraction": 0.05}),
    "top-k a twentieth, by source": ("top-k", {"k": None, "per": "source"}),
    "threshold 1.64 from each source's mean": ("threshold", {"min": 1.64, "per": "source"}),
}
GOALS = {10: (5.0, 2.0), 100: (60.0, 6.0)}
"""Seconds and GiB for a top-fraction with quotas by source, by millions of rows."""
EXTRACT = 50_000
"""Rows written as JSON lines, drawn from the whole pool."""


class Bench:
    """The parts."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work: Path = arguments.work.resolve()
        self.repeats: int = arguments.repeats
        self.scale = 1000 if arguments.tiny else 1

    def equal(self) -> dict[str, Any]:
        """Compare every way with a plain sort on small random tables."""
        return self._inner("equal", 30 if self.scale > 1 else 200)

    def rows_10m(self) -> dict[str, Any]:
        """Select from 10 million rows, and sort them plainly."""
        found = self._ways(10)
        plain = self._inner("plain", self._table(10))
        return found | {"plain numpy sort, 0.05 of each source": plain}

    def rows_100m(self) -> dict[str, Any]:
        """Select from 100 million rows."""
        return self._ways(100)

    def pool(self) -> dict[str, Any]:
        """Build the pool, load the same file with ``datasets``, and write rows in full."""
        rows = MILLION // self.scale
        path = self.work / "rows.jsonl"
        if not path.is_file():
            _write_jsonl(path, rows)
        ways = {"pool": "build", "datasets": "datasets"}
        found: dict[str, Any] = {"rows": rows, "file_bytes": path.stat().st_size}
        for name, program in ways.items():
            runs = [self._inner(program, path) for _ in range(self.repeats)]
            fastest = min(run["seconds"] for run in runs)
            found[name] = {
                "rows_per_second": round(rows / fastest),
                "seconds": spread(run["seconds"] for run in runs),
                "anonymous_gib": max(run["anonymous_gib"] for run in runs),
            }
        found["pool_over_datasets"] = round(
            found["pool"]["rows_per_second"] / found["datasets"]["rows_per_second"], 2
        )
        found["selected_data"] = self._inner("extract", self.work / "pool")
        return found

    def _table(self, millions: int) -> Path:
        folder = self.work / f"scores-{millions}m"
        if not folder.is_dir():
            rows = millions * MILLION // self.scale
            self._inner("table", folder, rows)
        return folder

    def _ways(self, millions: int) -> dict[str, Any]:
        folder = self._table(millions)
        seconds, memory = GOALS[millions]
        found: dict[str, Any] = {"goal_seconds": seconds, "goal_gib": memory}
        for name in WAYS:
            runs = [self._inner("way", folder, name) for _ in range(self.repeats)]
            best = min(runs, key=lambda run: run["seconds"])
            found[name] = best | {"all_seconds": [run["seconds"] for run in runs]}
            print(f"  {millions} million, {name}: {json.dumps(found[name])}", flush=True)
        return found

    def _inner(self, name: str, *arguments: object) -> dict[str, Any]:
        done = call([sys.executable, __file__, "--inner", name, *map(str, arguments)])
        found: dict[str, Any] = json.loads(done.output.splitlines()[-1])
        return found | {"anonymous_gib": round(done.anonymous / 2**30, 2)}


def _write_jsonl(path: Path, rows: int) -> None:
    """Write conversations of two or four turns, 600 characters on average."""
    draw = random.Random(1)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(5000)]
    text = " ".join(draw.choices(words, k=200_000))
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            messages = []
            for turn in range(draw.choice((2, 2, 4))):
                start, size = draw.randrange(len(text)), int(draw.expovariate(1 / 225)) + 20
                role = "assistant" if turn % 2 else "user"
                messages.append({"role": role, "content": text[start : start + size] or "yes"})
            line = {"id": f"row-{number}", "dataset": f"source {number % 7}", "messages": messages}
            file.write(json.dumps(line) + "\n")


# ------------------------------------------------------------------ what runs in its own process


def table(folder: str, rows: str) -> dict[str, Any]:
    """Write a table of scores."""
    import numpy as np
    import pyarrow as pa

    from selectmoe_core import ShardScores
    from selectmoe_core.data.scores import write_part

    random_numbers = np.random.default_rng(7)
    weights = np.arange(SOURCES, 0, -1) / np.arange(SOURCES, 0, -1).sum()
    names = pa.array([f"source {number}" for number in range(SOURCES)])
    partial = Path(f"{folder}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for number, start in enumerate(range(0, int(rows), PART)):
        size = min(PART, int(rows) - start)
        words = pa.py_buffer(random_numbers.bytes(16 * size))
        ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), size, [None, words])
        codes = random_numbers.choice(SOURCES, size=size, p=weights).astype(np.int32)
        values = random_numbers.standard_normal(size, dtype=np.float32).astype(np.float64)
        skipped = np.where(random_numbers.random(size) < 0.001, "too long", None)
        sources = pa.DictionaryArray.from_arrays(codes, names)
        write_part(partial, number, ids, sources, ShardScores(values, skipped))
    partial.rename(folder)
    return {}


def way(folder: str, name: str) -> dict[str, Any]:
    """Select in one way, as the stage does."""
    from selectmoe_core import ScoreTable
    from selectmoe_core.stages.select import choose

    selector = _selector(name, len(ScoreTable.open(Path(folder))))
    job = _job()
    start, before = time.monotonic(), time.process_time()
    _, facts = choose(selector, ScoreTable.open(Path(folder)), Path(folder), job)
    seconds, processor = time.monotonic() - start, time.process_time() - before
    return {"kept": facts["kept"], "seconds": round(seconds, 2), "cpu": round(processor, 2)}


def plain(folder: str) -> dict[str, Any]:
    """Sort everything, then go through it source by source; compare with the selector's choice."""
    import numpy as np

    from selectmoe_core import ScoreTable

    scores = ScoreTable.open(Path(folder))
    name = "top-fraction 0.05 of each source"
    start, before = time.monotonic(), time.process_time()
    rows = _plain(scores, name)
    seconds, processor = time.monotonic() - start, time.process_time() - before
    found = _selector(name, len(scores)).select(scores, _job()).rows
    if not np.array_equal(rows, found):
        raise AssertionError("the selector keeps other rows than the plain sort")
    return {"seconds": round(seconds, 2), "cpu": round(processor, 2), "equal": True}


def equal(trials: str) -> dict[str, Any]:
    """Compare all ways with the plain sort on small tables, ties and skipped rows among them."""
    import tempfile

    import numpy as np
    import pyarrow as pa

    from selectmoe_core import ScoreTable, ShardScores
    from selectmoe_core.data.scores import write_part

    draw = np.random.default_rng()
    compared = 0
    for _ in range(int(trials)):
        with tempfile.TemporaryDirectory() as folder:
            for number in range(int(draw.integers(1, 4))):
                rows = int(draw.integers(20, 300))
                values = draw.integers(-40, 40, size=rows) / 16
                skipped = np.where(draw.random(rows) < 0.05, "cut", None)
                ids = pa.array([draw.bytes(16) for _ in range(rows)], pa.binary(16))
                names = pa.array(draw.choice(list("abcd"), size=rows).tolist()).dictionary_encode()
                write_part(Path(folder), number, ids, names, ShardScores(values, skipped))
            scores = ScoreTable.open(Path(folder))
            for name in WAYS:
                found = _selector(name, len(scores)).select(scores, _job()).rows
                if found.tolist() != _plain(scores, name).tolist():
                    raise AssertionError(f"{name}: the selector keeps other rows than a plain sort")
                compared += 1
    return {"selections_compared": compared, "equal": True}


def build(path: str) -> dict[str, Any]:
    """Build the pool."""
    from selectmoe_core.data.pool_writer import build_pool
    from selectmoe_readers.config import JsonlConfig
    from selectmoe_readers.jsonl import JsonlReader

    folder = Path(path).parent / "pool"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    reader = JsonlReader(JsonlConfig(path=Path(path)))
    start = time.monotonic()
    pool = build_pool(reader.read(_job()), folder, on_reject="skip")
    return {"seconds": round(time.monotonic() - start, 2), "examples": len(pool)}


def datasets(path: str) -> dict[str, Any]:
    """Load the same file with ``datasets``, into an empty cache."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    cache = Path(path).parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    start = time.monotonic()
    found = load_dataset("json", data_files=path, split="train", cache_dir=str(cache))
    seconds = round(time.monotonic() - start, 2)
    shutil.rmtree(cache, ignore_errors=True)
    return {"seconds": seconds, "examples": len(found)}


def extract(folder: str) -> dict[str, Any]:
    """Write rows of the pool in full, in the order of their ranks."""
    import numpy as np

    from selectmoe_core.data.pool import Pool
    from selectmoe_core.stages.select import write_rows

    pool = Pool.open(Path(folder))
    rows = np.random.default_rng(3).permutation(len(pool))[:EXTRACT]
    start = time.monotonic()
    write_rows(Path(folder), pool, rows, np.zeros(len(pool)), lambda _: None)
    return {"rows": len(rows), "rows_per_second": round(len(rows) / (time.monotonic() - start))}


def _job() -> Any:  # noqa: ANN401
    from selectmoe_core import Job

    return Job(seed=1)


def _options(name: str, rows: int) -> tuple[str, dict[str, Any]]:
    component, options = WAYS[name]
    return component, options | ({"k": rows // 20} if "k" in options else {})


def _selector(name: str, rows: int) -> Any:  # noqa: ANN401
    from selectmoe_core.config import parse
    from selectmoe_core.plugin.manager import load_plugins
    from selectmoe_core.plugin.registry import Kind, Registry

    component, options = _options(name, rows)
    entry = Registry(load_plugins(())).get(Kind.SELECTOR, component, where=name)
    return entry.component.build(parse(entry.component.config, options, where=name))


def _plain(scores: Any, name: str) -> Any:  # noqa: ANN401
    """Return the rows that a way keeps, by sorting everything: the reference."""
    import math
    from fractions import Fraction

    import numpy as np

    component, options = _options(name, len(scores))
    values, words = scores.score(), scores.ids()
    codes, names = scores.sources()
    order = np.lexsort((words[:, 1], words[:, 0], -values))
    order = order[np.isfinite(values[order])]
    if "per" not in options:
        return order[: math.ceil(Fraction(str(options["fraction"])) * len(values))]
    own = [order[codes[order] == code] for code in range(len(names))]
    if component == "threshold":
        means = [_mean(values[np.sort(rows)]) for rows in own]
        pairs = zip(own, means, strict=True)
        kept = [rows[values[rows] - mean >= options["min"]] for rows, mean in pairs]
    else:
        if component == "top-fraction":
            share = Fraction(str(options["fraction"]))
            quota = [math.ceil(share * int((codes == code).sum())) for code in range(len(names))]
        else:
            quota = _hamilton(options["k"], dict(zip(names, map(len, own), strict=True)), names)
        kept = [rows[:count] for rows, count in zip(own, quota, strict=True)]
    chosen = np.zeros(len(values), dtype=bool)
    chosen[np.concatenate(kept)] = True
    return order[chosen[order]]


def _mean(values: Any) -> float:  # noqa: ANN401
    """Return the mean, added up one after the other as ``bincount`` does: a bound may be hit."""
    total = 0.0
    for value in values.tolist():
        total += value
    return total / max(len(values), 1)


def _hamilton(k: int, sizes: dict[str, int], names: tuple[str, ...]) -> list[int]:
    """Return the quotas of ``k`` by size, largest remainder, ties by name."""
    from fractions import Fraction

    exact = {name: Fraction(k * size, sum(sizes.values())) for name, size in sizes.items()}
    quota = {name: int(share) for name, share in exact.items()}
    rest = sorted(exact, key=lambda name: (quota[name] - exact[name], name))
    for name in rest[: k - sum(quota.values())]:
        quota[name] += 1
    return [quota[name] for name in names]


INNER = {one.__name__: one for one in (table, way, plain, equal, build, datasets, extract)}


def main() -> None:
    """Run the parts, or what one of them starts."""
    if sys.argv[1:2] == ["--inner"]:
        print(json.dumps(INNER[sys.argv[2]](*sys.argv[3:])))
        return
    shown = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shown)
    parser.add_argument("--work", type=Path, default=Path("selection-bench"), help="scratch folder")
    parser.add_argument("--tiny", action="store_true", help="a thousandth of the rows")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART")
    parser.add_argument("--out", type=Path, default=Path("selection.jsonl"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments)
    print(json.dumps(described("selectmoe", "numpy", "pyarrow", "datasets")), flush=True)
    parts = {name: getattr(bench, name) for name in ("equal", "rows_10m", "rows_100m", "pool")}
    sys.exit(1 if Results(arguments.out, parts).run(arguments.only) else 0)


if __name__ == "__main__":
    main()
