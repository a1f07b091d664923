"""End runs of a recipe at random moments, whole or in part, resume them, and compare the results.

    python tools/kill_and_resume.py recipes/default.toml --times 20 --until select

Every trial begins in an empty output folder. The run, one process of a stage, or all processes are
ended by SIGKILL, SIGTERM, SIGHUP or SIGINT at a random moment, some of them several times. Then the
run is resumed to its end: no process may be left over, and the files of every stage must have the
bytes of a run that nobody ended. Exits with 1 where something is wrong. ``tools/fuzz.py --kills``
does the same with a chain of fakes, many times.
"""

import argparse
import random
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "helpers")]

from fuzzing import kills  # noqa: E402
from fuzzing.chains import Chain  # noqa: E402


def main() -> int:
    """Run the trials and print a line for each."""
    arguments = parse()
    work = arguments.work.resolve()
    recipe = (*arguments.recipe, *(["--until", arguments.until] if arguments.until else []))
    chain = Chain(Path.cwd(), "recipe", arguments.patience, recipe=recipe)
    undisturbed = whole(chain, work)
    generator = random.Random(arguments.seed)
    wrong = 0
    for trial in range(1, arguments.times + 1):
        folder = work / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        report = kills.run(generator, folder, chain, undisturbed)
        wrong += bool(report.faults)
        print(f"trial {trial}: {'; '.join(report.did)}: {report.came}", flush=True)
        for kind, what in report.faults:
            print(f"    {kind}\n{what}", flush=True)
    print(f"{arguments.times - wrong} of {arguments.times} without a fault", flush=True)
    return 1 if wrong else 0


def whole(chain: Chain, work: Path) -> kills.Undisturbed:
    """Run the recipe without ending it."""
    shutil.rmtree(work / "whole", ignore_errors=True)
    try:
        found = kills.undisturbed(chain, work / "whole" / "outputs")
    except RuntimeError as error:
        raise SystemExit(str(error)) from None
    print(f"undisturbed: {found.seconds:.1f} s, {len(found.results)} results", flush=True)
    return found


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe", nargs="+", help="a recipe and KEY=VALUE")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--until", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=float, default=3600.0, help="seconds a run may take")
    parser.add_argument("--work", type=Path, default=Path("outputs/kill"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
