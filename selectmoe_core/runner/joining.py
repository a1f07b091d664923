"""A worker: it joins a run at any time, makes shards of one stage, and leaves at any time."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from selectmoe_core.errors import RecipeError, StageError, listing
from selectmoe_core.plan.executor import LOCAL
from selectmoe_core.plan.node import SELECTED, Node, Plan
from selectmoe_core.plugin.executor import ThisHost
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.runner.bringing import bring_inputs, say_place
from selectmoe_core.runner.crew import gpus_to_spread
from selectmoe_core.runner.execute import JOINED, join_node
from selectmoe_core.runner.executors import RunExecutor
from selectmoe_core.runner.fresh import names
from selectmoe_core.runner.launch import Launch, execute_in_processes
from selectmoe_core.runner.options import RunOptions
from selectmoe_core.runner.run_folder import folder_like, log_to
from selectmoe_core.runner.specs import Specs
from selectmoe_core.runtime.hardware import Machine, resolve_device
from selectmoe_core.stages.node_spec import NodeSpec

log = logging.getLogger("selectmoe.worker")

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher sets to connect its processes: workers do not connect."""
PLACES = ("LOCAL_RANK", "SLURM_LOCALID")
"""What launchers call the number of a process on its host."""
LOOK, AGAIN = 2.0, 60.0
"""Seconds between two looks at what a worker waits for, and between two lines about it."""


@dataclass(frozen=True)
class Joining:
    """What a worker does.

    Attributes:
        stage: the stage whose shards it makes.
        wait: wait for what the stage reads, where it is not made yet.
        run: the command of the run that it helps, for messages.
        minutes: how long it takes further shards; ``None`` for as long as there are some.
    """

    stage: str
    run: str
    wait: bool = False
    minutes: float | None = None


def join_run(
    plan: Plan,
    registry: Registry,
    options: RunOptions,
    joining: Joining,
    say: Callable[[str], None],
) -> None:
    """Make shards of a stage until all are made, or the time is up.

    Raises:
        RecipeError: the plan has no such stage, or its work cannot be divided.
        StageError: what the stage reads is not made, or the stage failed.
    """
    _Worker(plan, registry, options, joining, say).work()


class _Worker:
    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        options: RunOptions,
        joining: Joining,
        say: Callable[[str], None],
    ) -> None:
        self.plan, self.registry, self.joining, self.say = plan, registry, joining, say
        minutes = joining.minutes
        self.leaves_at = None if minutes is None else time.time() + 60 * minutes
        self.nodes = list(_nodes(plan, joining.stage))
        self.gpu = _own_gpu()
        device = resolve_device(options.device)
        machine = Machine.here(device)
        if self.gpu is None and machine.gpus > 1:
            say(f"{machine.gpus} GPUs are visible; a worker uses one. Start one worker for each.")
        self.folder = _new_folder(options.outputs / plan.recipe.head.name)
        here = RunExecutor(ThisHost(), LOCAL, None)  # whatever executor the run has
        self.specs = Specs(plan, options, device, machine, Launch(1), self.folder, here)

    def work(self) -> None:
        with (
            log_to(self.folder / "run.log"),
            self.plan.store.used(names(self.plan.nodes.values())),
        ):
            log.info("worker: %s", self.specs.options.command)
            say_place(self.specs.options.outputs, self.say)
            for node in self.nodes:
                if not self._finished(node) and self._is_ready(node):
                    self._join(node)

    def _join(self, node: Node) -> None:
        self.say(f"{node.key} {node.entry.component.name}: joins (log: {self.folder / 'run.log'})")
        spec = replace(self.specs.of(node), joins=True, leaves_at=self.leaves_at)
        bring_inputs(self.plan, node)
        if node.uses_torch:
            execute_in_processes(spec, self.folder, Launch(1), lambda: None)
        else:
            join_node(spec, self.registry)
        if not self._finished(node):
            self._say_what_is_left(node, spec)

    def _say_what_is_left(self, node: Node, spec: NodeSpec) -> None:
        from selectmoe_core.stages.scoring.left import shards_left

        left, of = shards_left(spec, self.plan.store)
        run = f"`{self._run()}` finishes the stage"
        if left:
            self.say(f"{node.key}: the time is up, {left} of {of} shards are left; {run}")
        else:
            self.say(f"{node.key}: all {of} shards are made; {run}")

    def _finished(self, node: Node) -> bool:
        done = self.plan.cached(node)
        if done:
            self.say(f"{node.key}: finished already")
        return done

    def _is_ready(self, node: Node) -> bool:
        """Return whether what a node reads is there; wait for it if that was asked for.

        Raises:
            StageError: it is not there, and the worker is not to wait.
        """
        said = 0.0
        cached = self.plan.cached
        while missing := [above.key for above in self.plan.above(node) if not cached(above)]:
            which = listing(missing)
            if not self.joining.wait:
                raise StageError(
                    f"{node.key} reads what is not made yet: {which}",
                    hint=f"run `{self._run(missing[-1])}` first, or start the worker with --wait",
                )
            if self.leaves_at is not None and time.time() > self.leaves_at:
                self.say(f"{node.key}: the time is up; not made yet: {which}")
                return False
            if time.monotonic() - said > AGAIN:
                said = time.monotonic()
                self.say(f"{node.key}: waiting for {which}, which `{self._run()}` makes")
            time.sleep(LOOK)
        return True

    def _run(self, until: str | None = None) -> str:
        """Return the command of the run that this worker belongs to."""
        rest = f" --until {self.plan.nodes[until].stage}" if until else ""
        return f"{self.joining.run}{rest}"


