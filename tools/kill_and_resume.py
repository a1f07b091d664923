"""Kill a run with SIGKILL at random moments, resume it, and compare what it selected.

    python tools/kill_and_resume.py recipes/default.toml --times 20 --until select

Every trial begins in an empty output folder. The run, with all its processes, is killed after a
random time, some of them several times, and then resumed to the end; ``selected_data.jsonl`` must
have the same bytes as that of a run nobody killed. Exits with 1 where one differs.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    """Run the trials and print a line each."""
    arguments = parse()
    work = arguments.work.resolve()
    command = [sys.executable, "-m", "selectmoe_core", "run", *arguments.recipe, "--quiet"]
    if arguments.until:
        command += ["--until", arguments.until]
    start = time.monotonic()
    finish(command, work / "whole")
    seconds = time.monotonic() - start
    expected = selected(work / "whole")
    print(f"undisturbed: {seconds:.1f} s, {expected[:16]}", flush=True)
    generator = random.Random(arguments.seed)
    different = 0
    for trial in range(1, arguments.times + 1):
        outputs = work / "killed"
        shutil.rmtree(outputs, ignore_errors=True)
        kills = [generator.uniform(0.0, seconds) for _ in range(1 + (trial % 4 == 0))]
        moments = [stopped for kill in kills if (stopped := killed(command, outputs, kill))]
        finish(command, outputs)
        found = selected(outputs)
        different += found != expected
        told = "same" if found == expected else f"DIFFERENT: {found[:16]}"
        print(f"trial {trial}: killed {'; '.join(moments) or 'never'}: {told}", flush=True)
    print(f"{arguments.times - different} of {arguments.times} the same", flush=True)
    return 1 if different else 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe", nargs="+", help="a recipe and KEY=VALUE")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--until", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("outputs/kill"))
    return parser.parse_args()


def killed(command: list[str], outputs: Path, after: float) -> str:
    """Start a run, kill it with its children after so many seconds, and say where that was."""
    process = subprocess.Popen(
        [*command, "--outputs", str(outputs)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        # Children first would let the parent see them end; the group dies at once.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"after {after:.1f} s in {stage(outputs)}"
    return ""


def stage(outputs: Path) -> str:
    """Return the artifact that was being made."""
    open_ones = [
        folder.name.partition("-")[0]
        for folder in sorted((outputs / "store").glob("*-*"))
        if folder.is_dir() and not (folder / "artifact.json").is_file()
    ]
    return "+".join(open_ones) or "between stages"


def finish(command: list[str], outputs: Path) -> None:
    """Run to the end."""
    done = subprocess.run(
        [*command, "--outputs", str(outputs)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the run ended with {done.returncode}:\n{done.stderr[-3000:]}")


def selected(outputs: Path) -> str:
    """Return a hash over every selection of the run, the baseline's included."""
    digest = hashlib.sha256()
    for path in sorted((outputs / "store").glob("select-*/selected_data.jsonl")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
