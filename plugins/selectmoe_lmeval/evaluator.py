"""The evaluator: the harness' Python interface on a model that the core loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from lm_eval import simple_evaluate
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from selectmoe_core import Facts, Job, Question, StageError, TargetModel
from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.harness import LOG, load_model, quiet, summed
from selectmoe_lmeval.results import summarise, write_results
from selectmoe_lmeval.tasks import find_tasks, load_tasks


class LmEval:
    """Measures a model on tasks of the lm-evaluation-harness."""

    def __init__(self, config: LmEvalConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Raise where a task is unknown; loads no data and asks no hub."""
        with quiet(job, None):
            find_tasks(self.config, job)

    def evaluate(self, model: TargetModel, out: Path, job: Job) -> Facts:
        """Write the harness' results and samples into ``out``; return the facts of every task.

        Raises:
            RecipeError: an unknown task.
            ModelError: the model cannot be loaded.
            StageError: the data of a task cannot be had.
        """
        if job.world.main:
            out.mkdir(parents=True, exist_ok=True)
        log = out / LOG if job.world.main else None
        with quiet(job, log) as said, readable_templates():
            tasks = load_tasks(find_tasks(self.config, job))
            tracker = EvaluationTracker()
            results = self._results(model, tasks, tracker, job)
        truncated = summed(said.truncated, job)
        if results is None:
            return {}  # the first process has them
        write_results(results, tracker, out, samples=self.config.samples)
        return {"tasks": summarise(results), "truncated_requests": truncated}

    def questions(self, job: Job) -> Iterator[Question]:
        """Yield every question of the multiple-choice tasks, whatever ``limit`` says.

        Raises:
            RecipeError: an unknown task.
            StageError: the data of a task cannot be had.
        """
        with quiet(job, None):
            loaded = load_tasks(find_tasks(self.config, job))
        for task in _leaves(loaded):
            if task.get_config("output_type") == "multiple_choice":
                for number, doc in enumerate(task.eval_docs):
                    yield _question(task, number, doc)

    def _results(
        self,
        model: TargetModel,
        tasks: list[Task | Group],
        tracker: EvaluationTracker,
        job: Job,
    ) -> dict[str, Any] | None:
        config = self.config
        unsafe = [t.task_name for t in _leaves(tasks) if getattr(t, "UNSAFE_CODE", False)]
        if unsafe and not config.unsafe_code:
            raise StageError(
                f"the tasks {', '.join(unsafe)} run code that the model wrote",
                hint="set unsafe_code = true if this machine may run it",
            )
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
            apply_chat_template=config.apply_chat_template,
            fewshot_random_seed=config.fewshot_seed,
            confirm_run_unsafe_code=config.unsafe_code,
        )
        return found


@contextmanager
def readable_templates() -> Iterator[None]:
    """Turn a task's template that cannot be rendered into an error that a user can act on."""
    try:
        yield
    except TemplateError as error:
        raise StageError(
            f"a question does not fit its task's template: {error.message or error}",
            hint="look at doc_to_text, doc_to_choice and doc_to_target in the task's YAML: a row "
            "may lack a field that they use",
        ) from error


def _named(model: TargetModel) -> dict[str, str]:
    """Return the arguments with which the harness' own command line would load the model."""
    named = {"pretrained": model.base.location}
    if model.base.revision:
        named["revision"] = model.base.revision
    if model.adapter:
        named["peft"] = str(model.adapter)
    return named


def _leaves(loaded: list[Task | Group]) -> Iterator[Task]:
    for item in loaded:
        if isinstance(item, Group):
            yield from item.get_all_tasks()
        else:
            yield item


def _question(task: Task, number: int, doc: dict[str, Any]) -> Question:
    text, choices, target = task.doc_to_text(doc), task.doc_to_choice(doc), task.doc_to_target(doc)
    if isinstance(text, int):  # the choices are beginnings, and one end fits one of them
        text, target = str(target), text
    if isinstance(target, list):
        target = target[0]
    if isinstance(target, str):
        target = choices.index(target) if target in choices else int(target)
    shown = tuple(map(str, choices))
    return Question(task.task_name, str(doc.get("id", number)), str(text), shown, int(target))
