"""Errors that a user can act on: the command line prints them without a traceback."""

import errno
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import Repr

_SHORT = Repr()


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, what it is, and what to do about it."""

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class SelectMoEError(Exception):
    """Base of all errors that selectmoe raises on purpose."""

    exit_code = 1
    traceback = ""
    """The traceback for the author of a plugin; printed before the message."""

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The mistakes behind this error, one or many."""
        return (Problem("", str(self), self.hint),)


class RecipeError(SelectMoEError):
    """The recipe or the command line is wrong; correct it and run again."""

    exit_code = 2

    def __init__(self, what: str, *, hint: str = "", problems: Iterable[Problem] = ()) -> None:
        super().__init__(what, hint=hint)
        self._problems = tuple(problems)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every mistake found, so that a user can fix all of them at once."""
        return self._problems or super().problems

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> "RecipeError":
        """Return one error that names every problem."""
        found = tuple(problems)
        return cls("\n".join(map(str, found)), hint=found[0].hint, problems=found)


class PluginError(SelectMoEError):
    """An installed plugin cannot be used; fix it, uninstall it or disable it."""

    exit_code = 3


class StageError(SelectMoEError):
    """A stage could not finish; earlier results are kept."""


class PartError(StageError):
    """A plugin's part failed in a way that its author did not expect."""

    def __init__(self, what: str, *, hint: str, traceback: str) -> None:
        super().__init__(what, hint=hint)
        self.traceback = traceback


DISK = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    }
)
"""Errors of a disk or its permissions, which no change of selectmoe would avoid."""
NO_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
"""How torch and its libraries say, in whatever case, that memory is used up."""
NO_COMPILER = re.compile(r"Failed to find C compiler|Command .*\b(gcc|clang|cc)\b.*\.c\b.* status")
"""How Triton says that it cannot compile the C code around a kernel."""
REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
"""Those where space would not help."""


def of_machine(error: BaseException, doing: str, less: str = "") -> StageError | None:
    """Return an error to show if the machine caused ``error``: its disk, memory or compiler.

    Args:
        error: what was raised.
        doing: what failed, for the message.
        less: what can be done to need less memory.
    """
    text = str(error)
    if out_of_memory(error):
        said = text.partition(" Process ")[0].partition(" Including ")[0].partition("\n")[0]
        hint = f"{less or 'make batches smaller'}, then run again; finished work is kept"
        return StageError(f"{doing}: the memory is used up: {said or 'none is left'}", hint=hint)
    if NO_COMPILER.search(text):
        hint = (
            "GPU kernels are compiled when they are first used: install gcc and Python's headers "
            "(python3-dev), or set CC, then run again; finished work is kept"
        )
        return StageError(f"{doing}: there is no working C compiler", hint=hint)
    return of_disk(error, doing)


def out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU's or the host's memory was used up."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(part in text for part in NO_MEMORY)


def of_disk(error: BaseException, doing: str) -> StageError | None:
    """Return an error to show if a disk, permissions or a folder's content caused ``error``.

    Libraries written in other languages give only the operating system's text.
    """
    if isinstance(error, OSError) and (found := _other_kind(error)):
        hint = "move it away, then run again; finished work is kept"
        return StageError(f"{doing}: {found}", hint=hint)
    refused = isinstance(error, OSError) and error.errno in REFUSED
    hint = (
        f"{'change the permissions' if refused else 'free space'} or correct the path, "
        "then run again; finished work is kept"
    )
    if isinstance(error, OSError) and error.errno in DISK:
        named = f": {error.filename}" if error.filename else ""
        return StageError(f"{doing}: {error.strerror or error}{named}", hint=hint)
    if "No space left on device" in str(error) or "File too large" in str(error):
        return StageError(f"{doing}: the disk is full", hint=hint)
    return None


def _other_kind(error: OSError) -> str:
    """Return what is wrong if a folder is where a file must be, or a file where a folder must."""
    place = Path(os.fsdecode(error.filename2 or error.filename or ""))
    if error.errno in (errno.EISDIR, errno.EPERM) and place.is_dir():
        return f"a folder is where a file must be: {place}"
    if error.errno == errno.ENOTDIR or (error.errno == errno.EEXIST and place.is_file()):
        return f"a file is where a folder must be: {place}"
    return ""


def shown(value: object, limit: int = 60) -> str:
    """Return a value from data for a message: quoted, on one line, shortened."""
    text = repr(value[: limit + 1]) if isinstance(value, str | bytes) else _SHORT.repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def listing(names: Sequence[str], limit: int = 12) -> str:
    """Return names from data for a message, on one line: the first ones and how many more."""
    some = [name if name.isprintable() else shown(name) for name in names[:limit]]
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(name if len(name) <= 60 else f"{name[:57]}..." for name in some) + more


def utf8_text(text: str) -> str:
    """Return text that UTF-8 can encode: half of a surrogate pair becomes an escape.

    File names that are not UTF-8 hold such halves in Python, and JSON escapes can.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class DataError(StageError):
    """An input file or example cannot be used."""


class ModelError(StageError):
    """A model or tokenizer cannot be found or loaded."""
