"""Building the harness's task objects, each in its own folder; errors name the file."""

import ast
import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.api.metrics
import lm_eval.tasks
from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_REGISTRY
from lm_eval.api.task import ALL_OUTPUT_TYPES, ConfigurableTask, Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry
from lm_eval.tasks._yaml_loader import _import_func_in_yml, load_yaml

from selectmoe_core import SelectMoEError, suggest
from selectmoe_lmeval.examination import document_problem
from selectmoe_lmeval.mistakes import Place, blamed, harness_failures, mistake
from selectmoe_lmeval.task_files import Function, data_files, functions

HARNESS = Path(lm_eval.tasks.__file__).parent
DATA_FIELDS = ("dataset_path", "dataset_kwargs")


@dataclass(frozen=True)
class Trust:
    """Who owns the tasks, and whether their code may run.

    Attributes:
        shipped: folders of installed plugins, whose tasks are trusted like the plugins.
        allow_code: whether a user's tasks may run code.
    """

    shipped: tuple[Path, ...] = ()
    allow_code: bool = False

    def covers(self, path: Path | None) -> bool:
        """Return whether a file belongs to the harness or to a plugin."""
        if path is None:
            return False
        inside = (HARNESS, HARNESS.resolve(), *self.shipped)
        return any(path.is_relative_to(folder) for folder in inside)


def manager_of(folders: tuple[Path, ...], trust: Trust) -> TaskManager:
    """Return the harness's manager of the tasks in folders, with our factory."""
    named: list[str | Path] = list(folders)
    manager = TaskManager(include_path=named, include_defaults=False)
    manager._factory = CarefulFactory(trust)  # noqa: SLF001
    return manager


