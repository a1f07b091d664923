"""The record of a run: the nodes it executed, their folders, and the conditions."""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selectmoe_core.errors import StageError
from selectmoe_core.store import write_json

RECORD = "run.json"


@dataclass(frozen=True)
class NodeRecord:
    """One node of the plan as it was executed.

    Attributes:
        key: the node's name in the plan, e.g. ``score``, ``score:ifd``, ``select@random``.
        stage: the stage, e.g. ``score``.
        component: the component's name.
        digest: hexadecimal; covers everything that can change the content.
        folder: the folder of the artifact.
        cached: whether it existed before this run.
        seconds: how long the stage took when it was made.
        arms: the arms that use it.
    """

    key: str
    stage: str
    component: str
    digest: str
    folder: Path
    cached: bool
    seconds: float
    arms: tuple[str, ...]


@dataclass(frozen=True)
class RunRecord:
    """One run, as stored in ``run.json`` in its folder.

    Attributes:
        name: the recipe's name.
        recipe: the resolved recipe as TOML text.
        started: ISO date and time.
        seconds: wall-clock time of the whole run.
        command: the command line.
        versions: version per package.
        hardware: the hardware, one line per kind.
        nodes: the nodes in the order of execution.
    """

    name: str
    recipe: str
    started: str
    seconds: float
    command: str
    versions: Mapping[str, str]
    hardware: Mapping[str, str]
    nodes: tuple[NodeRecord, ...]

    def save(self, folder: Path) -> None:
        """Write ``run.json`` into ``folder``; artifact folders are kept relative to it."""
        value = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "nodes"}
        value |= {"versions": dict(self.versions), "hardware": dict(self.hardware)}
        value["nodes"] = [
            vars(node) | {"folder": _relative(node.folder, folder)} for node in self.nodes
        ]
        write_json(folder / RECORD, value)

    @classmethod
    def load(cls, folder: Path) -> "RunRecord":
        """Read ``run.json`` back.

        Raises:
            StageError: the file is missing or damaged.
        """
        path = folder / RECORD
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            nodes = tuple(_node(node, folder) for node in value.pop("nodes"))
            tomllib.loads(value["recipe"])  # whoever reads the record reads the recipe too
            return cls(**value, nodes=nodes)
        except (FileNotFoundError, NotADirectoryError):
            raise StageError(
                f"{path} is missing",
                hint="name the folder of a run: outputs/<recipe>/<date>/<time>",
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise StageError(
                f"{path} is damaged", hint="run the recipe again; finished stages are reused"
            ) from None


def _node(value: dict[str, Any], folder: Path) -> NodeRecord:
    where = Path(os.path.normpath(folder / value["folder"]))
    return NodeRecord(**value | {"folder": where, "arms": tuple(value["arms"])})


def _relative(target: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return str(target.resolve())
