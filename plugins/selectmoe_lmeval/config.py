"""Options of the evaluator."""

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import NonNegativeInt, PositiveInt, StringConstraints, field_validator

from selectmoe_core import Config, content_path, execution_only

TaskName = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class LmEvalConfig(Config):
    """Measure base and tuned model with the lm-evaluation-harness.

    Results, standard errors and samples are the harness' own, so they compare with published ones.
    """

    tasks: Annotated[tuple[TaskName, ...], Len(1)]
    """Tasks, groups or tags: a list, or one text with commas; ``bundled:NAME`` is all tasks a
    plugin ships under that name."""
    include_path: tuple[Path, ...] = content_path(())
    """Folders with tasks of your own (YAML); relative data files count from the YAML's folder."""
    allow_task_code: bool = False
    """Run the Python code that the tasks of ``include_path`` name (``!function``, ``class``,
    metrics of the ``evaluate`` library) with your rights; without it such tasks are refused."""
    task_data: tuple[Path, ...] = content_path(())
    """Files and folders that the code of your tasks reads from outside ``include_path``: a change
    of their content makes the evaluation run again. Data that a YAML names counts without it."""
    num_fewshot: NonNegativeInt | None = None
    """Solved examples before each question; by default what the task says, else none."""
    limit: PositiveInt | None = None
    """Only the first so many questions of each task; for trials, not for results."""
    batch_size: PositiveInt | Literal["auto"] = execution_only("auto")
    """Requests of a forward pass; ``auto`` is what fits on a GPU, and 16 on a CPU."""
    max_batch_size: PositiveInt = execution_only(64)
    """The most that ``auto`` tries on a GPU."""
    bootstrap_iters: PositiveInt = 1000
    """Resamplings for standard errors that have no formula (accuracy has one)."""
    apply_chat_template: bool = False
    """Put questions into the chat template of the model's tokenizer, as the harness does it."""
    fewshot_seed: NonNegativeInt = 1234
    """Seeds the choice of solved examples; the harness' own default."""
    samples: bool = True
    """Keep every question with the model's answers: comparisons per question need them."""
    unsafe_code: bool = False
    """Allow tasks that run code which the model wrote."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401
        """Take ``"arc_easy,sciq"`` as the two tasks that it names."""
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(i, str) for i in items):
            return value
        return [name.strip() for item in items for name in item.split(",")]
