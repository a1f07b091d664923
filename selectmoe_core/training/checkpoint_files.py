"""Which files a checkpoint consists of, so that a damaged one is never resumed from."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

COMPLETE = "complete.json"
"""Written last into a checkpoint: without it the checkpoint is incomplete."""
HASHED = 1 << 20
"""Files up to this size are compared by content, larger ones only by size."""
NAME = re.compile(r"checkpoint-[0-9]+")


def checkpoint_files(folder: Path) -> dict[str, list[Any]]:
    """Return size and hash of each file of a checkpoint by name; no hash of large files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != COMPLETE and not path.name.startswith("."):
            found[name] = _look(path)
    return found


def is_whole(folder: Path) -> bool:
    """Return whether every file that ``complete.json`` names exists unchanged."""
    if not NAME.fullmatch(folder.name):
        return False
    try:
        files = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))["files"]
        return bool(files) and all(_look(folder / name) == look for name, look in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _look(path: Path) -> list[Any]:
    size = path.stat().st_size
    return [size, hashlib.sha256(path.read_bytes()).hexdigest() if size <= HASHED else None]
