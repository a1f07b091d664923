"""Finding the tasks that a recipe names, and loading them with their data."""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from selectmoe_core import RecipeError, suggest
from selectmoe_lmeval.building import HARNESS, Trust, manager_of
from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.examination import check_shots, examine, shots_of
from selectmoe_lmeval.held_back import hold_back
from selectmoe_lmeval.mistakes import Place

BUNDLED = "bundled:"
NAME = re.compile(rb"^(task|group):[ \t]*[\"']?([^\s\"'#\[{]+)", re.MULTILINE)


@dataclass(frozen=True)
class Wanted:
    """A task, group or tag, and where it is defined.

    Attributes:
        name: its name in the harness.
        folders: the folders whose YAML files define it and everything it refers to.
        home: the folder from which its relative data files start; ``None`` in the harness.
    """

    name: str
    folders: tuple[Path, ...]
    home: Path | None


def find_tasks(config: LmEvalConfig, shipped: Mapping[str, Path]) -> list[Wanted]:
    """Return the tasks that the options name, without loading data.

    The harness has 14,000 YAML files, which take seconds to parse; if the folder of a task contains
    everything that the task refers to, only that folder is read.

    Raises:
        RecipeError: an unknown task, with the name that is closest; a folder or file that cannot be
            used.
    """
    own = tuple(Path(folder) for folder in config.include_path)
    index = local_index(own)
    found: list[Wanted] = []
    for name in config.tasks:
        if name.startswith(BUNDLED):
            found.extend(_bundled(name.removeprefix(BUNDLED), shipped))
        elif name in index:
            found.append(_local(name, index, own))
        else:
            found.append(_of_harness(name, index))
    return list({wanted.name: wanted for wanted in found}.values())


def load_tasks(config: LmEvalConfig, shipped: Mapping[str, Path]) -> list[Task | Group]:
    """Load the tasks that the options name, with their data; examine those of the user.

    Raises:
        RecipeError: an unknown task, or a mistake in a task of the user.
        StageError: the data of a task cannot be had.
    """
    trust = Trust(_named_folders(config, shipped), config.allow_task_code)
    managers: dict[tuple[Path, ...], TaskManager] = {}
    loaded: list[Task | Group] = []
    for wanted in find_tasks(config, shipped):
        if wanted.folders not in managers:
            managers[wanted.folders] = manager_of(wanted.folders, trust)
        manager = managers[wanted.folders]
        found = list(_load(wanted, manager))
        for task in leaves(found):
            entry = manager.task_index.get(task.task_name)
            place = Place(task.task_name, entry.yaml_path if entry else None)
            if trust.covers(place.path):
                check_shots(task, place, shots_of(task, config.num_fewshot))
            else:
                examine(task, place, config.num_fewshot)
            if config.held_back:
                hold_back(task, config.held_back)
        loaded.extend(found)
    return loaded


def _named_folders(config: LmEvalConfig, shipped: Mapping[str, Path]) -> tuple[Path, ...]:
    """Return the folders of the shipped tasks that the options name."""
    named = {
        task.removeprefix(BUNDLED).partition("/")[0]
        for task in config.tasks
        if task.startswith(BUNDLED)
    }
    return tuple(shipped[name] for name in sorted(named & set(shipped)))


def leaves(loaded: Sequence[Task | Group]) -> Iterator[Task]:
    """Yield the tasks themselves, those of groups too."""
    for item in loaded:
        if isinstance(item, Group):
            yield from item.get_all_tasks()
        else:
            yield item


def local_index(folders: Sequence[Path]) -> dict[str, Entry]:
    """Return the tasks, groups and tags of local folders; raise if a file cannot be read."""
    for folder in folders:
        if not folder.is_dir():
            raise RecipeError(
                f"[evaluate] lm-eval: there is no folder {folder}",
                hint="include_path must name folders with the YAML files of tasks",
            )
        for path in sorted(folder.rglob("*.yaml")):
            try:
                content = load_yaml(path, resolve_func=False)
            except (yaml.YAMLError, ValueError, OSError, TypeError, RecursionError) as error:
                first = " ".join(str(error).split())
                raise RecipeError(f"{path}: not the YAML of a task: {first}") from None
            kind = "group" if "group" in content else "task"
            if kind in content and not isinstance(content[kind], str):
                raise RecipeError(
                    f"{path}: {kind}: {content[kind]!r:.80} is not a name",
                    hint=f"write a name in quotes: {kind}: 'my_{kind}'",
                )
    return TaskIndex.build(list(folders))


def _load(wanted: Wanted, manager: TaskManager) -> Iterator[Task | Group]:
    home = contextlib.chdir(wanted.home) if wanted.home else contextlib.nullcontext()
    with home:
        loaded = manager.load([wanted.name])
    if wanted.name in loaded["groups"]:
        yield loaded["groups"][wanted.name]
    else:
        yield from loaded["tasks"].values()


