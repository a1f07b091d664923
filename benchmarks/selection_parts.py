"""What the benchmarks of selection over many rows share: their command line and their clock."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import described
from parts import Parts


class RowsBench:
    """The parts of a benchmark, a method each.

    Attributes:
        work: the folder for all files.
        rows: how many rows a large part has.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work: Path = arguments.work.resolve()
        self.rows: int = arguments.rows


def run_parts(
    about: str | None, bench: type[RowsBench], parts: Sequence[str], *packages: str
) -> None:
    """Read the command line, run the parts, and end the process.

    Args:
        about: the text above the options; the file's docstring.
        bench: the class with the parts.
        parts: the names of its methods, in order.
        packages: what the first line gives the versions of.
    """
    name = Path(sys.argv[0]).stem
    shown = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=shown)
    parser.add_argument("--work", type=Path, default=Path(f"{name}-bench"), help="scratch folder")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART")
    parser.add_argument("--out", type=Path, default=Path(f"{name}.jsonl"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    of_name = bench(arguments)
    print(json.dumps(described("selectmoe", *packages)), flush=True)
    every = {part: getattr(of_name, part) for part in parts}
    sys.exit(1 if Parts(arguments.out).run_all(every, arguments.only) else 0)


@dataclass(frozen=True)
class Timed:
    """Wall-clock and processor seconds of a piece of work, and what it returned."""

    value: Any
    seconds: float
    cpu: float

    @classmethod
    def of(cls, work: Callable[[], Any]) -> "Timed":
        """Run some work."""
        start, before = time.monotonic(), time.process_time()
        value = work()
        return cls(value, time.monotonic() - start, time.process_time() - before)

    def figures(self, name: str = "") -> dict[str, Any]:
        """Return the two times."""
        return {f"{name}seconds": round(self.seconds, 2), f"{name}cpu": round(self.cpu, 2)}

    def beside(self, naive: "Timed") -> dict[str, Any]:
        """Return the times of both, and how many times the other one takes."""
        faster = {"times_faster_by_cpu": round(naive.cpu / self.cpu, 1)}
        return self.figures() | naive.figures("naive_") | faster


def memory() -> dict[str, Any]:
    """Return the largest memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_rss_gib": round(peak / 2**20, 2)}
