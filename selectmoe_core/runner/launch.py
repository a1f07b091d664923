"""Stages in processes of their own, so that memory and random state do not leak between them."""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from selectmoe_core.config import suggest
from selectmoe_core.errors import RecipeError
from selectmoe_core.plugin.component import SHARED_STAGES
from selectmoe_core.recipe.recipe import STAGES
from selectmoe_core.runner.external_launch import Team
from selectmoe_core.runner.failures import Failure, outcome_path
from selectmoe_core.runtime.processes import INTERRUPTED, bound, interrupts_held
from selectmoe_core.stages.node_spec import WORKER, NodeSpec

LAUNCHER = "selectmoe_core.runner.accelerate_launch"


@dataclass(frozen=True)
class Launch:
    """How the processes of a stage are started.

    Attributes:
        processes: how many share a stage that can be shared; 0 means one per GPU. Any other stage
            has one.
        configs: accelerate's configuration files by stage; ``""`` names the file for all others.
        team: the processes that another launcher started already.
    """

    processes: int = 0
    configs: Mapping[str, Path] = field(default_factory=dict)
    team: Team | None = None

    def on(self, device: str, gpus: int) -> "Launch":
        """Return the settings with the number of processes for a device and a number of GPUs."""
        each_gpu = gpus if device == "cuda" else 1
        return self if self.processes else replace(self, processes=max(1, each_gpu))

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


def execute_in_processes(spec: NodeSpec, run_folder: Path, launch: Launch) -> None:
    """Execute a node in a child process, or in several.

    Raises:
        StageError: with the child's own message; the traceback of an unexpected failure is on
            stderr and in the log.
        KeyboardInterrupt: the child was interrupted.
    """
    spec_file = _save(spec, run_folder, "work")
    if launch.team is not None and spec.processes > 1:
        launch.team.execute(spec_file, spec.key, spec.stage)
        return
    command = bound(WORKER, str(spec_file))
    config = launch.config(spec.stage)
    if spec.processes > 1 or config:
        many = [str(spec_file), str(spec.processes), str(spec.threads)]
        command = bound(LAUNCHER, *many, *([str(config)] if config else []))
    _raise_failure(_run(command), spec_file, spec.key, spec.stage, spec.processes)


def check_in_process(specs: Sequence[NodeSpec], run_folder: Path) -> None:
    """Let the parts of all nodes check what they can, in one child process."""
    files = [_save(spec, run_folder, "check") for spec in specs]
    command = bound(WORKER, "--check", *map(str, files))
    _raise_failure(_run(command), files[0], "the check before the first stage", "check")


def _save(spec: NodeSpec, run_folder: Path, kind: str) -> Path:
    folder = run_folder / "work"
    folder.mkdir(exist_ok=True)
    path = folder / f"{kind}-{spec.key.replace(':', '-')}.json"
    for outcome in (outcome_path(path), *(outcome_path(path, n) for n in range(spec.processes))):
        outcome.unlink(missing_ok=True)
    spec.save(path)
    return path


def _run(arguments: list[str]) -> int:
    with interrupts_held():
        process = subprocess.Popen([sys.executable, *arguments])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # Ctrl-C has reached the child too, other signals have not. It gets time to finish.
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()
            raise


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
