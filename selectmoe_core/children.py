"""Stages in processes of their own, so that memory and random state do not leak between them."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selectmoe_core.errors import RecipeError, SelectMoEError, StageError
from selectmoe_core.stages.work import Work
from selectmoe_core.stages.worker import BUG, INTERRUPTED

WORKER = "selectmoe_core.stages.worker"


def run_child(work: Work, run_folder: Path, *, processes: int = 1) -> None:
    """Carry out a node in a child process, or in several through ``accelerate launch``.

    Raises:
        StageError: with the child's own message; a failure nobody foresaw has its traceback on
            stderr and in the log.
        KeyboardInterrupt: the child was interrupted.
    """
    order = _order(work, run_folder, "work")
    command = [sys.executable, "-m", WORKER, str(order)]
    if processes > 1:
        launch = ["-m", "accelerate.commands.launch", "--num_processes", str(processes)]
        kind = ["--cpu"] if work.device == "cpu" else ["--multi_gpu"]
        command = [sys.executable, *launch, *kind, "-m", WORKER, str(order)]
    _finish(_call(command), order, work.key, work.stage)


def check_children(works: Sequence[Work], run_folder: Path) -> None:
    """Let the parts of all nodes check what they can, in one process."""
    orders = [_order(work, run_folder, "check") for work in works]
    command = [sys.executable, "-m", WORKER, "--check", *map(str, orders)]
    _finish(_call(command), orders[0], "the check before the first stage", "check")


def _order(work: Work, run_folder: Path, kind: str) -> Path:
    folder = run_folder / "work"
    folder.mkdir(exist_ok=True)
    path = folder / f"{kind}-{work.key.replace(':', '-')}.json"
    outcome = path.with_suffix(".error")
    outcome.unlink(missing_ok=True)
    replace(work, outcome=outcome).save(path)
    return path


def _call(command: list[str]) -> int:
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal has sent it to the child too: give it the time to end well.
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()
            raise


def _finish(code: int, order: Path, key: str, stage: str) -> None:
    if code == 0:
        return
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    outcome = order.with_suffix(".error")
    if outcome.is_file():
        told = json.loads(outcome.read_text(encoding="utf-8"))
        raise _error(code, key, told["what"], told["hint"])
    if code < 0:
        name = signal.Signals(-code).name
        memory = " (out of memory?)" if name == "SIGKILL" else ""
        raise StageError(
            f"{key}: its process was ended by {name}{memory}",
            hint="run again to go on from where it was; a smaller batch needs less memory",
        )
    raise StageError(f"{key}: its process ended with code {code}", hint=f"see run.log ({stage})")


def _error(code: int, key: str, what: str, hint: str) -> SelectMoEError:
    if code == BUG:
        return StageError(
            f"{key}: {what} (a bug of selectmoe, a plugin or a library: the traceback is above and "
            "in run.log)",
            hint="run again to go on from where it was; please report it",
        )
    if code == RecipeError.exit_code:
        return RecipeError(f"{key}: {what}", hint=hint)
    return StageError(f"{key}: {what}", hint=hint)
