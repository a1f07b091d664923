"""Stages in processes of their own, so that memory and random state do not leak between them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from selectmoe_core.config import suggest
from selectmoe_core.errors import RecipeError
from selectmoe_core.plugin.component import SHARED_STAGES
from selectmoe_core.recipe.recipe import STAGES
from selectmoe_core.runner.external_launch import Team
from selectmoe_core.runner.failures import Failure, outcome_path
from selectmoe_core.runner.forks import AVAILABLE, Forks
from selectmoe_core.runtime.processes import INTERRUPTED, bound, interrupts_held
from selectmoe_core.stages.node_spec import CHECKS, WORKER, NodeSpec

LAUNCHER = "selectmoe_core.runner.accelerate_launch"
LOOK = 0.2
"""Seconds between two looks at what a child reports."""
CHECK = "the check before the first stage"
GRACE = 20.0
"""Seconds that children have to end after an interrupt."""


@dataclass(frozen=True)
class Launch:
    """How the processes of a stage are started.

    Attributes:
        processes: how many share a stage that can be shared; 0 means one per GPU. Any other stage
            has one.
        configs: accelerate's configuration files by stage; ``""`` names the file for all others.
        team: the processes that another launcher started already.
        forks: makes copies of one process for stages of one process.
    """

    processes: int = 0
    configs: Mapping[str, Path] = field(default_factory=dict)
    team: Team | None = None
    forks: Forks | None = None

    def on(self, device: str, gpus: int) -> "Launch":
        """Return the settings with the number of processes for a device and a number of GPUs."""
        each_gpu = gpus if device == "cuda" else 1
        return self if self.processes else replace(self, processes=max(1, each_gpu))

    @contextmanager
    def forking(self, device: str, parallel: int) -> Iterator["Launch"]:
        """Give the settings with copies of one process, where stages run at the same time."""
        if not AVAILABLE or device != "cpu" or parallel == 1:
            yield self
            return
        forks = Forks()
        try:
            yield replace(self, forks=forks)
        finally:
            forks.close()

    def check(self, gpus: int) -> None:
        """Raise a ``RecipeError`` if processes would have to share the GPUs of this host."""
        if self.sharing > gpus:
            raise RecipeError(
                f"{self.sharing} processes were asked for, but this host has {gpus} visible GPUs",
                hint="each process needs its own GPU: check --num-processes and "
                "CUDA_VISIBLE_DEVICES, or use --device cpu",
            )

    def config(self, stage: str) -> Path | None:
        """Return accelerate's configuration file for a stage, if there is one."""
        return self.configs.get(stage, self.configs.get("")) if stage in SHARED_STAGES else None

    @property
    def sharing(self) -> int:
        """How many processes share this host's cores."""
        return self.team.sharing if self.team else self.processes


def launch_of(processes: int | None, named: Sequence[str], team: Team | None) -> Launch:
    """Return how stages are launched.

    Args:
        processes: the command line's option, if it was given.
        named: accelerate's configuration files, ``FILE`` or ``STAGE=FILE``; the first may say how
            many processes there are.
        team: the processes that another launcher started.

    Raises:
        RecipeError: the options contradict each other, or a file is missing or not accelerate's.
    """
    if team is not None:
        if processes not in (None, team.world.size) or named:
            raise RecipeError(
                f"another launcher has started {team.world.size} processes of this run",
                hint="leave out --num-processes and --accelerate-config, or that launcher",
            )
        return Launch(team.world.size, team=team)
    configs = dict(_config(name) for name in named)
    if processes is None and configs:
        processes = _processes_in(next(iter(configs.values())))
    return Launch(processes or 0, configs)


class Process(Protocol):
    """What a run needs of a process: a ``subprocess.Popen``, or a copy of another process."""

    def poll(self) -> int | None:
        """Return its exit code, or ``None`` while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; raise ``subprocess.TimeoutExpired`` after ``timeout``."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal, if it still runs."""

    def kill(self) -> None:
        """End it at once."""


