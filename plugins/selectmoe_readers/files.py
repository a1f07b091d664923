"""Which files a path option means: a file, a folder, a pattern, or a list of them."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePath

from selectmoe_core import DataError, utf8_text
from selectmoe_readers.endings import JSONL, PARQUET, TABLES
from selectmoe_readers.sources import source_names


@dataclass(frozen=True)
class Input:
    """A file to read.

    Attributes:
        path: where it is.
        shown: its name in messages and notes, relative to the folder that all files share.
        source: the source name of rows that do not name one.
    """

    path: Path
    shown: str
    source: str


def present(paths: Path | Sequence[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files that ``paths`` mean, in order; what is missing stands for itself."""
    wanted = (paths,) if isinstance(paths, Path) else paths
    return list(dict.fromkeys(file for path in wanted for file in _meant(path, suffixes)))


def inputs(paths: Path | Sequence[Path], suffixes: tuple[str, ...]) -> list[Input]:
    """Return the files that ``paths`` mean.

    Raises:
        DataError: where a path is missing or a folder holds no such file.
    """
    files = present(paths, suffixes)
    for path in files:
        if path.is_dir():
            raise DataError(
                f"no data file in the folder {path}",
                hint=f"a file to read ends in {', '.join(suffixes)}",
            )
        require(path, pipe=suffixes is JSONL)
    if not files:
        raise DataError("'path' names no file", hint="give a file, a folder or a glob pattern")
    return shared_names(files)


def shared_names(files: Sequence[Path], sources: Sequence[str] | None = None) -> list[Input]:
    """Name each file relative to the folder that all share, so that a pool can move."""
    files = [file.absolute() for file in files]
    root = os.path.commonpath([file.parent for file in files])
    names = [utf8_text(file.relative_to(root).as_posix()) for file in files]
    if not sources:
        plain = [
            "pipe" if file.is_fifo() else name for file, name in zip(files, names, strict=True)
        ]
        sources = source_names([PurePath(_without_suffix(name)) for name in plain])
    return [Input(*entry) for entry in zip(files, names, sources, strict=True)]


def sources_of(files: Sequence[Path]) -> list[str]:
    """Return the sources of the files that are there, by their names alone."""
    there = [file for file in files if not file.is_dir() and file.exists()]
    return list(dict.fromkeys(file.source for file in shared_names(there))) if there else []


def require(path: Path, *, pipe: bool = False) -> None:
    """Raise a ``DataError`` where there is no file or folder (or pipe) that can be read."""
    if has_magic(str(path)) and not path.exists():
        raise DataError(f"no file matches {path}", hint="look at 'path'")
    if not path.exists():
        near = next((parent for parent in path.parents if parent.is_dir()), path.parent)
        raise DataError(
            f"there is no file or folder {path}",
            hint=f"look at 'path': {near} holds {_some(near)}",
        )
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or (pipe and stat.S_ISFIFO(mode))):
        what = "pipe" if stat.S_ISFIFO(mode) else "device"
        raise DataError(f"{path} is a {what}, not a file", hint="write the data to a file first")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} may not be read", hint="look at the file's permissions")


def inside(folder: Path) -> list[Path]:
    """Return every file below a folder, in order; the folder itself if there is none."""
    found = sorted(
        file for file in folder.rglob("*") if file.is_file() and not hidden(file, folder)
    )
    return found or [folder]


def hidden(file: Path, folder: Path) -> bool:
    """Return whether a part of the path below ``folder`` begins with a dot."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _without_suffix(name: str) -> str:
    """Return a file's name without ``.jsonl``, ``.jsonl.gz`` and the like."""
    for suffix in sorted((*JSONL, *PARQUET, *TABLES), key=len, reverse=True):
        if name.endswith(suffix) and len(PurePath(name).name) > len(suffix):
            return name.removesuffix(suffix)
    return name


def _meant(path: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    if path.is_dir():
        yield from _of_kind(inside(path), suffixes) or [path]
    elif has_magic(str(path)) and not path.exists():
        matches = sorted(Path(match) for match in glob(str(path), recursive=True))  # noqa: PTH207
        for match in matches or [path]:
            # A folder that a pattern happens to match is read only where nothing else is named.
            yield from [match] if not match.is_dir() else _of_kind(inside(match), suffixes)
    else:
        yield path


def _of_kind(files: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    return [file for file in files if file.name.endswith(suffixes)]


def _some(folder: Path, limit: int = 5) -> str:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return "nothing that can be read"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + more
