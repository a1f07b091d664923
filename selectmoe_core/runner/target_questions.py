"""A target example that the evaluation asks is found before the first stage."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from selectmoe_core.data.examples import Example, Message, RawExample, content_id
from selectmoe_core.data.pool import Pool
from selectmoe_core.data.questions import Question
from selectmoe_core.errors import RecipeError, shown
from selectmoe_core.plan.node import Node
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.runner.job import bound, make_job
from selectmoe_core.runtime.distributed import World
from selectmoe_core.runtime.progress import NoProgress
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.store import MANIFEST
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat

WORD = re.compile(r"\w+")
FEW = 8
"""Words that a text must have to count as asked where it is only a part of another text."""
HINT = (
    "take the targets from a split that is not evaluated; or hold questions back: held_back = N in "
    '[evaluate], and use = "lm-eval" with split = "held-back" in [targets]'
)


def asked_by(nodes: Iterable[Node]) -> Mapping[str, Any] | None:
    """Return the evaluator and those of its options that decide its questions.

    ``None`` where nothing is evaluated, or the evaluator cannot name its questions.
    """
    for node in nodes:
        component = node.entry.component
        if node.stage == "evaluate" and component.questions is not None:
            options = component.questions(node.config).model_dump(mode="json")
            return {"component": component.name, "options": options}
    return None


def check_targets(spec: NodeSpec, registry: Registry) -> None:
    """Compare the target examples with the questions of the evaluation.

    A target is asked if its text before the answer is that of a question, in the same words without
    regard to case, marks and white space, or if one of both holds the other.

    Args:
        spec: the node of the targets; its ``evaluation`` says who asks.
        registry: the components.

    Raises:
        RecipeError: some are asked; or the targets come through a pipe.
    """
    if spec.evaluation is None:
        return
    texts = {" ".join(words(one.prompt)): one for one in _targets(spec, registry)}
    texts.pop("", None)
    asked = list(dict.fromkeys(_asked(texts, _questions(spec, registry))))
    if asked:
        tasks = sorted({task for _, task in asked})
        first = texts[asked[0][0]].prompt
        raise RecipeError(
            f"{spec.where} {len({text for text, _ in asked})} of {len(texts)} examples are "
            f"questions that the evaluation asks ({', '.join(tasks)}), the first is: "
            f"{shown(first)}",
            hint=HINT,
        )


def words(text: str) -> list[str]:
    """Return the words of a text without regard to case and marks."""
    return WORD.findall(text.casefold())


def _asked(
    targets: Mapping[str, Example], questions: Iterable[Question]
) -> Iterator[tuple[str, str]]:
    """Yield the text of each target that is asked, with the task that asks it."""
    parts = [f" {text} " for text in targets if text.count(" ") + 1 >= FEW]
    for question in questions:
        own = words(question.text)
        text = " ".join(own)
        if text in targets:
            yield text, question.task
        padded = f" {text} "
        for part in parts:
            if part in padded or (len(own) >= FEW and padded in part):
                yield part.strip(), question.task


def _targets(spec: NodeSpec, registry: Registry) -> Iterator[Example]:
    if (spec.folder / MANIFEST).is_file():
        yield from Pool.open(spec.folder).examples()
        return
    entry, config = bound(spec, registry)
    files = entry.component.files
    for path in files(config) if files else ():
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise RecipeError(
                f"{spec.where} {path} is a pipe: it can be read only once, and targets are "
                "compared with the questions of the evaluation before the first stage",
                hint="write the targets into a file",
            )
    part = entry.build(config, where=spec.where)
    for row in part.read(_job(spec, registry)):
        if isinstance(row, RawExample):
            yield _example(row.source, row.messages)


def _example(source: str, messages: tuple[Message, ...]) -> Example:
    return Example(content_id(messages).hex(), source, messages)


def _questions(spec: NodeSpec, registry: Registry) -> Iterator[Question]:
    assert spec.evaluation is not None
    asking = replace(
        spec,
        stage="questions",
        where="[evaluate]",
        kind=str(Kind.EVALUATOR),
        component=spec.evaluation["component"],
        options=spec.evaluation["options"],
        inputs={},
    )
    entry, config = bound(asking, registry)
    part = entry.build(config, where=asking.where)
    yield from part.questions(_job(asking, registry))


def _job(spec: NodeSpec, registry: Registry) -> Any:  # noqa: ANN401
    chat = ChatFormat.load(ChatConfig.model_validate(spec.chat))
    return make_job(spec, registry, World(), chat, NoProgress())
