"""Many cases over many processes; a case that ends or blocks its process costs that one alone."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fuzzing.artifacts import DAMAGE, FULL, TOGETHER
from fuzzing.cases import Area, Finding, Report, carry_out
from fuzzing.checkpoints import AREA as CHECKPOINTS
from fuzzing.kills import FAKES, NANO
from fuzzing.place import find_plugins, remember_what_stays, settle_environment
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


def chunks(area: Area, seeds: Iterable[int], jobs: int) -> list[Chunk]:
    """Cut the seeds of cases into chunks that keep all processes busy."""
    found: list[Chunk] = []
    seeds = sorted(seeds)
    size = max(1, min(area.chunk, -(-len(seeds) // jobs)))
    for seed in seeds:
        last = found[-1] if found else None
        if last and last.stop == seed and seed - last.start < size:
            found[-1] = Chunk(area.name, last.start, seed + 1)
        else:
            found.append(Chunk(area.name, seed, seed + 1))
    return found


def carry_out_chunk(chunk: Chunk, tell: Callable[[Done], None], base: Path) -> None:
    """Carry out the cases of a chunk in this process, in the folder ``base``, and remove it."""
    _limit_memory()
    # All processes of all cases find the same plugins at the same path of this chunk.
    find_plugins(base / "site")
    settle_environment(base / "home")
    remember_what_stays()
    area = AREAS[chunk.area]
    try:
        for seed in range(chunk.start, chunk.stop):
            folder = base / "case"
            if folder.exists():  # something of the case before could not be removed
                folder.rename(base / f"left by {seed - 1}")
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


def run_chunks(work: list[Chunk], jobs: int, program: Path, until: float) -> Iterator[Done]:
    """Carry out chunks in so many processes and yield what became of each case.

    At the monotonic time ``until`` all processes end; their open cases are as if never begun.
    """
    waiting: queue.Queue[Chunk] = queue.Queue()
    for chunk in work:
        waiting.put(chunk)
    told: queue.Queue[Done | None] = queue.Queue()

    def work_off() -> None:
        while time.monotonic() < until:
            try:
                chunk = waiting.get_nowait()
            except queue.Empty:
                break
            _supervise(chunk, program, until, told.put)
        told.put(None)

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


def _supervise(chunk: Chunk, program: Path, until: float, tell: Callable[[Done], None]) -> None:
    """Carry out a chunk in a process of its own; after a case that ended it, go on in another."""
    area, seed = AREAS[chunk.area], chunk.start
    while seed < chunk.stop and time.monotonic() < until:
        command = [sys.executable, str(program), "--chunk", f"{chunk.area}:{seed}:{chunk.stop}"]
        home = tempfile.mkdtemp(prefix="selectmoe-fuzz-")
        said = Path(home) / "said"
        with said.open("w") as stderr:
            process = subprocess.Popen(
                [*command, "--home", home],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        watch = Watch(process, area.longest + GRACE, until)
        threading.Thread(target=watch.run, daemon=True).start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"case"'):
                done = _read(line)
                watch.last = time.monotonic()
                seed = done.seed + 1
                tell(done)
        code = process.wait()
        last_words = said.read_text(errors="replace")[-4000:] if said.exists() else ""
        _clear(Path(home))
        if seed < chunk.stop and not watch.out_of_time:
            report = Report(came="ended its process")
            report.fault(
                f"the process of a case ended with {code}",
                f"it hung in a library, or crashed\n{last_words}",
            )
            tell(Done(area.name, seed, report.came, {}, report.findings(area.name, seed)))
            seed += 1


@dataclass
class Watch:
    """Ends the process of a chunk when a case takes too long, or when all time is used up."""

    process: subprocess.Popen[str]
    seconds: float
    until: float
    last: float = field(default_factory=time.monotonic)
    out_of_time: bool = False

    def run(self) -> None:
        """Watch until the process ends."""
        while self.process.poll() is None:
            now = time.monotonic()
            self.out_of_time = now > self.until
            if self.out_of_time or now - self.last > self.seconds:
                os.killpg(self.process.pid, signal.SIGKILL)
                return
            time.sleep(0.2)


def _clear(home: Path) -> None:
    """Remove what a chunk left, and end the runs that a killed chunk had started there."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME", "").startswith(f"{home}{os.sep}"):
                process.kill()
        except psutil.Error:
            continue
    for mounted in home.glob("case/outputs"):
        if mounted.is_mount():
            subprocess.run(["umount", "-l", str(mounted)], check=False, capture_output=True)
    shutil.rmtree(home, ignore_errors=True)


def line_of(done: Done) -> str:
    """Return what became of a case as a line for the process that waits."""
    findings = [vars(finding) for finding in done.findings]
    return json.dumps({"case": {**vars(done), "findings": findings}})


def _read(line: str) -> Done:
    value = json.loads(line)["case"]
    return Done(**{**value, "findings": [Finding(**each) for each in value["findings"]]})
