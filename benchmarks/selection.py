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
import sys
from pathlib import Path
from typing import Any

from measuring import call, described, spread
from parts import Parts
from selection_ways import WAYS

PROGRAMS = str(Path(__file__).with_name("selection_programs.py"))
MILLION = 1_000_000
GOALS = {10: (5.0, 2.0), 100: (60.0, 6.0)}
"""Seconds and GiB for a top-fraction with quotas by source, by millions of rows."""


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
            self._inner("rows", path, rows)
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
        done = call([sys.executable, PROGRAMS, name, *map(str, arguments)])
        found: dict[str, Any] = json.loads(done.output.splitlines()[-1])
        return found | {"anonymous_gib": round(done.anonymous / 2**30, 2)}


def main() -> None:
    """Run the parts."""
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
    sys.exit(1 if Parts(arguments.out).run_all(parts, arguments.only) else 0)


if __name__ == "__main__":
    main()
