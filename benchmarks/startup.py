"""How long the command line takes to begin: ``selectmoe --help`` and ``selectmoe plan``.

    python benchmarks/startup.py
    python benchmarks/startup.py --tiny                      # three runs instead of ten

Each command runs in turn with ``python -c pass``, so that what else the machine does falls on both;
given are medians, the fastest runs, and both as ratios to the bare interpreter's. One run of each
goes before, uncounted: it leaves compiled modules in a folder of its own, as an installation has
them. Writes JSON lines.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import call, described, spread
from parts import Parts

RECIPE = Path(__file__).parent.parent / "recipes" / "default.toml"
SCRIPT = Path(sys.executable).with_name("selectmoe")
GOALS = {"help": 0.3, "plan": 0.5}


def measure(runs: int, recipe: Path) -> dict[str, Any]:
    """Time the commands and the bare interpreter in turn."""
    commands = {
        "pass": (sys.executable, "-c", "pass"),
        "help": (str(SCRIPT), "--help"),
        "plan": (str(SCRIPT), "plan", str(recipe)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as compiled:
        environment = os.environ | {"PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(runs + 1):
            for name, command in commands.items():
                took = call(command, environment).seconds
                if number:
                    seconds[name].append(took)
    found: dict[str, Any] = {f"{name}_seconds": spread(times) for name, times in seconds.items()}
    bare = found["pass_seconds"]
    for name, goal in GOALS.items():
        own = found[f"{name}_seconds"]
        found[f"{name}_over_pass"] = round(own["median"] / bare["median"], 1)
        found[f"{name}_over_pass_fastest"] = round(own["min"] / bare["min"], 1)
        found[f"{name}_goal_seconds"] = goal
    return found


def main() -> None:
    """Measure and write."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--tiny", action="store_true", help="three runs")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--out", type=Path, default=Path("startup.jsonl"))
    arguments = parser.parse_args()
    runs = 3 if arguments.tiny else arguments.runs
    print(json.dumps(described("selectmoe", "click", "pydantic")), flush=True)
    parts = {"startup": lambda: measure(runs, arguments.recipe)}
    sys.exit(1 if Parts(arguments.out).run_all(parts) else 0)


if __name__ == "__main__":
    main()
