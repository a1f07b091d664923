"""Runs that are ended at a random moment, whole or in part, and then run again.

Nothing goes on behind a run that has ended, no half of a result counts as one, a signal that asks a
run to end has its exit code, and the next run comes to the same bytes.
"""

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import uuid4

import psutil

from fuzzing.cases import Area, Report
from fuzzing.chains import MANIFEST, Chain, end_all, leftovers, processes_of, results
from fuzzing.place import faults_of

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGKILL: -9}
WHO = ("run", "run", "child", "all")
"""The run's process, a process of one of its stages, or all of them at once."""
ORPHANS = 60.0
"""Seconds after which what still runs counts as an orphan."""
SLOW = 0.04
"""Seconds that a step of the chain of fakes takes."""
KEPT = "SELECTMOE_FUZZ_KEPT"
"""The variable with the folder in which the processes of a call share what they need once."""
ANY_TIME = 0.25
"""The share of runs that are ended at any time; the others while a stage makes its artifact."""


def run_fake(generator: random.Random, folder: Path) -> Report:
    """End a run of the chain of fakes."""
    chain = Chain.fake(folder / "chain", slow=SLOW)
    return run(generator, folder, chain, whole("fake"))


def run_nano(generator: random.Random, folder: Path) -> Report:
    """End a run of the real chain."""
    chain = Chain.nano(folder / "chain")
    return run(generator, folder, chain, whole("nano"))


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody ended.

    Attributes:
        seconds: how long it took.
        results: what it came to.
        stages: for how many seconds the artifact of each stage was being made.
    """

    seconds: float
    results: dict[str, str]
    stages: dict[str, float] = field(default_factory=dict)

    def moment(self, generator: random.Random, done: Collection[str] = ()) -> "Moment":
        """Draw when to end a run: at any time, or more often within a stage that is not done."""
        left = sorted(self.stages.keys() - set(done))
        if not left or generator.random() < ANY_TIME:
            return Moment("", generator.uniform(0.0, self.seconds))
        stage = generator.choice(left)
        return Moment(stage, generator.uniform(0.0, self.stages[stage]))


@dataclass(frozen=True)
class Moment:
    """So many seconds after a stage has begun its artifact; without one, after the start."""

    stage: str
    after: float

    def __str__(self) -> str:
        return f"{self.after:.2f} s after the start{f' of {self.stage}' if self.stage else ''}"

    def wait(self, process: subprocess.Popen[str], outputs: Path) -> bool:
        """Wait for it and return whether the run is still going on."""
        while self.stage and self.stage not in open_stages(outputs):
            if process.poll() is not None:
                return False
            time.sleep(0.005)
        try:
            process.wait(timeout=self.after)
        except subprocess.TimeoutExpired:
            return True
        return False


def run(generator: random.Random, folder: Path, chain: Chain, undisturbed: Undisturbed) -> Report:
    """End a run once or several times, run it to its end, and compare the results.

    Args:
        generator: decides when, how and whom.
        folder: of the case.
        chain: what is run.
        undisturbed: the same run when nobody ends it.
    """
    report = Report(came="same")
    expected = undisturbed.results
    outputs, mark = folder / "outputs", uuid4().hex
    try:
        for _ in range(generator.choice((1, 1, 1, 2, 3))):
            _end_once(generator, report, chain, outputs, mark, undisturbed)
        said = chain.finish(outputs, mark=mark)
        for kind, what in faults_of(said, (0,)):
            report.fault(f"the run after it: {kind}", what)
    finally:
        end_all(mark)
    found = results(outputs)
    wrong = [name for name in {*found, *expected} if found.get(name) != expected.get(name)]
    if wrong and said.code == 0:
        report.came = "different"
        stages = sorted({name.partition("-")[0] for name in wrong})
        report.fault(f"other results of {', '.join(stages)}", "\n".join(sorted(wrong)))
    if said.code == 0 and (left := leftovers(outputs)):
        report.fault("something is left over", "\n".join(left))
    return report


@functools.cache
def whole(name: str) -> Undisturbed:
    """Run a chain that nobody ends; one process of all does it, the others read what came of it."""
    from filelock import FileLock

    kept = Path(os.environ.get(KEPT) or os.environ["HOME"]) / f"whole-{name}.json"
    with FileLock(f"{kept}.lock"):
        if kept.is_file():
            return Undisturbed(**json.loads(kept.read_text()))
        folder = Path(os.environ["HOME"]) / f"whole-{name}"
        chain = Chain.nano(folder / "chain")
        if name == "fake":
            chain = Chain.fake(folder / "chain", slow=SLOW)
        found = undisturbed(chain, folder / "outputs")
        shutil.rmtree(folder)
        kept.write_text(json.dumps(asdict(found)))
    return found


def undisturbed(chain: Chain, outputs: Path) -> Undisturbed:
    """Run a chain to its end and look on."""
    mark, begun = uuid4().hex, time.monotonic()
    process = chain.start(outputs, mark=mark)
    stages: dict[str, float] = {}
    last = begun
    while process.poll() is None and time.monotonic() - begun < chain.patience:
        time.sleep(0.005)
        now = time.monotonic()
        for stage in open_stages(outputs):
            stages[stage] = stages.get(stage, 0.0) + now - last
        last = now
    end_all(mark)
    if code := process.wait():
        said = _said(outputs.with_name(f"{outputs.name}.said"), 0)
        raise RuntimeError(f"a run that nobody ended ended with {code}:\n{said[-3000:]}")
    return Undisturbed(time.monotonic() - begun, results(outputs), stages)


def _end_once(
    generator: random.Random, report: Report, chain: Chain, outputs: Path, mark: str,
    undisturbed: Undisturbed,
) -> None:  # fmt: skip
    """Start a run, end it or a part of it at a random moment, and look at how it went."""
    moment = undisturbed.moment(generator, stages_done(outputs))
    number = generator.choice(SIGNALS)
    who = generator.choice(WHO)
    log = outputs.with_name(f"{outputs.name}.said")
    before = log.stat().st_size if log.exists() else 0
    process = chain.start(outputs, mark=mark)
    if not moment.wait(process, outputs):
        report.did.append(f"not ended: it was done by {moment}")
        return
    stage = "+".join(sorted(open_stages(outputs))) or "between stages"
    hit = _hit(generator, process, who, number)
    name = signal.Signals(number).name
    report.did.append(f"{name} to {who} ({hit}) {moment} in {stage}")
    report.counts["kills"] = report.counts.get("kills", 0) + 1
    report.counts[f"kills in {stage}"] = report.counts.get(f"kills in {stage}", 0) + 1
    try:
        code = process.wait(timeout=chain.patience)
    except subprocess.TimeoutExpired:
        report.fault(f"the run hangs after {name} to {who} in {stage}", _said(log, before))
        end_all(mark)
        process.wait()
        return
    _judge(report, code, number, who if hit else "nobody", _said(log, before))
    _no_orphans(report, mark, f"{name} to {who}")


def _hit(generator: random.Random, process: subprocess.Popen[str], who: str, number: int) -> str:
    """Send the signal and return whom it reached."""
    try:
        if who == "all":
            os.killpg(process.pid, number)
            return "the process group"
        if who == "run":
            process.send_signal(number)
            return "the run"
        children = psutil.Process(process.pid).children(recursive=True)
        if not children:
            process.send_signal(signal.SIGKILL)
            return ""
        child = generator.choice(children)
        child.send_signal(number)
    except (psutil.Error, ProcessLookupError):
        return ""
    return "a process of a stage"


def _judge(report: Report, code: int, number: signal.Signals, who: str, said: str) -> None:
    """Look at the exit code and at what was said."""
    # Before and after selectmoe itself is at work, Python ends as the signal says: code -n.
    codes = {0, CODES[number], -number}
    expected = codes if who in ("run", "all") else {0, 1, -number, *CODES.values()}
    name = number.name
    if code not in expected:
        report.fault(f"exit code {code} after {name} to {who}", said)
    if "Traceback (most recent call last)" in said:
        report.fault(f"a traceback after {name} to {who}", said)


def _no_orphans(report: Report, mark: str, what: str) -> None:
    last = time.monotonic() + ORPHANS
    while alive := processes_of(mark):
        if time.monotonic() > last:
            told = "\n".join(" ".join(_command(process)) for process in alive)
            report.fault(f"orphans after {what}", told)
            end_all(mark)
            return
        time.sleep(0.05)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return ["gone"]


def open_stages(outputs: Path) -> set[str]:
    """Return the stages whose artifacts are being made."""
    return _stages(outputs, whole=False)


def stages_done(outputs: Path) -> set[str]:
    """Return the stages that have a finished artifact and none that was begun."""
    return _stages(outputs, whole=True) - open_stages(outputs)


def _stages(outputs: Path, *, whole: bool) -> set[str]:
    found = set()
    try:
        for folder in os.scandir(outputs / "store"):
            inner = Path(folder.path)
            is_whole = (inner / MANIFEST).is_file()
            if folder.is_dir() and is_whole == whole and any(inner.iterdir()):
                found.add(folder.name.partition("-")[0])
    except OSError:  # not there yet, or another process has just moved it
        pass
    return found


def _said(log: Path, before: int) -> str:
    return log.read_bytes()[before:].decode("utf-8", "replace")


FAKES = Area("kills", run_fake, seconds=3600.0, own_limit=True, chunk=10)
NANO = Area("nano-kills", run_nano, seconds=3600.0, own_limit=True, chunk=4)
AREA = FAKES
