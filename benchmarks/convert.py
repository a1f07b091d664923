"""Conversion and verification of a checkpoint of OLMoE's shape, beside ``cp -r`` of the same files.

    python benchmarks/convert.py --work DIR                  # 12.9 GiB; 45 GB of disk, 8 minutes
    python benchmarks/convert.py --work DIR --gigabytes 3
    python benchmarks/convert.py --work DIR --tiny           # a few seconds

Before every timed command everything is written back and the page cache emptied where the kernel
lets us (as root), Python and its libraries included. Times are whole commands, from start to end;
neither ``cp`` nor ``selectmoe convert`` waits until the disk has everything. ``startup`` converts a
checkpoint of two megabytes, cold: what remains of a conversion without its bytes. ``disk`` reads
the checkpoint with one thread and with four: the ceiling. Writes JSON lines.
"""

import argparse
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measuring import SELECTMOE, call, described, drop_caches, spread
from parts import Parts

REPEATS = 3
PIECE = 64 << 20
BUFFER = 4 << 20
LAYER, EMBEDDINGS = 845e6, 412e6
"""Bytes of a layer, and of the embeddings with the head, in bf16."""


class Bench:
    """The folders, and what the parts found."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work: Path = arguments.work.resolve()
        self.source, self.copy = self.work / "olmoe", self.work / "copy"
        self.converted, self.little = self.work / "converted", self.work / "little"
        self.repeats: int = arguments.repeats
        self.layers = max(1, round((arguments.gigabytes * 1e9 - EMBEDDINGS) / LAYER))
        self.tiny: bool = arguments.tiny

    def build(self) -> dict[str, Any]:
        """Write random weights, in a process of its own: torch must not stay in memory here."""
        self._make(self.source, tiny=self.tiny)
        self._make(self.little, tiny=True)
        return {"cold_cache": drop_caches(), "checkpoint_bytes": self._size(self.source)}

    def _make(self, folder: Path, *, tiny: bool) -> None:
        program = (
            "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
            "import torch; from random_weights import make_checkpoint\n"
            "from shapes import OLMOE_CHECKPOINT, TINY\n"
            "device = 'cuda' if torch.cuda.is_available() else 'cpu'\n"
            "change = TINY if sys.argv[3] == 'tiny' else "
            "{'num_hidden_layers': int(sys.argv[3])}\n"
            "make_checkpoint(OLMOE_CHECKPOINT | change, Path(sys.argv[2]), device)"
        )
        shape = "tiny" if tiny else str(self.layers)
        call([sys.executable, "-c", program, str(Path(__file__).parent), str(folder), shape])

    def disk(self) -> dict[str, Any]:
        """Read the checkpoint from a cold cache, and let it go again."""
        found = {}
        for threads in (1, 4):
            drop_caches()
            start = time.monotonic()
            with ThreadPoolExecutor(threads) as pool:
                read = sum(pool.map(_read, *zip(*self._pieces(), strict=True)))
            found[f"read_seconds_{threads}_threads"] = round(time.monotonic() - start, 2)
        return found | {"read_bytes": read}

    def startup(self) -> dict[str, Any]:
        """Convert next to nothing, from a cold cache and from a warm one."""
        seconds: dict[str, list[float]] = {"cold": [], "warm": []}
        for _ in range(self.repeats):
            for state, times in seconds.items():
                shutil.rmtree(self.converted, ignore_errors=True)
                if state == "cold":
                    drop_caches()
                times.append(self._convert(self.little).seconds)
        return {f"startup_seconds_{state}": spread(times) for state, times in seconds.items()}

    def convert(self) -> dict[str, Any]:
        """Copy, convert and verify in turn."""
        copies, conversions, checks = [], [], []
        torch = call([sys.executable, "-c", "import torch"]).anonymous
        for _ in range(self.repeats):
            self._clear()
            copies.append(call(["cp", "-r", str(self.source), str(self.copy)]))
            self._clear()
            conversions.append(self._convert(self.source))
            drop_caches()
            command = ("verify", str(self.converted), str(self.source), "--no-logits")
            checks.append(call([*SELECTMOE, *command]))
            print(
                f"  cp {copies[-1].seconds:.2f} s, convert {conversions[-1].seconds:.2f} s, "
                f"verify {checks[-1].seconds:.2f} s",
                flush=True,
            )
        cp, convert = (spread(one.seconds for one in these) for these in (copies, conversions))
        peak, peak_check = (max(one.anonymous for one in these) for these in (conversions, checks))
        return {
            "cp_seconds": cp,
            "convert_seconds": convert,
            "convert_over_cp": round(convert["median"] / cp["median"], 3),
            "convert_over_cp_of_the_fastest": round(convert["min"] / cp["min"], 3),
            "goal": 1.3,
            "convert_anonymous_bytes": peak,
            "python_with_torch_anonymous_bytes": torch,
            "convert_above_python_with_torch_bytes": max(0, peak - torch),
            "verify_seconds": spread(one.seconds for one in checks),
            "verify_anonymous_bytes": peak_check,
        }

    def _clear(self) -> None:
        for folder in (self.copy, self.converted):
            shutil.rmtree(folder, ignore_errors=True)
        drop_caches()

    def _convert(self, source: Path) -> Any:  # noqa: ANN401
        return call([*SELECTMOE, "convert", str(source), str(self.converted)])

    def _pieces(self) -> list[tuple[Path, int, int]]:
        return [
            (path, start, min(PIECE, path.stat().st_size - start))
            for path in sorted(self.source.glob("*.safetensors"))
            for start in range(0, path.stat().st_size, PIECE)
        ]

    def _size(self, folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.iterdir())


def _read(path: Path, start: int, size: int) -> int:
    buffer = memoryview(bytearray(BUFFER))
    left = size
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left:
            left -= file.readinto(buffer[: min(BUFFER, left)])
    return size


def main() -> None:
    """Run the parts."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--work", type=Path, default=Path("convert-bench"), help="scratch folder")
    parser.add_argument("--gigabytes", type=float, default=13.93, help="size of the checkpoint")
    parser.add_argument("--tiny", action="store_true", help="two megabytes")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART")
    parser.add_argument("--out", type=Path, default=Path("convert.jsonl"))
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments)
    print(json.dumps(described("selectmoe", "safetensors", "numpy")), flush=True)
    parts = {name: getattr(bench, name) for name in ("build", "disk", "startup", "convert")}
    failed = Parts(arguments.out).run_all(parts, arguments.only)
    if not arguments.keep:
        for folder in (bench.source, bench.copy, bench.converted, bench.little):
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
