"""Before the first stage: every part says what it already knows will not work."""

from dataclasses import replace

from selectmoe_core.config import parse
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
