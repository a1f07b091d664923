"""Before the first stage: every part, model and chat format is checked."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from selectmoe_core.errors import ModelError, RecipeError, utf8_text
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.plugin.protocols import Job, Need
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.runner.job import bound, make_job
from selectmoe_core.runner.sample_rows import load_sample
from selectmoe_core.runner.target_questions import asked_by, check_targets
from selectmoe_core.runtime.distributed import World
from selectmoe_core.runtime.progress import NoProgress
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.store import MANIFEST
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat


def check_part(spec: NodeSpec, registry: Registry) -> None:
    """Call the ``check`` of a node's part, if it has one; check its model and chat format.

    Inputs that do not exist yet are left out of its job. For a model that does not exist yet the
    part sees the one that will be trained, and if it will be converted before, none.
    """
    entry, config = bound(spec, registry)
    part = entry.build(config, where=spec.where)
    chat = ChatFormat.load(ChatConfig.model_validate(spec.chat))
    # One process checks for all processes that will execute it.
    world = World(size=spec.processes)
    job = make_job(_with_finished_inputs(spec), registry, world, chat, NoProgress())
    check = getattr(part, "check", None)
    if check is not None:
        check(job)
    check_targets(spec, registry)
    needs = entry.component.needs(config)
    if entry.component.torch and Need.MODEL in needs:
        model = job.inputs.model or (ModelRef(**spec.origin) if spec.origin else None)
        if model is not None:
            registry.models.check(model)
            if Need.TOKENS in needs:
                _check_rows(spec, model, job)


def each_once(specs: Iterable[NodeSpec]) -> list[NodeSpec]:
    """Leave out nodes whose check is that of another one: they differ in their seed, say."""
    found: dict[str, NodeSpec] = {}
    for spec in specs:
        inputs = _with_finished_inputs(spec).inputs
        same = (
            spec.stage, spec.kind, spec.component, spec.options, spec.own, spec.model, spec.origin,
            spec.trained_from,
            spec.chat, spec.device, spec.dtype, spec.processes, str(spec.sample),
            sorted((role, str(folder)) for role, folder in inputs.items()),
        )  # fmt: skip
        found.setdefault(json.dumps(same, sort_keys=True, default=str), spec)
    return list(found.values())


def _check_rows(spec: NodeSpec, model: ModelRef, job: Job) -> None:
    """Render and tokenise a few rows as the stage will.

    Raises:
        ModelError: no tokenizer, no chat template or one that does not fit; the row is named.
    """
    tokenizer = job.models.tokenizer(model)
    job.chat.check(tokenizer)
    rows = load_sample(spec.sample) if spec.sample else []
    refused = 0
    vocabulary = (job.models.config(model) or {}).get("vocab_size")
    for row in rows:
        try:
            (encoded,) = job.chat.encode([row.example], tokenizer)
        except ModelError as error:
            refused += 1
            if spec.skips and refused < len(rows):  # the other rows can be used
                continue
            raise ModelError(f"{row.where}: {error}", hint=error.hint) from error
        if isinstance(vocabulary, int) and len(encoded.ids) and encoded.ids.max() >= vocabulary:
            token = tokenizer.convert_ids_to_tokens(int(encoded.ids.max()))
            raise ModelError(
                f"{row.where}: the token {token!r} is number {encoded.ids.max()}, and the model "
                f"{model} has {vocabulary:,}",
                hint="use the tokenizer that the model was trained with, or resize its embeddings",
            )


def _with_finished_inputs(spec: NodeSpec) -> NodeSpec:
    inputs = {role: path for role, path in spec.inputs.items() if (path / MANIFEST).is_file()}
    return replace(spec, inputs=inputs, model=spec.model or spec.trained_from)


def targets_to_check(
    plan: Plan, missing: Collection[Node], spec_of: Callable[[Node], NodeSpec]
) -> list[NodeSpec]:
    """Return the nodes of targets that must be compared with the evaluation's questions.

    They must when either is made: a later evaluation may ask what was a target before. A comparison
    may have several sets of targets.
    """
    asked = asked_by(plan.nodes.values())
    if asked is None:
        return []
    evaluates = any(node.stage == "evaluate" for node in missing)
    targets = [node for node in plan.nodes.values() if node.stage == "targets" and node.digest]
    wanted = [node for node in targets if evaluates or node in missing]
    return [replace(spec_of(node), evaluation=asked) for node in wanted]


def check_names(plan: Plan, outputs: Path) -> None:
    """Raise if a path is not UTF-8: the files of a run, and Arrow, cannot hold such a name."""
    hint = "rename the file or folder; only files inside a data folder may have such names"
    for text in (str(outputs), *_texts(plan.recipe.resolved)):
        if utf8_text(text) != text:
            raise RecipeError(f"the name {utf8_text(text)} is not UTF-8", hint=hint)


def _texts(value: object) -> Iterator[str]:
    """Yield all texts within a TOML value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
