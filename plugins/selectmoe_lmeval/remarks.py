"""Warnings about an evaluation, before it and after it."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

from lm_eval.api.task import ConfigurableTask, Task

from selectmoe_core import Job
from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.examination import shots_of

FIRST = 50
"""Questions of each task whose length is measured before the first stage."""
LENGTHS = ("n_positions", "max_position_embeddings", "n_ctx")


def remarks_before(tasks: Sequence[Task], config: LmEvalConfig, job: Job) -> Iterator[str]:
    """Yield warnings before the run: questions as their own examples, and too long ones."""
    for task in tasks:
        if isinstance(task, ConfigurableTask):
            yield from _same_rows(task, config)
            yield from _too_long(task, config, job)


def remarks_after(facts: Mapping[str, Any], truncated: int, unmatched: int) -> Iterator[str]:
    """Yield warnings about results: truncated questions, unknown answers, tasks at chance."""
    if truncated:
        yield f"{truncated} requests were longer than the model's context and were truncated"
    if unmatched:
        yield (
            f"{unmatched} questions have an answer that is not among their choices: they count as "
            "wrong (lm_eval.log shows them)"
        )
    for name, task in facts.items():
        if task["at_chance"]:
            yield (
                f"{name} is at chance ({task['metric']} {task['value']:.3f} +- "
                f"{task['stderr']:.3f}, guessing gives {task['chance']:.3f}): on this task the "
                "model cannot show whether a selection is better"
            )


def show(remarks: Iterable[str]) -> None:
    """Print warnings to the terminal."""
    for text in remarks:
        _show(text)


@cache
def _show(text: str) -> None:
    """Print each warning once, because the models of a comparison share their tasks."""
    print(f"  warning: evaluate: {text}", file=sys.stderr)  # noqa: T201


def _same_rows(task: ConfigurableTask, config: LmEvalConfig) -> Iterator[str]:
    """Yield a warning if a question may be its own solved example."""
    fallback = task.fewshot_cfg.split is None and task.fewshot_cfg.samples is None
    others = task.has_training_docs() or (task.has_validation_docs() and task.has_test_docs())
    if shots_of(task, config.num_fewshot) and fallback and not others:
        yield (
            f"{task.task_name} has no fewshot_split: its solved examples are drawn from the "
            "questions themselves, and a question may be its own example"
        )


def _too_long(task: ConfigurableTask, config: LmEvalConfig, job: Job) -> Iterator[str]:
    """Yield a warning if questions do not fit into the model."""
    ref = job.inputs.model
    options = job.models.config(ref) if ref is not None else None
    most = next((options[key] for key in LENGTHS if options and options.get(key)), None)
    if ref is None or not isinstance(most, int):
        return
    tokenizer, shots = job.models.tokenizer(ref), shots_of(task, config.num_fewshot)
    lengths = []
    for doc in islice(task.eval_docs, min(FIRST, config.limit or FIRST)):
        context = task.fewshot_context(doc, num_fewshot=shots)
        if isinstance(context, str):
            lengths.append(len(tokenizer(context)["input_ids"]))
    above = [length for length in lengths if length >= most]
    if above:
        yield (
            f"{len(above)} of the first {len(lengths)} questions of {task.task_name} have up to "
            f"{max(above)} tokens, but the model reads only {most}: their beginning is truncated"
        )
