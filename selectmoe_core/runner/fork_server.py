"""The process that imports the libraries of stages once, and is copied for each stage.

``python -m selectmoe_core.runner.fork_server``: each line that it reads is a request, ``{"node":
FILE, "output": FILE}``. It answers ``started PID``, and later ``ended PID CODE``.
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
from selectmoe_core.stages.node_spec import NodeSpec

REAP = 0.05
"""Seconds between two looks at which copies have ended."""


def main() -> None:
    """Copy this process for each request until there can be no further one."""
    at_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stages
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints while it is imported is no answer
    running: set[int] = set()
    told = b""
    while True:
        if select.select([0], [], [], REAP)[0]:
            found = os.read(0, 65536)
            if not found:
                os._exit(0)  # the libraries' own clean-up takes seconds and has no effect
            *requests, told = (told + found).split(b"\n")
            for request in requests:
                pid = _copy(**json.loads(request), at_interrupt=at_interrupt)
                running.add(pid)
                os.write(answers, f"started {pid}\n".encode())
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                code = os.waitstatus_to_exitcode(status)
                os.write(answers, f"ended {pid} {code}\n".encode())


def _copy(node: str, output: str, at_interrupt: Any) -> int:  # noqa: ANN401
    """Start a stage in a copy of this process; return the copy's id."""
    with suppress(Exception):  # the stage meets the same error, and reports it
        _import(NodeSpec.load(Path(node)))
    original = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    with interrupts_held():  # until the copy can end without a traceback
        pid = os.fork()
        if pid == 0:
            _run(node, output, original, at_interrupt)
    return pid


def _run(node: str, output: str, original: int, at_interrupt: Any) -> NoReturn:  # noqa: ANN401
    """Be the process of a stage."""
    code = 1
    try:
        die_with_parent(original)
        for file, name, flags in ((0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY)):
            os.dup2(os.open(name, flags), file)
        os.dup2(1, 2)
        signal.signal(signal.SIGINT, at_interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with safe_streams():
            code = worker.main([node])
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
