"""The evaluator: runs the harness's Python interface on a model that the core loaded."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import lm_eval.utils
from jinja2 import Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from lm_eval import simple_evaluate
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from selectmoe_core import Facts, Job, Question, RecipeError, StageError, TargetModel
from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.harness import LOG, load_model, quiet, summed
from selectmoe_lmeval.questions import asked
from selectmoe_lmeval.remarks import remarks_after, remarks_before, show
from selectmoe_lmeval.results import summarise, write_results
from selectmoe_lmeval.task_files import deciding_files
from selectmoe_lmeval.tasks import leaves, load_tasks


class LmEval:
    """Evaluates a model on tasks of lm-evaluation-harness."""

    def __init__(self, config: LmEvalConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Load the tasks with their data and render their questions, as the evaluation will.

        Raises:
            RecipeError: an unknown task, or a mistake in a task of the user.
            StageError: the data of a task is not available.
        """
        with quiet(job, None), careful_templates(self.config):
            tasks = list(
                leaves(
                    _checked(
                        self.config,
                        _Shipped(tuple(job.bundled_tasks), job.bundled_tasks),
                        _stamps(self.config),
                    )
                )
            )
            self._check_unsafe(tasks)
            remarks = list(remarks_before(tasks, self.config, job))
        show(remarks)

    def evaluate(self, model: TargetModel, out: Path, job: Job) -> Facts:
        """Write the harness's results and samples into ``out``; return the facts of every task.

        Raises:
            RecipeError: an unknown task.
            ModelError: the model cannot be loaded.
            StageError: the data of a task is not available.
        """
        if job.world.main:
            out.mkdir(parents=True, exist_ok=True)
        log = out / LOG if job.world.main else None
        with quiet(job, log) as counts, careful_templates(self.config):
            tasks = load_tasks(self.config, job.bundled_tasks)
            tracker = EvaluationTracker()
            results = self._results(model, tasks, tracker, job)
        truncated, unmatched = summed(counts.truncated, job), summed(counts.unmatched, job)
        if results is None:
            return {}  # the first process has them
        write_results(results, tracker, out, samples=self.config.samples)
        tasks_facts = summarise(results)
        remarks = list(remarks_after(tasks_facts, truncated, unmatched))
        show(remarks)
        facts = {"tasks": tasks_facts, "truncated_requests": truncated}
        return {**facts, "warnings": remarks} if remarks else facts

    def questions(self, job: Job) -> Iterator[Question]:
        """Yield every question of every task, also those that ``limit`` leaves out.

        Raises:
            RecipeError: an unknown task.
            StageError: the data of a task cannot be had.
        """
        with quiet(job, None), careful_templates(self.config):
            for task in leaves(load_tasks(self.config, job.bundled_tasks)):
                yield from asked(task)

    def _check_unsafe(self, tasks: Iterable[Task]) -> None:
        unsafe = [task.task_name for task in tasks if getattr(task, "UNSAFE_CODE", False)]
        if unsafe and not self.config.unsafe_code:
            raise RecipeError(
                f"[evaluate] the tasks {', '.join(unsafe)} run code that the model wrote",
                hint="set unsafe_code = true if this machine may run it",
            )

    def _results(
        self,
        model: TargetModel,
        tasks: list[Task | Group],
        tracker: EvaluationTracker,
        job: Job,
    ) -> dict[str, Any] | None:
        config = self.config
        self._check_unsafe(leaves(tasks))
        loaded = load_model(model, config, job)
        found: dict[str, Any] | None = simple_evaluate(
            model=loaded,
            model_args=_named(model),
            tasks=tasks,
            task_manager=TaskManager(include_defaults=False),  # the tasks are loaded already
            num_fewshot=config.num_fewshot,
            batch_size=loaded.batch_size,
            device=job.device,
            limit=config.limit,
            bootstrap_iters=config.bootstrap_iters,
            log_samples=True,
            evaluation_tracker=tracker,
            apply_chat_template=bool(config.apply_chat_template),
            fewshot_random_seed=config.fewshot_seed,
            confirm_run_unsafe_code=config.unsafe_code,
        )
        return found


class CarefulTemplates(SandboxedEnvironment):
    """Templates that run no code; each is compiled once, and not for every row."""

    def from_string(self, source: Any, *others: Any, **options: Any) -> Template:  # noqa: ANN401
        """Return the template of a text."""
        if others or options or not isinstance(source, str):
            return super().from_string(source, *others, **options)
        if source not in self._compiled:
            self._compiled[source] = super().from_string(source)
        return self._compiled[source]

    @cached_property
    def _compiled(self) -> dict[str, Template]:
        return {}


@contextmanager
def careful_templates(config: LmEvalConfig) -> Iterator[None]:
    """Render the tasks' templates so that they run no code, unless the tasks may run code.

    A template that cannot be rendered becomes an error that a user can act on.
    """
    plain = lm_eval.utils.env
    if not config.allow_task_code:
        lm_eval.utils.env = CarefulTemplates(
            loader=plain.loader, undefined=plain.undefined, keep_trailing_newline=True
        )
        lm_eval.utils.env.filters.update(plain.filters)
    try:
        yield
    except TemplateError as error:
        raise StageError(
            f"a question does not fit its task's template: {error.message or error}",
            hint="check doc_to_text, doc_to_choice and doc_to_target in the task's YAML: a row "
            "may lack a field that they use",
        ) from error
    finally:
        lm_eval.utils.env = plain


@cache
def _checked(
    config: LmEvalConfig, shipped: "_Shipped", stamps: tuple[object, ...]
) -> list[Task | Group]:
    """Load the tasks once for all models, from the current files."""
    del stamps
    return load_tasks(config, shipped.folders)


@dataclass(frozen=True)
class _Shipped:
    """The tasks that plugins ship: their names, and the folders of those that options name."""

    names: tuple[str, ...]
    folders: Mapping[str, Path] = field(compare=False)


def _stamps(config: LmEvalConfig) -> tuple[object, ...]:
    """Return a value that changes if a file of the tasks changes."""
    paths = [path for path in deciding_files(config) if path.exists()]
    files = [file for path in paths for file in (path, *path.rglob("*"))]
    return tuple((str(file), file.stat().st_mtime_ns) for file in files if file.exists())


def _named(model: TargetModel) -> dict[str, str]:
    """Return the arguments with which the harness's command line would load the model."""
    named = {"pretrained": model.base.location}
    if model.base.revision:
        named["revision"] = model.base.revision
    if model.adapter:
        named["peft"] = str(model.adapter)
    return named