@dataclass(frozen=True)
class Child:
    """The processes of one node, or the launcher that started them.

    Attributes:
        process: the process that this one started.
        spec: the node.
        spec_file: the node's file, beside which its processes say how they ended.
    """

    process: Process
    spec: NodeSpec
    spec_file: Path

    @property
    def ended(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.process.poll() is not None

    def check(self) -> None:
        """Raise what it failed of, once it has ended.

        Raises:
            StageError: with the child's own message; the traceback of an unexpected failure is on
                stderr and in the log.
            KeyboardInterrupt: the child was interrupted.
        """
        spec = self.spec
        code = self.process.wait()
        _raise_failure(code, self.spec_file, spec.key, spec.stage, spec.processes)


def execute_in_processes(
    spec: NodeSpec, run_folder: Path, launch: Launch, look: Callable[[], None]
) -> None:
    """Execute a node in a child process, or in several; call ``look`` every moment meanwhile.

    Raises:
        StageError: with the child's own message; the traceback of an unexpected failure is on
            stderr and in the log.
        KeyboardInterrupt: the child was interrupted.
    """
    if launch.team is not None and spec.processes > 1:
        launch.team.execute(save_spec(spec, run_folder, "work"), spec.key, spec.stage, look)
        return
    child = start(spec, run_folder, launch)
    with interrupted([child.process]):
        while not child.ended:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(timeout=LOOK)
            look()
    child.check()


def start(
    spec: NodeSpec,
    run_folder: Path,
    launch: Launch,
    gpu: str | None = None,
    printed: Path | None = None,
) -> Child:
    """Start the processes of a node, and return at once.

    Args:
        spec: the node.
        run_folder: the folder of the run.
        launch: how processes are started.
        gpu: the only GPU that it sees; ``None`` for all that this process sees.
        printed: the file that it prints to; ``None`` for where this process prints to.
    """
    spec_file = save_spec(spec, run_folder, "work")
    config = launch.config(spec.stage)
    if spec.processes > 1 or config:
        many = [str(spec_file), str(spec.processes), str(spec.threads)]
        command = bound(LAUNCHER, *many, *([str(config)] if config else []))
        process: Process = _started(command, gpu, printed)
    else:
        process = _worker([str(spec_file)], launch, gpu, printed)
    return Child(process, spec, spec_file)


def _worker(
    arguments: list[str], launch: Launch, gpu: str | None = None, printed: Path | None = None
) -> Process:
    """Start a worker in one process, which is a copy where that was asked for."""
    if launch.forks is not None:
        return launch.forks.start(arguments, printed)
    return _started(bound(WORKER, *arguments), gpu, printed)


def _started(command: list[str], gpu: str | None, printed: Path | None) -> Process:
    environment = None if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
    with ExitStack() as stack:
        output = None if printed is None else stack.enter_context(printed.open("wb"))
        stack.enter_context(interrupts_held())
        return subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=output, stderr=output
        )


@contextmanager
def interrupted(processes: Iterable[Process]) -> Iterator[None]:
    """End the processes if the block is interrupted, and only then let the interrupt go on."""
    try:
        yield
    except KeyboardInterrupt:
        # Ctrl-C has reached the children too, other signals have not. They get time to finish.
        running = [process for process in processes if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGINT)
        last = time.monotonic() + GRACE
        for process in running:
            try:
                process.wait(timeout=max(0.0, last - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()
        raise


def check_in_process(specs: Sequence[NodeSpec], run_folder: Path, launch: Launch) -> None:
    """Let the parts of all nodes check what they can, in one child process."""
    files = [save_spec(spec, run_folder, "check") for spec in specs]
    process = _worker([CHECKS, *map(str, files)], launch)
    with interrupted([process]):
        code = process.wait()
    _raise_failure(code, files[0], CHECK, "check")


def spec_path(spec: NodeSpec, run_folder: Path, kind: str) -> Path:
    """Return the file of a node in a run's folder."""
    return run_folder / "work" / f"{kind}-{spec.key.replace(':', '-')}.json"


def save_spec(spec: NodeSpec, run_folder: Path, kind: str) -> Path:
    """Write the file of a node for its processes, and remove how earlier ones ended.

    Args:
        spec: the node.
        run_folder: the folder of the run.
        kind: ``work``, or ``check`` for the check before the first stage.
    """
    path = spec_path(spec, run_folder, kind)
    path.parent.mkdir(exist_ok=True)
    for outcome in (outcome_path(path), *(outcome_path(path, n) for n in range(spec.processes))):
        outcome.unlink(missing_ok=True)
    spec.save(path)
    return path


def _raise_failure(code: int, spec_file: Path, key: str, stage: str, processes: int = 1) -> None:
    if code == 0:
        return
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    outcome = outcome_path(spec_file)
    # No message was written: the child or the launcher itself was ended.
    Failure.of(outcome, code).end_run(key, stage, processes if outcome.is_file() else 1)


def _config(named: str) -> tuple[str, Path]:
    stage, equals, file = named.partition("=")
    stage, file = (stage, file) if equals else ("", stage)
    if stage and stage not in SHARED_STAGES:
        known = stage in STAGES
        reason = f"[{stage}] runs in one process" if known else "there is no such stage"
        raise RecipeError(
            f"--accelerate-config {named}: {reason}",
            hint=suggest(stage, SHARED_STAGES, otherwise="the stages of several processes"),
        )
    path = Path(file).resolve()
    if not path.is_file():
        raise RecipeError(
            f"--accelerate-config {named}: {path} does not exist",
            hint="create it with `accelerate config --config_file FILE`",
        )
    return stage, path


def _processes_in(config: Path) -> int:
    import yaml  # type: ignore[import-untyped]

    try:
        found = yaml.safe_load(config.read_text(encoding="utf-8"))
        return int(found["num_processes"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(
            f"{config} does not say num_processes: {error}",
            hint="create it with `accelerate config --config_file FILE`, or add --num-processes",
        ) from None
