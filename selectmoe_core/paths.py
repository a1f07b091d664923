"""Names and paths that come from data: checked before a file is opened or written.

A name or path from a recipe, a checkpoint or a row is not trusted. ``plain_name`` checks a name
when it enters, ``inside`` checks a path when it is built, and ``read_regular`` checks a file that
is read whole.
"""

import re
import stat
from collections.abc import Iterator
from pathlib import Path

from selectmoe_core.errors import RecipeError, SelectMoEError, StageError, shown

LONGEST_NAME = 255
"""The longest file name that common file systems allow, in bytes."""
CHOSEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NAME_RULE = (
    "use up to 100 letters, digits, dots, dashes and underscores; start with a letter or digit"
)
"""The hint about a name that a recipe chooses."""
LARGEST_FILE = 256 << 20
"""The largest file that is read whole, in bytes; configurations and indexes are far smaller."""
STORE = "store"
"""The folder of all artifacts, in that of all outputs."""


def is_address(text: str) -> bool:
    """Return whether a text is an address such as ``s3://bucket/prefix``, and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def plain_name(
    name: object, *, where: str, error: type[SelectMoEError] = RecipeError, hint: str = ""
) -> str:
    """Return ``name`` if it is a plain name of a file or folder.

    Args:
        name: what was given, of any type.
        where: where it was given, for the message.
        error: what to raise.
        hint: what to do about it.

    Raises:
        SelectMoEError: it is not text, is empty, a path, ``.`` or ``..``, is too long, or has
            characters that cannot be printed.
    """
    fault = name_fault(name)
    if isinstance(name, str) and not fault:
        return name
    hint = hint or "give a plain name, without folders"
    raise error(f"{where}: {shown(name)} cannot be a name: {fault}", hint=hint)


def name_fault(name: object, *, chosen: bool = False) -> str:
    """Return why something cannot be the name of a file or folder; nothing if it can.

    Args:
        name: what was given, of any type.
        chosen: it is the name of a score, a filter or the like, which a recipe chooses: as it also
            stands in keys and overrides, it follows ``NAME_RULE``.
    """
    return next(_faults(name, chosen), "") if isinstance(name, str) else "it is not text"


def _faults(name: str, chosen: bool) -> Iterator[str]:
    if not name.strip():
        yield "it is empty"
    if name in {".", ".."} or "/" in name or "\\" in name:
        yield "it is a path"
    if not name.isprintable():
        yield "it has characters that cannot be printed"
    if len(name.encode()) > LONGEST_NAME:
        yield f"it is longer than {LONGEST_NAME} bytes"
    if chosen and (wrong := re.search(r"[^A-Za-z0-9._-]", name)):
        yield f"it has {wrong[0]!r}"
    if chosen and not CHOSEN.fullmatch(name):
        yield "it is too long, or does not start with a letter or digit"


def inside(
    folder: Path,
    path: str | Path,
    *,
    where: str,
    error: type[SelectMoEError] = StageError,
    hint: str = "",
) -> Path:
    """Return ``folder / path`` if it lies inside the folder after ``..`` and links are resolved.

    The path need not exist. Another process could still change it before it is opened: this
    protects against bad data only.

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
    """Return the content of a regular file of reasonable size.

    Reading a pipe could wait forever, and a device such as ``/dev/zero`` has no end.

    Raises:
        SelectMoEError: it is missing, not a regular file, too large, or cannot be read.
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