class CarefulFactory(TaskFactory):
    """Builds tasks; a mistake in a user's task is an error that names file and field."""

    def __init__(self, trust: Trust) -> None:
        super().__init__()
        self._trust = trust

    def build(
        self, entry: Entry, *, overrides: dict[str, Any] | None = None, registry: dict[str, Entry]
    ) -> Any:  # noqa: ANN401
        """Build a task, a group with all its tasks, or the tasks of a tag."""
        with self._named(entry):
            return super().build(entry, overrides=overrides, registry=registry)

    def _build_task(self, entry: Entry, overrides: dict[str, Any] | None) -> Task:
        home: Any = contextlib.nullcontext()
        local = entry.yaml_path and not entry.yaml_path.is_relative_to(HARNESS)
        # Paths in a group start from the group's folder, which is already the working folder.
        if local and not any(name in (overrides or {}) for name in DATA_FIELDS):
            home = contextlib.chdir(entry.yaml_path.parent)
        with self._named(entry), home:
            return super()._build_task(entry, overrides)

    def _load_full_config(
        self, entry: Entry, overrides: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        if entry.yaml_path and not self._trust.covers(entry.yaml_path):
            check_file(entry.yaml_path, entry.name, allow_code=self._trust.allow_code)
        config: dict[str, Any] = super()._load_full_config(entry, overrides)
        return config

    @contextmanager
    def _named(self, entry: Entry) -> Iterator[None]:
        place = Place(entry.name, entry.yaml_path)
        if entry.yaml_path is None or self._trust.covers(entry.yaml_path):
            with harness_failures(entry.name):
                yield
        else:
            with blamed(place, _half_built):
                yield


def check_file(path: Path, name: str, *, allow_code: bool) -> None:
    """Check a user's YAML without its data; import the code that it names.

    Raises:
        RecipeError: a name that cannot be a file name, code that may not run or cannot be imported,
            an unknown metric, output type or missing field.
    """
    place = Place(name, path)
    if any(sign in name for sign in "/\\\0\n") or name in ("", ".", ".."):
        raise mistake(
            place,
            "task" if "task" in load_yaml(path, resolve_func=False) else "group",
            f"'{name}' cannot be part of a file name, but a file of samples gets this name",
            "use letters, digits, '-', '_' and '.'",
        )
    _check_functions(place, allow_code=allow_code)
    config = load_yaml(path, resolve_func=False)
    if isinstance(config.get("task"), str):
        _check_fields(place, config)
        for file in data_files(path):
            if file.is_file() and not file.stat().st_size:
                hint = "fill it, or name another file"
                raise mistake(place, "dataset_kwargs", f"the file {file} is empty", hint)
        _check_metrics(place, config, allow_code=allow_code)


def _check_functions(place: Place, *, allow_code: bool) -> None:
    """Raise if the YAML names code that may not run or cannot be imported."""
    for field, function in functions(place.file):
        if function.folder.is_relative_to(HARNESS):
            continue  # a file of the harness that the user's file includes
        _check_module(place, field, function)
        if not allow_code:
            raise mistake(
                place,
                field,
                f"it runs Python code ({function.name}), but allow_task_code is off",
                "read the code, then set allow_task_code = true in [evaluate]",
            )
        try:
            _import_func_in_yml(function.name, function.folder)
        except Exception as error:  # a user's module may raise anything
            raise mistake(
                place,
                field,
                f"{function.name} cannot be imported: {_first_line(error)}",
                f"put the module next to the YAML: {function.folder}",
            ) from error


def _check_module(place: Place, field: str, function: Function) -> None:
    """Raise for a module that does not exist or is not Python, without running it."""
    file = function.file
    if file is None:
        what = f"there is no module for {function.name}"
        raise mistake(place, field, what, f"put it next to the YAML: {function.folder}")
    if file.suffix != ".py":
        return
    try:
        ast.parse(file.read_bytes(), file.name)
    except (SyntaxError, ValueError) as error:
        what = f"{function.name} is not Python: {_first_line(error)}"
        raise mistake(place, field, what, f"fix {file}") from None


def _check_fields(place: Place, config: Mapping[str, Any]) -> None:
    kind = config.get("output_type", "generate_until")
    if kind not in ALL_OUTPUT_TYPES:
        hint = suggest(str(kind), ALL_OUTPUT_TYPES)
        raise mistake(place, "output_type", f"there is no output type '{kind}'", hint)
    shots = config.get("num_fewshot")
    if shots is not None and (type(shots) is not int or shots < 0):
        raise mistake(
            place, "num_fewshot", f"{shots!r:.60} is not a whole number of at least 0", "fix it"
        )
    if "class" in config:
        return
    if "dataset_path" not in config and "custom_dataset" not in config:
        raise mistake(
            place,
            "dataset_path",
            "it is missing: the task has no data",
            "for a local file: dataset_path: json, dataset_kwargs: {data_files: {test: q.jsonl}}",
        )
    wanted = [("test_split", "validation_split"), ("doc_to_text",), ("doc_to_target",)]
    if kind == "multiple_choice":
        wanted.append(("doc_to_choice",))
    if config.get("use_prompt"):
        wanted = wanted[:1]
    for names in wanted:
        if all(config.get(name) is None for name in names):
            raise mistake(place, names[0], "it is missing", f"add {' or '.join(names)}")


def _check_metrics(place: Place, config: Mapping[str, Any], *, allow_code: bool) -> None:
    """Raise for a metric or an aggregation that the harness does not have."""
    listed = config.get("metric_list")
    if listed is None:
        return
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        hint = "write metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]"
        raise mistake(place, "metric_list", "it must be a list of metrics", hint)
    own = config.get("process_results") is not None
    for entry in listed:
        metric, aggregation = entry.get("metric"), entry.get("aggregation")
        if metric is None:
            raise mistake(place, "metric_list", f"an entry without 'metric': {entry}", "add it")
        if entry.get("hf_evaluate") and not allow_code:
            what = f"the metric '{metric}' is code of the evaluate library (hf_evaluate)"
            hint = (
                "set allow_task_code = true in [evaluate] if this machine may download and run it"
            )
            raise mistake(place, "metric_list", what, hint)
        known = own or entry.get("hf_evaluate") or _is_function(metric)
        if not known and metric not in METRIC_REGISTRY:
            hint = suggest(str(metric), list(METRIC_REGISTRY))
            raise mistake(place, "metric_list", f"there is no metric '{metric}'", hint)
        named = aggregation is not None and not _is_function(aggregation)
        if named and aggregation not in AGGREGATION_REGISTRY:
            hint = suggest(str(aggregation), list(AGGREGATION_REGISTRY))
            raise mistake(place, "metric_list", f"there is no aggregation '{aggregation}'", hint)


def _is_function(value: object) -> bool:
    """Return whether the value of an unresolved YAML is a function: a path and a dotted name."""
    return isinstance(value, str) and value.startswith("/")


def _half_built(task: object, place: Place) -> SelectMoEError | None:
    """Return the mistake in the documents of a task whose construction failed."""
    if not isinstance(task, ConfigurableTask) or not hasattr(task, "features"):
        return None
    return document_problem(task, place)


def _first_line(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({Path(error.filename or '?').name}, line {error.lineno})"
    return str(error).strip().partition("\n")[0] or type(error).__name__
