"""Try thousands of broken recipes, rows, checkpoints and stores, and end runs at any moment.

    python tools/fuzz.py                                  a short form
    python tools/fuzz.py --recipes 20000 --rows 20000 --checkpoints 2000 --kills 200 --jobs 16
    python tools/fuzz.py --recipes 20000 --minutes 9      what fits into nine minutes; call it again
    python tools/fuzz.py --recipes 5000 --seed 20000      further cases
    python tools/fuzz.py --again recipes:17               one case again, in full

It needs a checkout and the dependencies, no network. A case follows from its area and its seed.
Findings go to OUT/findings.jsonl, a line each. What became of each case goes to OUT/done.jsonl,
and a later call with the same OUT leaves out what is done. Exits with 1 if something was found,
with 3 if nothing was found but the time was too short for all cases.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(ROOT),
    str(ROOT / "plugins"),
    str(ROOT / "tests"),
    str(ROOT / "tests" / "helpers"),
]

from fuzzing.crowd import (  # noqa: E402
    AREAS,
    Chunk,
    Done,
    carry_out_chunk,
    chunks,
    line_of,
    run_chunks,
)
from fuzzing.kills import KEPT  # noqa: E402
from fuzzing.rows import ROWS  # noqa: E402

LONGEST_FIRST = ("nano-kills", "kills", "together", "disks", "checkpoints", "artifacts", "rows",
                 "recipes")  # fmt: skip
"""The order in which areas begin: what takes longest for each case is not left to the end."""
SHORT = {"recipes": 400, "rows": 800, "checkpoints": 60, "kills": 6, "nano-kills": 0,
         "artifacts": 40, "disks": 3, "together": 2}  # fmt: skip


def main() -> int:
    """Run the cases and print one table."""
    arguments = parse()
    if arguments.chunk:
        area, start, stop = arguments.chunk.split(":")
        out = sys.stdout
        carry_out_chunk(
            Chunk(area, int(start), int(stop)),
            lambda done: print(line_of(done), file=out, flush=True),
            arguments.home,
        )
        return 0
    if arguments.again:
        return again(arguments.again)
    begun = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)
    wanted = wanted_seeds(arguments)
    earlier = read_done(arguments.out / "done.jsonl")
    tally = Tally(case for case in earlier.values() if case["seed"] in wanted[case["area"]])
    work = [
        chunk
        for name in LONGEST_FIRST
        for chunk in chunks(
            AREAS[name], [n for n in wanted[name] if (name, n) not in earlier], arguments.jobs
        )
    ]
    with (
        tempfile.TemporaryDirectory(prefix="selectmoe-fuzz-kept-") as kept,
        (arguments.out / "findings.jsonl").open("a", encoding="utf-8") as findings,
        (arguments.out / "done.jsonl").open("a", encoding="utf-8") as done_file,
    ):
        os.environ[KEPT] = kept
        until = begun + 60 * arguments.minutes
        for item in run_chunks(work, arguments.jobs, Path(__file__).resolve(), until):
            print(json.dumps(brief(item)), file=done_file, flush=True)
            tally.add(brief(item))
            for finding in item.findings:
                print(json.dumps(finding.record()), file=findings, flush=True)
                print(
                    f"{finding.area}:{finding.seed}: {finding.kind}\n    {finding.again}",
                    flush=True,
                )
    print(f"\n{time.monotonic() - begun:,.0f} s on {arguments.jobs} processes")
    tally.print()
    left = sum(map(len, wanted.values())) - tally.cases
    if left:
        print(f"\n{left:,} cases are left: call this again with the same --out")
    return 1 if tally.kinds else 3 if left else 0


def wanted_seeds(arguments: argparse.Namespace) -> dict[str, range]:
    """Return the seeds of the cases that the command line asks for, by area."""
    wanted = {}
    for name in AREAS:
        count = getattr(arguments, name.replace("-", "_"))
        cases = -(-count // ROWS) if name == "rows" else count
        wanted[name] = range(arguments.seed, arguments.seed + cases)
    return wanted


class Tally:
    """What became of all cases."""

    def __init__(self, earlier: Iterable[dict]) -> None:  # type: ignore[type-arg]
        self.came: dict[str, Counter[str]] = defaultdict(Counter)
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.kinds: dict[tuple[str, str], list[int]] = defaultdict(list)
        for case in earlier:
            self.add(case)

    @property
    def cases(self) -> int:
        """How many cases are counted."""
        return sum(sum(came.values()) for came in self.came.values())

    def add(self, case: dict) -> None:  # type: ignore[type-arg]
        """Count a case."""
        self.came[case["area"]][case["came"]] += 1
        self.counts[case["area"]].update(case["counts"])
        for kind in case["kinds"]:
            self.kinds[case["area"], kind].append(case["seed"])

    def print(self) -> None:
        """Print a table of the areas and one of the findings."""
        print(f"\n{'area':<12} {'cases':>7} {'findings':>8}  what became of them")
        for area, came in self.came.items():
            found = sum(len(seeds) for (name, _), seeds in self.kinds.items() if name == area)
            parts = [f"{name} {number:,}" for name, number in came.most_common()]
            parts += [f"({name}: {number:,})" for name, number in sorted(self.counts[area].items())]
            print(f"{area:<12} {sum(came.values()):>7,} {found:>8,}  {', '.join(parts)}")
        print(f"\n{len(self.kinds)} kinds of findings")
        for (area, kind), seeds in sorted(self.kinds.items(), key=lambda item: -len(item[1])):
            print(f"{len(seeds):>6,}  {area}:{seeds[0]}  {kind}")


def brief(done: Done) -> dict:  # type: ignore[type-arg]
    """Return what is kept of a case."""
    kinds = [finding.kind for finding in done.findings]
    return {
        "area": done.area,
        "seed": done.seed,
        "came": done.came,
        "counts": done.counts,
        "kinds": kinds,
    }


def read_done(path: Path) -> dict[tuple[str, int], dict]:  # type: ignore[type-arg]
    """Return what became of the cases that are done, by area and seed."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    whole, _, cut = text.rpartition("\n")
    if cut:  # a call that was killed leaves half of a line
        path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    cases = [json.loads(line) for line in whole.splitlines()]
    return {(case["area"], case["seed"]): case for case in cases}


def again(named: str) -> int:
    """Do one case again and print all of it."""
    area, _, seed = named.partition(":")
    found: list[Done] = []
    base = Path(tempfile.mkdtemp(prefix="selectmoe-fuzz-"))
    carry_out_chunk(Chunk(area, int(seed), int(seed) + 1), found.append, base)
    for finding in found[0].findings:
        print(f"== {finding.kind}\n{finding.did}\n--\n{finding.what}\n")
    print(f"{named}: {found[0].came}, {len(found[0].findings)} findings, {found[0].counts}")
    return 1 if found[0].findings else 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, number in SHORT.items():
        parser.add_argument(
            f"--{name}",
            type=int,
            default=None,
            metavar="N",
            help=f"left out: {number}, or none if another is named",
        )
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="end after so many minutes"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/fuzz"))
    parser.add_argument("--again", metavar="AREA:SEED", help="do one case again")
    parser.add_argument("--chunk", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    named = any(getattr(arguments, name.replace("-", "_")) is not None for name in SHORT)
    for name, number in SHORT.items():
        key = name.replace("-", "_")
        if getattr(arguments, key) is None:
            setattr(arguments, key, 0 if named else number)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