def _nodes(plan: Plan, stage: str) -> Iterator[Node]:
    """Yield the nodes of a stage that workers can make.

    Raises:
        RecipeError: there are none.
    """
    there = [node for node in plan.nodes.values() if node.stage == stage]
    if not there:
        stages = dict.fromkeys(n.stage for n in plan.nodes.values() if n.stage in JOINED)
        why = plan.not_needed.get(stage, "this run has no such stage")
        can = f"workers can join: {', '.join(stages)}" if stages else "workers can join none"
        raise RecipeError(f"--stage {stage}: {why}", hint=can)
    able = [node for node in there if _is_divided(node) and SELECTED in node.arms]
    if not able:
        keys = listing([node.key for node in there])
        raise RecipeError(
            f"--stage {stage}: the work of {keys} is not divided into shards",
            hint="`selectmoe run` makes it in one process",
        )
    for node in able:
        again = [key for key, why in plan.unseen.items() if why and key in _above(plan, node)]
        if again or plan.unseen.get(node.key):
            raise RecipeError(
                f"{node.key} cannot be shared: {listing(again or [node.key])} is made in every run "
                "and never reused",
                hint="`selectmoe plan` says why; write what it reads into a file",
            )
    yield from able


def _is_divided(node: Node) -> bool:
    component = node.entry.component
    return not component.one_process and Need.SCORES not in component.needs(node.config)


def _above(plan: Plan, node: Node) -> set[str]:
    found: set[str] = set()
    stack = [node]
    while stack:
        for above in plan.above(stack.pop()):
            if above.key not in found:
                found.add(above.key)
                stack.append(above)
    return found


def _own_gpu() -> str | None:
    """Let this worker see the GPU that its launcher's number on this host means, if there is one.

    Returns:
        The GPU; ``None`` where no launcher started several processes on this host.
    """
    from selectmoe_core.runtime.hardware import visible_gpus

    place = next((os.environ[name] for name in PLACES if os.environ.get(name)), None)
    for name in LAUNCHED:
        os.environ.pop(name, None)
    count = visible_gpus()
    if place is None or count < 2:
        return None
    gpu = gpus_to_spread("cuda", count)[int(place) % count]
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    return gpu


def _new_folder(recipe: Path) -> Path:
    """Make the folder of this worker: its log and what its process must know."""
    name = f"{time.strftime('%Y-%m-%d-%H-%M-%S')}-{socket.gethostname()}-{os.getpid()}"
    return folder_like(recipe / "workers" / name)
