"""Data of a user's tasks that no digest covers: an evaluation that reads any is never reused."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.task_files import Function, contents, texts, unreadable

FORMATS = frozenset(
    {
        *("arrow", "audiofolder", "cache", "csv", "generator", "hdf5", "imagefolder", "json"),
        *("lance", "niftifolder", "pandas", "parquet", "pdffolder", "sql", "text", "videofolder"),
        *("webdataset", "xml"),
    }
)
"""Values of ``dataset_path`` that are a file format, not a dataset of the hub."""
CODE = ("custom_dataset", "class")
"""Fields that name code which reads its own data."""


@dataclass(frozen=True)
class TaskFile:
    """A YAML file with all that it includes.

    Attributes:
        path: the file.
        fields: the fields of the task or group.
    """

    path: Path
    fields: dict[str, Any]

    @property
    def names(self) -> set[str]:
        """The names by which it can be asked for: its own and its tags."""
        own = [self.fields.get(key) for key in ("task", "group")]
        return {*(name for name in own if isinstance(name, str)), *texts(self.fields.get("tag"))}

    @property
    def members(self) -> Iterator[str | dict[str, Any]]:
        """The members of a group: names, or tasks that it defines itself."""
        listed = self.fields.get("task")
        if isinstance(listed, list):
            yield from (item for item in listed if isinstance(item, str | dict))


def unseen(config: LmEvalConfig) -> Iterator[str]:
    """Yield in words the data of the tasks in use that no digest covers.

    What code reads is covered where ``task_data`` names it.
    """
    files = [file for folder in config.include_path for file in _files(folder)]
    found: dict[str, None] = {}
    for file in _in_use(files, list(config.tasks)):
        inline = [item for item in file.members if isinstance(item, dict)]
        for fields in (file.fields, *({**file.fields, **item} for item in inline)):
            for text in unseen_data(fields, file.path, code=not config.task_data):
                found[f"{text} ({file.path.name})"] = None
    yield from found


def unseen_data(fields: dict[str, Any], path: Path, *, code: bool = True) -> Iterator[str]:
    """Yield in words the data of a task that no digest covers.

    Args:
        fields: the fields of the task.
        path: its YAML file.
        code: also what its code reads.
    """
    for key in CODE if code else ():
        if isinstance(fields.get(key), Function):
            yield f"the data that {fields[key].name} reads"
    options = fields.get("dataset_kwargs")
    options = options if isinstance(options, dict) else {}
    source = fields.get("dataset_path")
    for text in texts([source, options]):
        if "://" in text and not text.startswith("file://"):
            yield text
    if not isinstance(source, str) or source in FORMATS or options.get("revision"):
        return
    if "://" not in source and not (path.parent / source).exists():
        yield f"the dataset {source} of the hub, without a revision"


def _files(folder: Path) -> Iterator[TaskFile]:
    """Yield the YAML files that can be read; the check of the tasks reports the others."""
    for path in sorted(folder.rglob("*.yaml")):
        try:
            read = list(contents(path))
        except unreadable():
            continue
        fields: dict[str, Any] = {}
        for _, content in reversed(read):
            fields |= content if isinstance(content, dict) else {}
        yield TaskFile(path, fields)


def _in_use(files: list[TaskFile], wanted: list[str]) -> Iterator[TaskFile]:
    """Yield the files of the wanted tasks, groups and tags, and of the members of groups."""
    left = dict(enumerate(files))
    while wanted:
        name = wanted.pop()
        for number, file in list(left.items()):
            if any(fnmatchcase(known, name) for known in file.names):
                yield left.pop(number)
                for member in file.members:
                    inner = member if isinstance(member, str) else member.get("task")
                    wanted += [inner] if isinstance(inner, str) else []