def _bundled(name: str, shipped: Mapping[str, Path]) -> Iterator[Wanted]:
    """Yield the tasks of ``bundled:NAME``, or the one of ``bundled:NAME/TASK``."""
    package, _, chosen = name.partition("/")
    if package not in shipped:
        raise RecipeError(
            f"[evaluate] lm-eval: no plugin ships tasks named '{package}'",
            hint=suggest(package, shipped, otherwise="bundled tasks"),
        )
    folders = (shipped[package],)
    index = local_index(folders)
    tasks = sorted(key for key, entry in index.items() if _is_task(entry))
    if chosen and chosen not in index:
        raise RecipeError(
            f"[evaluate] lm-eval: {BUNDLED}{package} has no task '{chosen}'",
            hint=suggest(chosen, index, otherwise="its tasks"),
        )
    for task in [chosen] if chosen else tasks:
        yield _local(task, index, folders)


def _local(name: str, index: Mapping[str, Entry], folders: tuple[Path, ...]) -> Wanted:
    entry = index[name]
    home = entry.yaml_path.parent if entry.yaml_path else folders[0]
    missing = _refers_to(name, index) - index.keys()
    complete = not missing
    for unknown in sorted(missing - set(_defined_in_place(index))):
        if not _in_harness(unknown):
            raise RecipeError(
                f"[evaluate] the group '{name}' ({entry.yaml_path}): task: there is no task "
                f"'{unknown}'",
                hint=_closest(unknown, index.keys() | _harness_names().keys()),
            )
    return Wanted(name, folders if complete else (HARNESS, *folders), home)


def _of_harness(name: str, local: Mapping[str, Entry]) -> Wanted:
    paths = _harness_names().get(name, [])
    if len(paths) == 1:
        folder = HARNESS / paths[0].relative_to(HARNESS).parts[0]
        index = TaskIndex.build([folder])
        if _refers_to(name, index) <= index.keys():
            return Wanted(name, (folder,), None)
    if not _in_harness(name):
        raise RecipeError(
            f"[evaluate] lm-eval: there is no task '{name}'",
            hint=_closest(name, {*_harness_names(), *local}),
        )
    return Wanted(name, (HARNESS,), None)


def _closest(name: str, known: Collection[str]) -> str:
    hint = suggest(name, known)
    if hint.startswith("did you mean"):
        return hint
    if "/" in name or name.endswith(".yaml"):
        return "name tasks by name, not by path, and put their folder into include_path"
    return "`lm-eval ls tasks` lists the harness's tasks; put your own folder into include_path"


@cache
def _harness_names() -> dict[str, list[Path]]:
    """Return where the harness defines tasks and groups, without parsing YAML, which is slow."""
    names: dict[str, list[Path]] = {}
    for path in sorted(HARNESS.rglob("*.yaml")):
        for match in NAME.finditer(path.read_bytes()):
            names.setdefault(match[2].decode("utf-8", "replace"), []).append(path)
    return names


def _in_harness(name: str) -> bool:
    """Return whether the harness has the name; parse its files only if that is necessary.

    Tags, for example, have no file of their own.
    """
    return name in _harness_names() or (_mentioned(name) and name in _harness_index())


def _mentioned(name: str) -> bool:
    """Return whether any file of the harness contains the name; otherwise it is not a tag."""
    word = name.encode()
    return any(word in path.read_bytes() for path in HARNESS.rglob("*.yaml"))


@cache
def _harness_index() -> dict[str, Entry]:
    return TaskIndex.build([HARNESS])


def _refers_to(name: str, index: Mapping[str, Entry]) -> set[str]:
    """Return the name and everything that it refers to, as far as the index knows."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        entry = index.get(current)
        if entry is not None:
            todo.extend(_children(entry))
    return seen


def _children(entry: Entry) -> Iterator[str]:
    if entry.kind is Kind.TAG:
        yield from entry.tags
    elif entry.kind is Kind.GROUP:
        yield from _named((entry.cfg or {}).get("task"))


def _named(task: Any) -> Iterator[str]:  # noqa: ANN401
    for item in task if isinstance(task, list) else [task]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict) and "group" in item and "task" in item:
            yield from _named(item["task"])  # a group defined in place
        elif isinstance(item, dict):
            yield from _named(item.get("task") or item.get("group"))


def _defined_in_place(index: Mapping[str, Entry]) -> Iterator[str]:
    """Yield the names of the tasks that groups define themselves, with data of their own."""
    for entry in index.values():
        members = (entry.cfg or {}).get("task") if entry.kind is Kind.GROUP else None
        for item in members if isinstance(members, list) else []:
            if isinstance(item, dict) and {"dataset_path", "custom_dataset"} & item.keys():
                yield str(item.get("task"))


def _is_task(entry: Entry) -> bool:
    return entry.kind in (Kind.TASK, Kind.PY_TASK)
