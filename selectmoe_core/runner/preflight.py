"""Before the first stage: every part says what it already knows will not work."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from selectmoe_core.config import parse
from selectmoe_core.errors import RecipeError, utf8_text
from selectmoe_core.plan.plan import Plan
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.runner.job import make_job
from selectmoe_core.runtime.distributed import World
from selectmoe_core.runtime.progress import NoProgress
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.store import MANIFEST
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat


def check_part(spec: NodeSpec, registry: Registry) -> None:
    """Build a node's part and call its ``check``, where it has one.

    Inputs that do not exist yet are left out of its job.
    """
    entry = registry.get(Kind(spec.kind), spec.component, where=f"[{spec.stage}]")
    config = parse(entry.component.config, spec.options, where=f"[{spec.stage}]")
    check = getattr(entry.build(config, where=f"[{spec.stage}]"), "check", None)
    if check is not None:
        chat = ChatFormat.load(ChatConfig.model_validate(spec.chat))
        # One process checks for all that will execute it.
        world = World(size=spec.processes)
        check(make_job(_with_finished_inputs(spec), registry, world, chat, NoProgress()))


def _with_finished_inputs(spec: NodeSpec) -> NodeSpec:
    inputs = {role: path for role, path in spec.inputs.items() if (path / MANIFEST).is_file()}
    return replace(spec, inputs=inputs)


def check_names(plan: Plan, outputs: Path) -> None:
    """Raise where a path is not UTF-8: what a run writes, and Arrow, cannot hold its name."""
    hint = "rename the file or folder; other names inside a folder of data may be anything"
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
