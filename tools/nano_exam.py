"""Write the questions of the evaluation task ``nano``: python tools/nano_exam.py."""

import sys
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
sys.path.insert(0, str(PLUGINS))

from selectmoe_nano.examination import lines  # noqa: E402


def main() -> None:
    """Write them; the same questions every time."""
    path = PLUGINS / "selectmoe_nano" / "tasks" / "nano.jsonl"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        count = sum(file.write(f"{line}\n") > 0 for line in lines())
    print(f"{count} questions in {path}")


if __name__ == "__main__":
    main()
