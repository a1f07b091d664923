"""Names and paths that come from data: checked before a file is opened or written.

A name or path that a recipe, a checkpoint or a row brings is not to be trusted. A name is made sure
of with ``plain_name`` where it enters, a path with ``inside`` where it is built, and a file that is
read whole with ``read_regular``.
"""

import stat
from pathlib import Path

from selectmoe_core.errors import RecipeError, SelectMoEError, StageError, shown

LONGEST_NAME = 255
"""Bytes of a file name that common file systems take."""
LARGEST_FILE = 256 << 20
"""Bytes of a file that is read whole: configurations and indexes have far fewer."""


def plain_name(
    name: object, *, where: str, error: type[SelectMoEError] = RecipeError, hint: str = ""
) -> str:
    """Return the name of a file or folder, if it is no more than that.

    Args:
        name: what was given, of any type.
        where: the place that it was given in, for the message.
        error: what to raise.
        hint: what to do about it.

    Raises:
        SelectMoEError: it is no text, empty, a path, ``.`` or ``..``, too long, or holds characters
            that are not printed.
    """
    if isinstance(name, str):
        fault = _fault(name)
        if fault is None:
            return name
    else:
        fault = "it is not a text"
    hint = hint or "give a plain name, without folders"
    raise error(f"{where}: {shown(name)} cannot be a name: {fault}", hint=hint)


def inside(
    folder: Path,
    path: str | Path,
    *,
    where: str,
    error: type[SelectMoEError] = StageError,
    hint: str = "",
) -> Path:
    """Return ``folder / path``, if it lies below the folder once ``..`` and links are resolved.

    The path need not exist. What it names may still change before it is opened; this guards against
    data, not against another process.

    Args:
        folder: the folder that must hold it.
        path: relative to the folder.
        where: what names the path, for the message.
        error: what to raise.
        hint: what to do about it.

    Raises:
        SelectMoEError: it lies elsewhere, is the folder itself, or cannot be resolved.
    """
    joined = folder / path
    try:
        resolved, root = joined.resolve(), folder.resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL
        resolved, root = Path(), folder
    if resolved != root and resolved.is_relative_to(root):
        return joined
    hint = hint or "name a path inside the folder"
    raise error(f"{where}: {shown(str(path), 200)} leads out of the folder {folder}", hint=hint)


def read_regular(
    path: Path,
    *,
    error: type[SelectMoEError] = StageError,
    largest: int = LARGEST_FILE,
    hint: str = "",
) -> bytes:
    """Return the content of a regular file of a sensible size.

    A pipe would be waited for, and a device like ``/dev/zero`` read without end.

    Raises:
        SelectMoEError: it is missing, no regular file, too large or cannot be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{path}: not a regular file", hint=hint or "put the file itself there")
        if found.st_size > largest:
            raise error(
                f"{path}: it has {found.st_size:,} bytes, more than {largest:,}",
                hint=hint or "is it the right file?",
            )
        return path.read_bytes()
    except OSError as refused:
        what = refused.strerror or str(refused)
        raise error(f"{path}: {what}", hint=hint or "check the path") from None


def _fault(name: str) -> str | None:
    if not name.strip():
        return "it is empty"
    if name in {".", ".."} or "/" in name or "\\" in name:
        return "it is a path"
    if not name.isprintable():
        return "it holds characters that are not printed"
    if len(name.encode()) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} bytes"
    return None
