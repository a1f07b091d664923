"""Mistakes in a user's task: which file, which field, what, and what to do."""

import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import lm_eval
from datasets.exceptions import DatasetsError
from jinja2 import TemplateError

from selectmoe_core import RecipeError, SelectMoEError, StageError

PACKAGE = str(Path(lm_eval.__file__).parent)
SPLITS = {
    "test_docs": "test_split",
    "validation_docs": "validation_split",
    "training_docs": "training_split",
    "fewshot_docs": "fewshot_split",
}
FIELDS = SPLITS | {
    "doc_to_text": "doc_to_text",
    "doc_to_choice": "doc_to_choice",
    "doc_to_target": "doc_to_target",
    "download": "dataset_path, dataset_kwargs",
    "build_filter_ensemble": "filter_list",
    "get_metric": "metric_list",
    "get_prompt": "use_prompt",
    "get_sampler": "fewshot_config",
    "process_results": "process_results, metric_list",
    "resolve_field": "description",
}
"""Functions of the harness, and the field of the YAML that each of them reads."""
LIBRARIES = (
    PACKAGE,
    str(Path(__file__).parent),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)
DATA_HINT = (
    "is its data on this machine, or can the hub be reached (HF_HUB_OFFLINE, HF_ENDPOINT)? "
    "The harness's tasks download their data from the hub once"
)


@dataclass(frozen=True)
class Place:
    """A task and the file that defines it."""

    task: str
    path: Path | None

    @property
    def file(self) -> Path:
        """The file; a user's task always has one."""
        assert self.path is not None
        return self.path

    def __str__(self) -> str:
        where = f" ({self.path})" if self.path else ""
        return f"[evaluate] the task '{self.task}'{where}"


def mistake(place: Place, field: str, what: str, hint: str) -> RecipeError:
    """Return the error for a mistake in a field of a task."""
    return RecipeError(f"{place}: {field}: {what}", hint=hint)


@contextmanager
def blamed(
    place: Place, examine: Callable[[object, Place], SelectMoEError | None]
) -> Iterator[None]:
    """Turn an error while a user's task is built into one that names the field.

    ``examine`` returns the mistake in a partly built task, if it finds one.
    """
    try:
        yield
    except SelectMoEError:
        raise
    except Exception as error:  # a user's code may raise anything
        half = _half_built(error.__traceback__)
        raise (examine(half, place) or explained(error, place)) from error


@contextmanager
def harness_failures(name: str) -> Iterator[None]:
    """Turn unavailable data into an error; any other error keeps its traceback."""
    try:
        yield
    except (OSError, DatasetsError, ValueError, RuntimeError) as error:
        raise StageError(
            f"the task '{name}' cannot be loaded: {first_line(error)}", hint=DATA_HINT
        ) from error


def explained(error: Exception, place: Place, field: str = "") -> SelectMoEError:
    """Return the error that names the field in which a user's task failed."""
    frames = traceback.extract_tb(error.__traceback__)
    within = [frame.name for frame in frames if frame.filename.startswith(PACKAGE)]
    reader = next((name for name in reversed(within) if name in FIELDS), "")
    field = field or FIELDS.get(reader, "")
    if reader in SPLITS and isinstance(error, KeyError):
        splits = _splits(error.__traceback__)
        hint = f"the data has {', '.join(splits)}" if splits else "check dataset_kwargs"
        return mistake(place, field, f"there is no split {error}", hint)
    if reader == "download" and isinstance(error, (OSError, DatasetsError, RuntimeError)):
        what = f"{place}: {field}: the data cannot be loaded: {described(error)}"
        return StageError(what, hint=f"do the files exist, and are they not empty? {DATA_HINT}")
    at = frames[-1] if frames else None
    own = at is not None and not _is_library(at.filename)
    line = f" ({Path(at.filename).name}, line {at.lineno})" if own and at else ""
    return mistake(
        place,
        field or "it cannot be built",
        f"{described(error)}{line}",
        "does every row have the fields that the task's code and YAML read?",
    )


def _is_library(filename: str) -> bool:
    """Return whether a file belongs to a library, to Python or to us."""
    return filename.startswith(("<", *LIBRARIES))


def described(error: Exception) -> str:
    """Return an error on one line, with its type if the text alone is not clear."""
    if isinstance(error, TemplateError):
        return error.message or str(error)
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return str(error).strip().partition("\n")[0]


def _half_built(trace: TracebackType | None) -> object:
    """Return the task whose constructor a traceback passes, or ``None``."""
    found = None
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name == "__init__" and frame.f_code.co_filename.startswith(PACKAGE):
            found = frame.f_locals.get("self", found)
        trace = trace.tb_next
    return found


def _splits(trace: TracebackType | None) -> list[str]:
    """Return the splits of the data of the task that a traceback passes."""
    while trace is not None:
        dataset = getattr(trace.tb_frame.f_locals.get("self"), "dataset", None)
        if isinstance(dataset, dict):
            return [str(name) for name in dataset]
        trace = trace.tb_next
    return []
