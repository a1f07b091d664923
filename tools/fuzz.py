"""Try thousands of broken recipes, rows, checkpoints and stores, and end runs at any moment.

    python tools/fuzz.py                                  a short form
    python tools/fuzz.py --recipes 20000 --rows 20000 --checkpoints 2000 --kills 200 --jobs 16
    python tools/fuzz.py --recipes 5000 --seed 20000      further cases
    python tools/fuzz.py --again recipes:17               one case again, in full

It needs a checkout and the dependencies, no network. A case follows from its area and its seed.
Findings go to OUT/findings.jsonl, a line each. Chunks of cases that are done go to OUT/done.jsonl,
and a later call with the same OUT leaves them out. Exits with 1 if something was found.
"""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins"), str(ROOT / "tests")]

from fuzzing.crowd import (  # noqa: E402
    AREAS,
    Chunk,
    Done,
    carry_out_chunk,
    chunks,
    line_of,
    run_chunks,
)
from fuzzing.rows import ROWS  # noqa: E402

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
        )
        return 0
    if arguments.again:
        return again(arguments.again)
    arguments.out.mkdir(parents=True, exist_ok=True)
    finished = read_done(arguments.out / "done.jsonl")
    work: list[Chunk] = []
    for name in AREAS:
        count = getattr(arguments, name.replace("-", "_"))
        cases = -(-count // ROWS) if name == "rows" else count
        work += chunks(AREAS[name], arguments.seed, cases, arguments.jobs) if cases else []
    left = [chunk for chunk in work if key_of(chunk) not in finished]
    begun = time.monotonic()
    tally = Tally(finished[key] for chunk in work if (key := key_of(chunk)) in finished)
    with (
        (arguments.out / "findings.jsonl").open("a", encoding="utf-8") as findings,
        (arguments.out / "done.jsonl").open("a", encoding="utf-8") as done_file,
    ):
        open_chunks: dict[str, list[Done]] = defaultdict(list)
        for item in run_chunks(left, arguments.jobs, Path(__file__).resolve()):
            if isinstance(item, Chunk):
                cases = [c for c in open_chunks[item.area] if item.start <= c.seed < item.stop]
                record = {"chunk": key_of(item), "cases": [brief(case) for case in cases]}
                print(json.dumps(record), file=done_file, flush=True)
                continue
            open_chunks[item.area].append(item)
            tally.add(brief(item))
            for finding in item.findings:
                print(json.dumps(finding.record()), file=findings, flush=True)
                print(
                    f"{finding.area}:{finding.seed}: {finding.kind}\n    {finding.again}",
                    flush=True,
                )
    print(f"\n{time.monotonic() - begun:,.0f} s on {arguments.jobs} processes")
    tally.print()
    return 1 if tally.kinds else 0


class Tally:
    """What became of all cases."""

    def __init__(self, earlier: "object") -> None:
        self.came: dict[str, Counter[str]] = defaultdict(Counter)
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.kinds: dict[tuple[str, str], list[int]] = defaultdict(list)
        for cases in earlier:  # type: ignore[attr-defined]
            for case in cases:
                self.add(case)

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


def key_of(chunk: Chunk) -> str:
    """Name a chunk."""
    return f"{chunk.area}:{chunk.start}:{chunk.stop}"


def read_done(path: Path) -> dict[str, list[dict]]:  # type: ignore[type-arg]
    """Return the cases of the chunks that are done."""
    if not path.is_file():
        return {}
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {record["chunk"]: record["cases"] for record in records}


def again(named: str) -> int:
    """Do one case again and print all of it."""
    area, _, seed = named.partition(":")
    found: list[Done] = []
    carry_out_chunk(Chunk(area, int(seed), int(seed) + 1), found.append)
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
    parser.add_argument("--out", type=Path, default=Path("outputs/fuzz"))
    parser.add_argument("--again", metavar="AREA:SEED", help="do one case again")
    parser.add_argument("--chunk", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    named = any(getattr(arguments, name.replace("-", "_")) is not None for name in SHORT)
    for name, number in SHORT.items():
        key = name.replace("-", "_")
        if getattr(arguments, key) is None:
            setattr(arguments, key, 0 if named else number)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
