"""``python -m selectmoe_core.testing.noting_program FOLDER CODE``: notes its rank, and ends."""

import sys
from pathlib import Path

from selectmoe_core.runtime.distributed import current_world


def main() -> int:
    """Note this process in a file, and return the code that the command line says."""
    folder, code = sys.argv[1:]
    world = current_world()
    note = f"{world.rank} of {world.size}"
    (Path(folder) / f"rank-{world.rank}").write_text(note, encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
