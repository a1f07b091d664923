"""The executor of a run: this host, unless the recipe names another one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from selectmoe_core.errors import RecipeError
from selectmoe_core.plan.executor import LOCAL, bound_executor
from selectmoe_core.plugin.executor import (
    MAPPED_STAGES,
    NodeRun,
    OpenExecutor,
    Place,
    Site,
    ThisHost,
)
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import Recipe
from selectmoe_core.runner.crew import check_parallel
from selectmoe_core.runner.failures import Failure, cause, outcome_path
from selectmoe_core.runner.launch import (
    CHECK,
    Launch,
    check_in_process,
    execute_in_processes,
    save_spec,
    spec_path,
)
from selectmoe_core.runner.options import RunOptions
from selectmoe_core.runtime.hardware import Machine, resolve_device
from selectmoe_core.stages.node_spec import CHECKS, WORKER, NodeSpec


@dataclass(frozen=True)
class RunExecutor:
    """Executes the nodes of a run.

    Attributes:
        part: the opened executor.
        name: its name.
        place: where processes run; ``None`` for this host.
    """

    part: OpenExecutor
    name: str
    place: Place | None

    def started_on(self, options: RunOptions) -> tuple[str, Machine, Launch]:
        """Return the device of the stages, this machine, and how processes are started.

        Raises:
            RecipeError: there is no such device here, or processes would have to share a GPU.
        """
        if self.place is not None:
            return self.place.device, Machine.here(), Launch(self.place.processes)
        device = resolve_device(options.device)
        machine = Machine.here(device)
        launch = check_parallel(options.parallel, options.launch).on(device, machine.gpus)
        if device == "cuda":
            launch.check(machine.gpus)
        return device, machine, launch

    def execute(
        self, spec: NodeSpec, folder: Path, launch: Launch, look: Callable[[], None]
    ) -> None:
        """Execute a node; call ``look`` every moment meanwhile.

        Args:
            spec: the node.
            folder: the run's folder.
            launch: how processes are started on this host.
            look: shows what the processes have reported.

        Raises:
            StageError: with the message of the process that failed.
            KeyboardInterrupt: a process was interrupted.
        """
        run = NodeRun(
            key=spec.key,
            stage=spec.stage,
            device=spec.device,
            processes=spec.processes,
            threads=spec.threads,
            program=(WORKER, str(save_spec(spec, folder, "work"))),
            here=partial(execute_in_processes, spec, folder, launch, look),
            drive=partial(_drive, spec, folder, look),
            ended=partial(_ended, spec, folder),
            look=look,
        )
        (self.part.map if spec.mapped else self.part.gang)(run)

    def check(self, specs: Sequence[NodeSpec], folder: Path, launch: Launch) -> None:
        """Let the parts of all nodes check what they can, in one process where they will run."""
        if self.place is None:
            check_in_process(specs, folder, launch)
            return
        files = [save_spec(spec, folder, "check") for spec in specs]
        # Its outcome is found beside the first file, as that of a node of one process.
        first = replace(specs[0], key=CHECK, processes=1)
        run = NodeRun(
            key=CHECK,
            stage="check",
            device=self.place.device,
            processes=1,
            threads=self.place.threads,
            program=(WORKER, CHECKS, *map(str, files)),
            here=partial(check_in_process, specs, folder, launch),
            drive=partial(_drive, first, folder, lambda: None),
            ended=partial(_ended_at, files[0], CHECK, "check", 1),
        )
        self.part.gang(run)


@contextmanager
def opened_executor(
    recipe: Recipe, registry: Registry, options: RunOptions, say: Callable[[str], None]
) -> Iterator[RunExecutor]:
    """Open the executor that a recipe names.

    Raises:
        RecipeError: options of the command line fit processes of this host alone.
    """
    bound = bound_executor(recipe, registry)
    if bound is None:
        yield RunExecutor(ThisHost(), LOCAL, None)
        return
    site = Site(options.device, options.threads, say)
    with bound.build().open(site) as part:
        name, place = bound.entry.component.name, part.place()
        if place is not None:
            _check_options(name, options)
            say(f"executor {name}: {place.text}")
        yield RunExecutor(part, name, place)


def _check_options(name: str, options: RunOptions) -> None:
    launch = options.launch
    given = {
        "--num-processes": launch.processes and launch.team is None,
        "--accelerate-config": launch.configs,
        "--parallel": options.parallel > 1,
        "another launcher": launch.team is not None,
    }
    for what, there in given.items():
        if there:
            raise RecipeError(
                f"[executor] {name} starts the processes itself: it does not go with {what}",
                hint=f"leave out {what}; `selectmoe describe executor {name}` shows its options",
            )


def _drive(
    spec: NodeSpec,
    folder: Path,
    look: Callable[[], None],
    maker: str,
    options: Mapping[str, Any],
    skip_failed: bool,
) -> None:
    """Execute a node in one process of this host that has its shards made elsewhere."""
    if spec.stage not in MAPPED_STAGES:
        raise RecipeError(f"{spec.key} has no shards", hint="the executor must execute it itself")
    file = spec_path(spec, folder, "work")
    made = {"by": maker, "options": dict(options), "file": str(file), "skip_failed": skip_failed}
    execute_in_processes(replace(spec, processes=1, maker=made), folder, Launch(1), look)


def _ended(spec: NodeSpec, folder: Path, codes: Mapping[int, int]) -> None:
    _ended_at(spec_path(spec, folder, "work"), spec.key, spec.stage, spec.processes, codes)


def _ended_at(file: Path, key: str, stage: str, processes: int, codes: Mapping[int, int]) -> None:
    """Raise the error of the process that failed first, if one did."""
    failures = [
        Failure.of(outcome_path(file, rank if processes > 1 else None), code, rank)
        for rank, code in codes.items()
        if code
    ]
    if failures:
        cause(failures).end_run(key, stage, processes)
