"""Which data set a file belongs to, by its name and its folders."""

import re
from collections.abc import Sequence
from pathlib import PurePath

GENERIC = frozenset(
    {"train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval"}
    | {"data", "dataset", "datasets", "part", "parts", "shard", "shards", "chunk", "chunks"}
    | {"default", "raw", "processed", ""}
)
"""Names that do not name the data set; the folder's name is used instead."""
SHARDS = (
    r"[-_.]?\d+[-_.]of[-_.]\d+$",  # train-00000-of-00003
    r"(^|[-_.])(part|shard|chunk)[-_.]?\d+$",  # dolly.part1, part-0001
    r"[-_.](0\d{2,}|\d{5})$",  # dolly-0001, dolly_12345
    r"^\d+([-_]\d+)*$",  # 0001, 000_00000
)
"""Name endings that number the files of one data set."""
SPARK = re.compile(r"^part-\d+-.+$")
"""``part-00000-<uuid>-c000``: a file name of Spark."""


def source_names(files: Sequence[PurePath]) -> list[str]:
    """Return the source of each file, named without its ending, relative to a folder they share.

    Shards of one data set have one name. A name that says nothing, such as ``train``, gives way
    to the folder's. Equal names in different folders carry the folder too.
    """
    homes = [_home(file) for file in files]
    folders: dict[str, set[PurePath]] = {}
    for folder, name in homes:
        folders.setdefault(name, set()).add(folder)
    return [
        "-".join((*folder.parts, name)) if len(folders[name]) > 1 else name
        for folder, name in homes
    ]


def _home(file: PurePath) -> tuple[PurePath, str]:
    """Return the name of a file's data set, and the folder of that name."""
    name = _without_shard(file.name)
    if name.lower() not in GENERIC:
        return file.parent, name
    for folder in file.parents:
        if folder.name and folder.name.lower() not in GENERIC:
            return folder.parent, folder.name
    if file.parent.parts:
        return PurePath(), file.parts[0]
    return PurePath(), name or "data"


def _without_shard(name: str) -> str:
    if SPARK.match(name):
        return ""
    for pattern in SHARDS:
        name = re.sub(pattern, "", name)
    return name
