"""Near-duplicates of many short examples, as the filter finds them and by comparing all pairs.

    python benchmarks/selection_filters.py --work DIR                    # a million examples
    python benchmarks/selection_filters.py --work DIR --rows 100000
    python benchmarks/selection_filters.py --work DIR --only signatures

``near_duplicates`` times the filter over a pool of conversations of two turns, of which every tenth
is a copy of the one before in other case, with other spaces, a changed word or a further turn, and
fails where fewer than 99 % of the copies are grouped with their original. ``all_pairs`` compares
the filter with all pairs of 1,500 examples, in time and in what is grouped. ``signatures`` compares
two libraries that make MinHash signatures (``pip install datasketch``). Writes JSON lines, with
seconds of wall-clock time and of the processor.
"""

import argparse
import json
import random
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from measuring import described
from parts import Parts

from selectmoe_core import Job, Message, RawExample
from selectmoe_core.data import Pool

EVERY = 10
"""One in so many examples is a copy of the one before."""
GOAL = 300.0
"""Seconds for a million examples on two cores."""
PAIRED = 1500
SIGNED = 20_000
LEAST = 0.99
"""The share of copies that must be found."""


class Bench:
    """The parts."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work: Path = arguments.work.resolve()
        self.rows: int = arguments.rows

    def near_duplicates(self) -> dict[str, Any]:
        """Group the copies of a large pool."""
        pool = self._pool(self.rows)
        groups, figures = self._groups(pool)
        copies = range(EVERY - 1, len(pool), EVERY)
        found = sum(groups.get(row) == groups.get(row - 1, -1) for row in copies)
        if found < LEAST * len(copies):
            raise AssertionError(f"only {found} of {len(copies)} copies are found")
        per_million = figures["seconds"] * 1e6 / len(pool)
        return figures | {
            "rows": len(pool),
            "copies": len(copies),
            "copies_found": found,
            "rows_in_groups": len(groups),
            "seconds_per_million": round(per_million, 1),
            "goal_seconds_per_million": GOAL,
        }

    def all_pairs(self) -> dict[str, Any]:
        """Compare with all pairs of a small pool."""
        pool = self._pool(PAIRED)
        groups, figures = self._groups(pool)
        start = time.process_time()
        sets = [_runs(example) for example in pool.examples()]
        pairs = [
            (a, b)
            for a, b in combinations(range(len(sets)), 2)
            if len(sets[a] & sets[b]) >= 0.8 * len(sets[a] | sets[b])
        ]
        naive = time.process_time() - start
        missed = sum(groups.get(a) != groups.get(b, -1) for a, b in pairs)
        return figures | {
            "rows": len(pool),
            "pairs": len(pairs),
            "pairs_missed": missed,
            "all_pairs_cpu": round(naive, 2),
            "times_faster": round(naive / max(figures["cpu"], 0.01), 1),
        }

    def signatures(self) -> dict[str, Any]:
        """Time the signatures alone, of the same runs of words, with either library."""
        import numpy as np
        from datasketch import MinHash
        from rensa import RMinHash

        draw = np.random.default_rng(1)
        sizes = draw.integers(20, 100, size=SIGNED)
        runs = draw.integers(0, 1 << 63, size=int(sizes.sum()), dtype=np.uint64)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        start = time.process_time()
        found = RMinHash.digest_matrix_from_flat_token_hashes(runs, ends.astype(np.uint64), 126, 1)
        np.array(found.to_rows())
        rensa = time.process_time() - start
        start = time.process_time()
        for first, last in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            one = MinHash(126, seed=1, hashfunc=lambda value: int(value) & 0xFFFFFFFF)
            one.update_batch(runs[first:last])
        datasketch = time.process_time() - start
        return {
            "texts": SIGNED,
            "rensa_microseconds": round(rensa / SIGNED * 1e6, 1),
            "datasketch_microseconds": round(datasketch / SIGNED * 1e6, 1),
            "times_faster": round(datasketch / rensa, 1),
        }

    def _pool(self, rows: int) -> Pool:
        from selectmoe_core.data.pool_writer import build_pool

        folder = self.work / f"pool-{rows}"
        if not (folder / "pool.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build_pool(conversations(rows), folder)
        return Pool.open(folder)

    def _groups(self, pool: Pool) -> tuple[dict[int, int], dict[str, Any]]:
        from selectmoe_filters.config import NearDuplicatesConfig
        from selectmoe_filters.duplicates import NearDuplicates

        start, before = time.monotonic(), time.process_time()
        part = NearDuplicates(NearDuplicatesConfig())
        marks = part.mark(pool, Job(seed=1, scratch=self.work / "scratch"))
        figures = {
            "seconds": round(time.monotonic() - start, 1),
            "cpu": round(time.process_time() - before, 1),
            "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        }
        return dict(zip(marks.rows.tolist(), marks.numbers.tolist(), strict=True)), figures


def conversations(rows: int) -> Iterator[RawExample]:
    """Yield conversations of two turns, 300 characters on average; every tenth is a copy."""
    draw = random.Random(1)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(20_000)]
    last: list[str] = []
    for row in range(rows):
        if row % EVERY == EVERY - 1:
            turns = _copied(last, draw, words)
        else:
            sizes = draw.randint(8, 20), draw.randint(15, 60)
            turns = [" ".join(draw.choices(words, k=size)) for size in sizes]
        last = turns
        roles = ("user", "assistant") * (len(turns) // 2)
        messages = tuple(Message(role, text) for role, text in zip(roles, turns, strict=True))
        yield RawExample(f"source {row % 7}", messages)


def _copied(turns: list[str], draw: random.Random, words: list[str]) -> list[str]:
    prompt, answer = turns
    own = answer.split()
    match draw.randrange(4):
        case 0:
            return [prompt.upper(), answer]
        case 1:
            return [f"{prompt} ", "  ".join(own)]
        case 2:
            return [prompt, " ".join([*own, draw.choice(words)])]
    return [prompt, answer, *(" ".join(draw.choices(words, k=20)) for _ in range(2))]


def _runs(example: Any) -> set[tuple[str, ...]]:  # noqa: ANN401
    own: list[str] = []
    for message in example.messages:
        own += [f"<{message.role}>", *message.content.lower().split()]
    return {tuple(own[place : place + 3]) for place in range(max(len(own) - 2, 1))}


def main() -> None:
    """Run the parts."""
    shown = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shown)
    parser.add_argument("--work", type=Path, default=Path("filters-bench"), help="scratch folder")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART")
    parser.add_argument("--out", type=Path, default=Path("selection_filters.jsonl"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments)
    print(json.dumps(described("selectmoe", "numpy", "rensa")), flush=True)
    parts = {name: getattr(bench, name) for name in ("near_duplicates", "all_pairs", "signatures")}
    sys.exit(1 if Parts(arguments.out).run_all(parts, arguments.only) else 0)


if __name__ == "__main__":
    main()
