"""What ``selection.py`` starts in processes of their own: each prints its figures as JSON.

python benchmarks/selection_programs.py PROGRAM ARGUMENT...
"""

import json
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from selection_ways import WAYS, options_of, plain_rows

PART = 1 << 16
"""Rows of a part, as the score stage cuts a large pool."""
SOURCES = 12
EXTRACT = 50_000
"""Rows written as JSON lines, drawn from the whole pool."""


def rows(path: str, number: str) -> dict[str, Any]:
    """Write conversations of two or four turns, 600 characters on average."""
    draw = random.Random(1)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(5000)]
    text = " ".join(draw.choices(words, k=200_000))
    with Path(path).open("w", encoding="utf-8") as file:
        for place in range(int(number)):
            messages = []
            for turn in range(draw.choice((2, 2, 4))):
                start, size = draw.randrange(len(text)), int(draw.expovariate(1 / 225)) + 20
                role = "assistant" if turn % 2 else "user"
                messages.append({"role": role, "content": text[start : start + size] or "yes"})
            line = {"id": f"row-{place}", "dataset": f"source {place % 7}", "messages": messages}
            file.write(json.dumps(line) + "\n")
    return {}


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
    rows = plain_rows(scores, name)
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
                if found.tolist() != plain_rows(scores, name).tolist():
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


def _selector(name: str, rows: int) -> Any:  # noqa: ANN401
    from selectmoe_core.config import parse
    from selectmoe_core.plugin.manager import load_plugins
    from selectmoe_core.plugin.registry import Kind, Registry

    component, options = options_of(name, rows)
    entry = Registry(load_plugins(())).get(Kind.SELECTOR, component, where=name)
    return entry.component.build(parse(entry.component.config, options, where=name))


EVERY = (rows, table, way, plain, equal, build, datasets, extract)
PROGRAMS = {program.__name__: program for program in EVERY}

if __name__ == "__main__":
    print(json.dumps(PROGRAMS[sys.argv[1]](*sys.argv[2:])))
