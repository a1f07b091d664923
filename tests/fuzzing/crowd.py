"""Many cases over many processes; a case that ends or blocks its process costs that one alone."""

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzzing.artifacts import DAMAGE, FULL, TOGETHER
from fuzzing.cases import Area, Finding, Report, carry_out
from fuzzing.checkpoints import AREA as CHECKPOINTS
from fuzzing.kills import FAKES, NANO
from fuzzing.place import find_plugins, settle_environment
from fuzzing.recipes import AREA as RECIPES
from fuzzing.rows import AREA as ROWS

AREAS = {a.name: a for a in (RECIPES, ROWS, CHECKPOINTS, FAKES, NANO, DAMAGE, FULL, TOGETHER)}
GRACE = 120.0
"""Seconds beyond its limit after which the process of a case is ended from outside."""
MEMORY = 8 << 30
"""Bytes of data that a process may take; to want more is a finding."""


@dataclass(frozen=True)
class Chunk:
    """Cases of an area with neighbouring seeds, for one process."""

    area: str
    start: int
    stop: int


@dataclass(frozen=True)
class Done:
    """What became of one case."""

    area: str
    seed: int
    came: str
    counts: dict[str, int]
    findings: list[Finding]


def chunks(area: Area, start: int, count: int, jobs: int) -> list[Chunk]:
    """Cut cases into chunks that keep all processes busy."""
    size = max(1, min(area.chunk, -(-count // jobs)))
    stop = start + count
    return [Chunk(area.name, at, min(at + size, stop)) for at in range(start, stop, size)]


def carry_out_chunk(chunk: Chunk, tell: Callable[[Done], None]) -> None:
    """Carry out the cases of a chunk in this process, in a temporary folder of its own."""
    _limit_memory()
    base = Path(tempfile.mkdtemp(prefix="selectmoe-fuzz-"))
    # All processes of all cases find the same plugins at the same path of this chunk.
    find_plugins(base / "site")
    settle_environment(base / "home")
    area = AREAS[chunk.area]
    try:
        for seed in range(chunk.start, chunk.stop):
            folder = base / "case"
            folder.mkdir()
            report = carry_out(area, seed, folder)
            tell(
                Done(area.name, seed, report.came, report.counts, report.findings(area.name, seed))
            )
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def run_chunks(work: list[Chunk], jobs: int, program: Path) -> Iterator[Done | Chunk]:
    """Carry out chunks in so many processes; yield what became of cases, and finished chunks."""
    waiting: queue.Queue[Chunk] = queue.Queue()
    for chunk in work:
        waiting.put(chunk)
    told: queue.Queue[Done | Chunk | None] = queue.Queue()

    def work_off() -> None:
        while True:
            try:
                chunk = waiting.get_nowait()
            except queue.Empty:
                told.put(None)
                return
            _supervise(chunk, program, told.put)
            told.put(chunk)

    threads = [threading.Thread(target=work_off, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    ended = 0
    while ended < jobs:
        item = told.get()
        if item is None:
            ended += 1
        else:
            yield item


def _supervise(chunk: Chunk, program: Path, tell: Callable[[Done], None]) -> None:
    """Carry out a chunk in a process of its own; after a case that ended it, go on in another."""
    area, seed = AREAS[chunk.area], chunk.start
    while seed < chunk.stop:
        command = [sys.executable, str(program), "--chunk", f"{chunk.area}:{seed}:{chunk.stop}"]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        last = [time.monotonic()]
        watch = threading.Thread(
            target=_watch, args=(process, last, area.seconds + GRACE), daemon=True
        )
        watch.start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"case"'):
                done = _read(line)
                last[0] = time.monotonic()
                seed = done.seed + 1
                tell(done)
        code = process.wait()
        if seed < chunk.stop:
            report = Report(came="ended its process")
            report.fault(
                f"the process of a case ended with {code}", "it hung in a library, or crashed"
            )
            tell(Done(area.name, seed, report.came, {}, report.findings(area.name, seed)))
            seed += 1


def _watch(process: subprocess.Popen[str], last: list[float], seconds: float) -> None:
    while process.poll() is None:
        if time.monotonic() - last[0] > seconds:
            os.killpg(process.pid, 9)
            return
        time.sleep(0.5)


def line_of(done: Done) -> str:
    """Return what became of a case as a line for the process that waits."""
    findings = [vars(finding) for finding in done.findings]
    return json.dumps({"case": {**vars(done), "findings": findings}})


def _read(line: str) -> Done:
    value = json.loads(line)["case"]
    return Done(**{**value, "findings": [Finding(**each) for each in value["findings"]]})
