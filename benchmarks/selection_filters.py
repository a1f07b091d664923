"""Near-duplicates of many short examples, as the filter finds them and by comparing all pairs.

    python benchmarks/selection_filters.py --work DIR                    # a million examples
    python benchmarks/selection_filters.py --work DIR --rows 100000
    python benchmarks/selection_filters.py --work DIR --only signatures

``near_duplicates`` times the filter over a pool of conversations of two turns, of which every tenth
is a copy of the one before in other case, with other spaces, a changed word or a further turn, and
fails where fewer than 99 % of the copies are grouped with their original. ``all_pairs`` compares
the filter with all pairs of 1,500 examples, in time and in what is grouped. ``signatures`` compares
two libraries that make MinHash signatures (``pip install datasketch``). ``leak`` looks for the
answers of 10,000 rows as if an evaluation asked them, and fails where it misses one of these rows;
``small_leak`` compares it with a look at every run of words. Writes JSON lines, with seconds of
wall-clock time and of the processor.
"""

import random
import shutil
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from selection_parts import RowsBench, Timed, memory, run_parts

from selectmoe_core import Job, Message, Question, RawExample
from selectmoe_core.data import Pool
from selectmoe_core.data.questions import write_questions
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_filters.config import LeakConfig
from selectmoe_filters.leak import Leak, question_runs
from selectmoe_filters.texts import words

EVERY = 10
"""One in so many examples is a copy of the one before."""
GOAL = 300.0
"""Seconds for a million examples on two cores."""
PAIRED = 1500
QUESTIONS = 10_000
SIGNED = 20_000
LEAST = 0.99
"""The share of copies that must be found."""


class Bench(RowsBench):
    """The parts."""

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
        naive = Timed.of(lambda: _alike(pool))
        missed = sum(groups.get(a) != groups.get(b, -1) for a, b in naive.value)
        return figures | {
            "rows": len(pool),
            "pairs": len(naive.value),
            "pairs_missed": missed,
            "all_pairs_cpu": round(naive.cpu, 2),
            "times_faster": round(naive.cpu / max(figures["cpu"], 0.01), 1),
        }

    def leak(self) -> dict[str, Any]:
        """Look for questions of an evaluation in a large pool."""
        pool = self._pool(self.rows)
        asked = range(0, len(pool), max(1, len(pool) // QUESTIONS))
        found = self._leaks(pool, asked)
        if missed := set(asked) - found.value:
            raise AssertionError(f"{len(missed)} rows that hold a question are not found")
        figures = {"rows": len(pool), "questions": len(asked), "found": len(found.value)}
        return figures | found.figures() | memory()

    def small_leak(self) -> dict[str, Any]:
        """Compare with a look at every run of words."""
        pool = self._pool(SIGNED)
        asked = range(0, len(pool), 100)
        found = self._leaks(pool, asked)
        runs = question_runs(questions(pool, asked), LeakConfig())
        naive = Timed.of(lambda: word_by_word(pool, set(runs)))
        if found.value != naive.value:
            raise AssertionError("the filter marks other rows than a look at every run of words")
        return {"rows": SIGNED, "found": len(found.value), "equal": True} | found.beside(naive)

    def _leaks(self, pool: Pool, asked: range) -> Timed:
        folder = self.work / f"questions-{len(pool)}"
        folder.mkdir(exist_ok=True)
        write_questions(folder, questions(pool, asked))
        part, job = Leak(LeakConfig()), Job(seed=1, inputs=Inputs(questions=folder))
        return Timed.of(lambda: set(part.mark(pool, job).rows.tolist()))

    def signatures(self) -> dict[str, Any]:
        """Time the signatures alone, of the same runs of words, with either library."""
        import numpy as np
        from datasketch import MinHash
        from rensa import RMinHash

        draw = np.random.default_rng(1)
        sizes = draw.integers(20, 100, size=SIGNED)
        runs = draw.integers(0, 1 << 63, size=int(sizes.sum()), dtype=np.uint64)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        flat = RMinHash.digest_matrix_from_flat_token_hashes

        def one_by_one() -> None:
            for first, last in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
                one = MinHash(126, seed=1, hashfunc=lambda value: int(value) & 0xFFFFFFFF)
                one.update_batch(runs[first:last])

        rensa = Timed.of(lambda: np.array(flat(runs, ends.astype(np.uint64), 126, 1).to_rows())).cpu
        datasketch = Timed.of(one_by_one).cpu
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

        part = NearDuplicates(NearDuplicatesConfig())
        job = Job(seed=1, scratch=self.work / "scratch")
        found = Timed.of(lambda: part.mark(pool, job))
        rows, numbers = found.value.rows.tolist(), found.value.numbers.tolist()
        return dict(zip(rows, numbers, strict=True)), found.figures() | memory()


def questions(pool: Pool, rows: range) -> list[Question]:
    """Return the answers of some rows as questions."""
    return [Question("task", example.response) for example in pool.take(rows)]


def word_by_word(pool: Pool, runs: set[tuple[str, ...]]) -> set[int]:
    """Return the rows that hold a run, by a look at every run of each size."""
    sizes = {len(run) for run in runs}
    found = set()
    for row, example in enumerate(pool.examples()):
        for message in example.messages:
            own = words(message.content)
            every = (tuple(own[n : n + size]) for size in sizes for n in range(len(own) - size + 1))
            if any(run in runs for run in every):
                found.add(row)
    return found


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


def _alike(pool: Pool) -> list[tuple[int, int]]:
    """Return the pairs of rows that share most of their runs, by looking at every pair."""
    sets = [_runs(example) for example in pool.examples()]
    return [
        (a, b)
        for a, b in combinations(range(len(sets)), 2)
        if len(sets[a] & sets[b]) >= 0.8 * len(sets[a] | sets[b])
    ]


def _runs(example: Any) -> set[tuple[str, ...]]:  # noqa: ANN401
    own: list[str] = []
    for message in example.messages:
        own += [f"<{message.role}>", *message.content.lower().split()]
    return {tuple(own[place : place + 3]) for place in range(max(len(own) - 2, 1))}


PARTS = ("near_duplicates", "all_pairs", "leak", "small_leak", "signatures")


def main() -> None:
    """Run the parts."""
    run_parts(__doc__, Bench, PARTS, "numpy", "rensa")


if __name__ == "__main__":
    main()
