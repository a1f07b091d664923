"""Before the first stage: every part says what it already knows will not work."""

from dataclasses import replace

from selectmoe_core.config import parse
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.runner.job import make_job
from selectmoe_core.runtime.distributed import World
from selectmoe_core.runtime.progress import NoProgress
from selectmoe_core.stages.job_spec import Work
from selectmoe_core.store import MANIFEST
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat


def check_part(work: Work, registry: Registry) -> None:
    """Build a node's part and call its ``check``, where it has one.

    Inputs that do not exist yet are left out of its job.
    """
    entry = registry.get(Kind(work.kind), work.component, where=f"[{work.stage}]")
    config = parse(entry.component.config, work.options, where=f"[{work.stage}]")
    check = getattr(entry.component.build(config), "check", None)
    if check is not None:
        chat = ChatFormat.load(ChatConfig.model_validate(work.chat))
        # One process checks for all that will carry it out.
        world = World(size=work.processes)
        check(make_job(_with_finished_inputs(work), registry, world, chat, NoProgress()))


def _with_finished_inputs(work: Work) -> Work:
    inputs = {role: path for role, path in work.inputs.items() if (path / MANIFEST).is_file()}
    return replace(work, inputs=inputs)
