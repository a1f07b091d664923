"""The process that imports the libraries of stages once, and is copied for each stage.

``python -m selectmoe_core.runner.fork_server REQUESTS ANSWERS``, two open file descriptors: each
line of the one is a request, ``{"arguments": [...], "output": FILE}``. It answers into the other:
``started PID``, and later ``ended PID CODE``.
"""

import gc
import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from selectmoe_core.plugin.loading import LazyPart
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.runner import worker
from selectmoe_core.runner.job import bound
from selectmoe_core.runtime.processes import INTERRUPTED, die_with_parent, interrupts_held
from selectmoe_core.runtime.terminal import safe_streams
from selectmoe_core.stages.node_spec import CHECKS, NodeSpec

REAP = 0.05
"""Seconds between two looks at which copies have ended."""


def main() -> None:
    """Copy this process for each request until there can be no further one."""
    pipes = requested, answers = int(sys.argv[1]), int(sys.argv[2])
    at_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stages
    running: set[int] = set()
    told = b""
    while True:
        if select.select([requested], [], [], REAP)[0]:
            found = os.read(requested, 65536)
            if not found:
                os._exit(0)  # the libraries' own clean-up takes seconds and has no effect
            *requests, told = (told + found).split(b"\n")
            for request in requests:
                pid = _copy(**json.loads(request), pipes=pipes, at_interrupt=at_interrupt)
                running.add(pid)
                os.write(answers, f"started {pid}\n".encode())
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                code = os.waitstatus_to_exitcode(status)
                os.write(answers, f"ended {pid} {code}\n".encode())


def _copy(
    arguments: list[str],
    output: str | None,
    pipes: tuple[int, int],
    at_interrupt: Any,  # noqa: ANN401
) -> int:
    """Start a worker in a copy of this process; return the copy's id."""
    for file in arguments:
        if file != CHECKS:
            with suppress(Exception):  # the worker meets the same error, and reports it
                _import(NodeSpec.load(Path(file)))
    original = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    with interrupts_held():  # until the copy can end without a traceback
        pid = os.fork()
        if pid == 0:
            for pipe in pipes:
                os.close(pipe)
            _run(arguments, output, original, at_interrupt)
    return pid


def _run(
    arguments: list[str],
    output: str | None,
    original: int,
    at_interrupt: Any,  # noqa: ANN401
) -> NoReturn:
    """Be the process of a worker."""
    code = 1
    try:
        die_with_parent(original)
        if output is not None:
            written = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            for file, name, flags in ((0, os.devnull, os.O_RDONLY), (1, output, written)):
                os.dup2(os.open(name, flags, 0o666), file)
            os.dup2(1, 2)
        signal.signal(signal.SIGINT, at_interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with safe_streams():
            code = worker.main(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:  # nothing may return into the loop of the original
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _import(spec: NodeSpec) -> None:
    """Import what the part of a node needs."""
    before = len(sys.modules)
    worker.prepare(spec)
    entry, _ = bound(spec, Registry(load_plugins(spec.disabled)))
    if isinstance(entry.component.build, LazyPart):
        entry.component.build.resolve()
    if len(sys.modules) > before:
        # The copies share these objects, as long as no collector writes into them.
        gc.collect()
        gc.freeze()


if __name__ == "__main__":
    main()
