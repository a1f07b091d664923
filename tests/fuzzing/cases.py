"""What a case is, what it can find, and the limit of time that it has."""

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType


@dataclass(frozen=True)
class Finding:
    """Something that must not happen.

    Attributes:
        area: the area of the case.
        seed: the seed of the case: it alone decides what the case does.
        kind: what is wrong in a few words; findings of one kind have one cause, as a rule.
        what: all that was seen.
        did: what the case did.
    """

    area: str
    seed: int
    kind: str
    what: str
    did: str = ""

    @property
    def again(self) -> str:
        """The command that does it again."""
        return f"python tools/fuzz.py --again {self.area}:{self.seed}"

    def record(self) -> dict[str, object]:
        return {**asdict(self), "again": self.again}


@dataclass
class Report:
    """What became of a case.

    Attributes:
        came: in a word, for the counts: ``fine``, ``refused``, ``same`` and so on.
        did: what the case did, a line for each step.
        faults: the kind and the description of each thing that is wrong.
        counts: what else is counted, such as rows.
    """

    came: str = "fine"
    did: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def fault(self, kind: str, what: str = "") -> None:
        self.faults.append((kind, what))

    def findings(self, area: str, seed: int) -> list[Finding]:
        did = "\n".join(self.did)[:6000]
        return [Finding(area, seed, kind, what[-6000:], did) for kind, what in self.faults]


PATIENCE = 10
"""By the clock a case may take so many times its processor time."""


@dataclass(frozen=True)
class Area:
    """A kind of case.

    Attributes:
        name: names it on the command line.
        run: carries out the case of a seed in an empty folder.
        seconds: how much processor time a case may take before it counts as hanging. On a busy
            machine that is longer; it also counts as hanging after ``PATIENCE`` times as long.
        own_limit: the case has limits of its own: it waits for other processes, so that its
            ``seconds`` are those of a clock.
        chunk: how many cases one process does.
    """

    name: str
    run: Callable[[random.Random, Path], Report]
    seconds: float
    own_limit: bool = False
    chunk: int = 100

    @property
    def longest(self) -> float:
        """How long a case may take by the clock."""
        return self.seconds if self.own_limit else PATIENCE * self.seconds


class TooLong(BaseException):  # no Exception: nothing may catch it on the way
    """A case took longer than it may."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise ``TooLong`` in the block when it takes longer; in the main thread alone.

    The processor time of this process is what counts, so that other processes do not matter; a
    block that waits for something that does not come ends after ``PATIENCE`` times as long.
    """

    def late(number: int, frame: FrameType | None) -> None:
        raise TooLong

    timers = (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, PATIENCE * seconds),
    )
    before = [(number, signal.signal(number, late)) for _, number, _ in timers]
    # Again and again: whatever runs in C at the first time may swallow it.
    for timer, _, limit in timers:
        signal.setitimer(timer, limit, 1.0)
    try:
        yield
    finally:
        for timer, _, _ in timers:
            signal.setitimer(timer, 0)
        for number, handler in before:
            signal.signal(number, handler)


def carry_out(area: Area, seed: int, folder: Path) -> Report:
    """Carry out a case: what it raises and how long it takes are faults too."""
    import traceback

    generator = random.Random(f"{area.name} {seed}")
    report = Report(came="broken")
    ignored: list[str] = []
    try:
        with noticing_ignored(ignored):
            if area.own_limit:
                report = area.run(generator, folder)
            else:
                with within(area.seconds):
                    report = area.run(generator, folder)
    except TooLong as error:
        _end_children()
        report.fault(f"hangs at {place(error)}", "".join(traceback.format_exception(error)))
    except Exception as error:  # whatever it is, it is a finding
        kind = f"{type(error).__name__} at {place(error)}"
        report.fault(kind, "".join(traceback.format_exception(error)))
    for what in ignored:
        report.fault(f"an exception is ignored: {what.splitlines()[0]}", what)
    return report


def _end_children() -> None:
    """End what a case that took too long has started, so that it does not slow down others."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.Error:
            continue


@contextmanager
def noticing_ignored(found: list[str]) -> Iterator[None]:
    """Collect what Python would print as "Exception ignored" in the block."""
    import sys
    import traceback

    def notice(ignored: "sys.UnraisableHookArgs") -> None:
        if ignored.exc_type is TooLong:
            return
        trace = "".join(
            traceback.format_exception(ignored.exc_type, ignored.exc_value, ignored.exc_traceback)
        )
        found.append(f"{ignored.exc_type.__name__} in {type(ignored.object).__name__}\n{trace}")

    before = sys.unraisablehook
    sys.unraisablehook = notice
    try:
        yield
    finally:
        sys.unraisablehook = before


def place(error: BaseException) -> str:
    """Return the innermost place of ours in a traceback."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "selectmoe_" in frame.filename]
    if not (ours or frames):
        return "nowhere"
    frame = (ours or frames)[-1]
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.name}"
