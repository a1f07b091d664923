"""Options of the evaluator."""

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import NonNegativeInt, PositiveInt, StringConstraints, field_validator

from selectmoe_core import Config, content_path, execution_only

TaskName = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class LmEvalConfig(Config):
    """Evaluate the base and the tuned model with lm-evaluation-harness.

    Results, standard errors and samples are the harness's own, so they are comparable with
    published ones.
    """

    tasks: Annotated[tuple[TaskName, ...], Len(1)]
    """Tasks, groups or tags: a list, or one text with commas; ``bundled:NAME`` means all tasks
    that a plugin ships under that name."""
    include_path: tuple[Path, ...] = content_path(())
    """Folders with your own tasks (YAML); relative data files start from the YAML's folder."""
    allow_task_code: bool = False
    """Run the Python code that the tasks of ``include_path`` name (``!function``, ``class``,
    metrics of the ``evaluate`` library) with your permissions; otherwise such tasks are refused."""
    task_data: tuple[Path, ...] = content_path(())
    """Files and folders outside ``include_path`` that the code of your tasks reads: if their
    content changes, the evaluation runs again. Data that a YAML names need not be listed."""
    num_fewshot: NonNegativeInt | None = None
    """Solved examples before each question; by default the task's number, otherwise none."""
    held_back: NonNegativeInt = 0
    """Questions of each task that are not asked: the reader ``lm-eval`` gives them as target
    examples (``split = "held-back"``). Which they are depends on the
    task's name alone."""
    limit: PositiveInt | None = None
    """Use only this number of questions of each task; for trials, not for results."""
    batch_size: PositiveInt | Literal["auto"] = execution_only("auto")
    """Requests of a forward pass; ``auto`` means as many as fit on a GPU, and 16 on a CPU."""
    max_batch_size: PositiveInt = execution_only(64)
    """The largest batch that ``auto`` tries on a GPU."""
    bootstrap_iters: PositiveInt = 1000
    """Resamplings for standard errors that have no formula (accuracy has one)."""
    apply_chat_template: bool | Literal["training"] = False
    """Put questions into a conversation: ``true`` means the chat template of the model's tokenizer,
    as the harness does; ``"training"`` the recipe's ``[chat]``, in which the model was trained."""
    fewshot_seed: NonNegativeInt = 1234
    """The seed for the choice of solved examples; the default is the harness's."""
    samples: bool = True
    """Store every question with the model's answers; comparisons per question need them."""
    unsafe_code: bool = False
    """Allow tasks that run code written by the model."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401
        return split_names(value)


class LmEvalTargetsConfig(Config):
    """Read target examples from the tasks of an evaluation, from questions that are not evaluated.

    Each task is a target task: its question is the prompt, its right answer the answer.
    """

    tasks: Annotated[tuple[TaskName, ...], Len(1)]
    """Tasks, groups or tags, as in ``[evaluate]``."""
    split: Literal["auto", "validation", "train", "fewshot", "held-back"] = "auto"
    """Which questions. ``auto``: the validation split if the test split is evaluated, otherwise the
    train split or what solved examples are drawn from; ``held-back``: those that ``held_back`` of
    ``[evaluate]`` leaves out."""
    examples: PositiveInt = 100
    """Examples of each task, drawn with the stage's seed; fewer if the split has fewer. With
    ``held-back`` the first so many that are held back, whatever the seed."""
    include_path: tuple[Path, ...] = content_path(())
    """Folders with your own tasks, as in ``[evaluate]``."""
    allow_task_code: bool = False
    """Run the Python code that your tasks name, as in ``[evaluate]``."""
    task_data: tuple[Path, ...] = content_path(())
    """What the code of your tasks reads, as in ``[evaluate]``."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401
        return split_names(value)

    @property
    def evaluation(self) -> LmEvalConfig:
        """The options of an evaluation of the same tasks."""
        return LmEvalConfig(
            tasks=self.tasks,
            include_path=self.include_path,
            allow_task_code=self.allow_task_code,
            task_data=self.task_data,
        )


def split_names(value: Any) -> Any:  # noqa: ANN401
    """Read ``"arc_easy,sciq"`` as two tasks."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(i, str) for i in items):
        return value
    return [name.strip() for item in items for name in item.split(",")]
