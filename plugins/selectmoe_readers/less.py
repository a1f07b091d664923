"""The layout of the LESS training data."""

from collections.abc import Iterator
from pathlib import Path

from selectmoe_core import DataError, Job, RawExample, Reject, suggest
from selectmoe_readers.config import LessConfig
from selectmoe_readers.endings import COMPRESSED
from selectmoe_readers.files import Input, require, shared_names
from selectmoe_readers.jsonl import read_lines
from selectmoe_readers.rows import Rows

FOLDERS = (".", "processed", "train/processed")


class LessReader:
    """Reads ``<name>/<name>_data.jsonl`` for each source."""

    def __init__(self, config: LessConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:  # noqa: ARG002
        """Raise a ``DataError`` if a source is missing."""
        inputs(self.config)

    def read(self, job: Job) -> Iterator[RawExample | Reject]:  # noqa: ARG002
        """Yield every row as an example or as a reject with its reason."""
        files = inputs(self.config)
        # The folder names the source, even if a row names another one.
        for file in files:
            named = self.config.model_copy(update={"source": self.config.source or file.source})
            yield from read_lines([file], named, Rows)


def inputs(config: LessConfig) -> list[Input]:
    """Return the file of each source.

    Raises:
        DataError: the folder has no source, or a requested source does not exist.
    """
    require(config.path)
    found = _found(config.path)
    if not found:
        raise DataError(
            f"{config.path} contains no <name>/<name>_data.jsonl",
            hint="'path' must be the folder 'processed' of the LESS data, or one that contains it",
        )
    missing = [name for name in config.sources if name not in found]
    if missing:
        raise DataError(
            f"there is no source '{missing[0]}' in {config.path}",
            hint=suggest(missing[0], found, otherwise="found there"),
        )
    names = config.sources or tuple(sorted(found))
    return shared_names([found[name] for name in names], names)


def present(config: LessConfig) -> list[Path]:
    """Return the files of the sources, also those that are missing."""
    found = _found(config.path)
    if not config.sources:
        return [found[name] for name in sorted(found)] or [config.path]
    return [found.get(name, config.path / name / f"{name}_data.jsonl") for name in config.sources]


def sources_of(config: LessConfig) -> list[str]:
    """Return the sources that are read, by the names of their folders."""
    found = _found(config.path)
    return [name for name in config.sources or sorted(found) if name in found]


def _found(path: Path) -> dict[str, Path]:
    """Return the files by name, from the first of ``FOLDERS`` that contains any."""
    for folder in FOLDERS:
        files: dict[str, Path] = {}
        for packed in COMPRESSED:
            for file in sorted((path / folder).glob(f"*/*_data.jsonl{packed}")):
                name = file.parent.name
                if file.name == f"{name}_data.jsonl{packed}":
                    files.setdefault(name, file)
        if files:
            return files
    return {}
