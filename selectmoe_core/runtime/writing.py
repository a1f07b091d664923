"""Files that are written by rename, so that nobody reads half of one."""

import errno
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from selectmoe_core.errors import utf8_text

NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""How file systems without hard links answer."""


@contextmanager
def replacing(path: Path, *, durable: bool = False, alone: bool = False) -> Iterator[Path]:
    """Give a temporary path to write to; when the block ends, it replaces ``path``.

    A reader sees the old file or the whole new one. If the block raises, the temporary file is
    removed and ``path`` stays as it was.

    Args:
        path: the file to write; its folder must exist.
        durable: also wait until the content is on the disk, so that the file is complete after a
            power failure; for files that a later run trusts if they exist.
        alone: no other process writes this file. The temporary file then always has the same
            name, so that killed runs leave at most one.
    """
    temporary = path.with_name(f".{path.name}.{'tmp' if alone else _this_process()}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _this_process() -> str:
    """Return a short name of this process that no other has, on any host."""
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
    return f"{host}-{os.getpid()}"


def write_text(path: Path, text: str) -> None:
    """Write text by rename, so that a reader sees the old file or the whole new one."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON by rename, so that a reader sees the old file or the whole new one."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    # File names that are not UTF-8 hold halves of surrogate pairs: as JSON escapes they read back.
    write_text(path, f"{utf8_text(text)}\n")


def create_text(path: Path, text: str) -> bool:
    """Create a file with a content; return ``False`` if there is a file of this name already.

    Of several processes, on several hosts too, one succeeds. Nobody sees the file without its
    content, except for a moment on a file system that has no hard links.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:12]}")
    try:
        temporary.write_text(text, encoding="utf-8")
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create_in_two_steps(path, text)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def give_usual_permissions(place: Path) -> None:
    """Give a file, or every file of a folder, the permissions that a new file has there.

    safetensors makes its files readable by their owner alone.
    """
    files = [path for path in place.iterdir() if path.is_file()] if place.is_dir() else [place]
    if not files:
        return
    # A new file tells what umask and folder decide; os.umask would change it for other threads.
    new = files[0].with_name(f".{files[0].name}.{uuid4().hex[:12]}")
    new.touch(exist_ok=False)
    mode = new.stat().st_mode & 0o777
    new.unlink()
    for file in files:
        file.chmod(mode)


def _create_in_two_steps(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
