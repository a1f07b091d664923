"""Stores whose files are cut, emptied or lost; full disks; two runs at once.

A run over a damaged store gives the results of a whole one, or says what is damaged.
"""

import functools
import os
import random
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from fuzzing.cases import Area, Report
from fuzzing.chains import MANIFEST, Chain, end_all, results
from fuzzing.place import Said, call, faults_of, working_in

CHAIN_IN_PROCESS = {
    "fake-slow-": "fake-",
    "fake-child-eval": "fake-eval",
    "fake-child": "fake-score",
}
NEEDED = ("pool-", "select-", "evaluate-")
"""What every run checks: results that nothing else is made from, the pool and the selection."""
SMALLEST, LARGEST = 16, 400
"""KiB of the full disks: from none of the chain to all of it."""


def run_damage(generator: random.Random, folder: Path) -> Report:
    """Damage a finished store and run again, as it was or with another selection."""
    report = Report(came="right")
    template, plain, other = _template()
    shutil.copytree(template, folder / "chain", symlinks=True)
    outputs = folder / "chain" / "outputs"
    for _ in range(generator.choice((1, 1, 2))):
        report.did.append(_damage(generator, outputs / "store"))
    arguments = generator.choice(([], [], ["select.fraction=0.5"]))
    report.did.append(f"run again {' '.join(arguments)}")
    said = _run(folder / "chain", *arguments)
    report.counts["damaged"] = 1
    if said.code:
        report.came = "refused"
    for kind, what in faults_of(said, (0, 1, 2)):
        report.fault(kind, what)
    expected = other if arguments else plain
    if said.code == 0:
        found = _wanted(results(outputs), expected)
        # What nothing needs may stay damaged: the scores behind a selection that is whole, say.
        wrong = [
            name
            for name, value in expected.items()
            if name.startswith(NEEDED) and found.get(name) != value
        ]
        if wrong:
            report.came = "wrong"
            stages = sorted({name.partition("-")[0] for name in wrong})
            report.fault(f"exit code 0 over damaged files of {', '.join(stages)}", "\n".join(wrong))
    return report


def _wanted(found: dict[str, str], expected: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in found.items() if name in expected}


@functools.cache
def _template() -> tuple[Path, dict[str, str], dict[str, str]]:
    """Return a finished project, its results, and those of another selection."""
    folder = Path(os.environ["HOME"]) / "damage"
    Chain.fake(folder)
    text = (folder / "recipe.toml").read_text()
    for slow, fast in CHAIN_IN_PROCESS.items():
        text = text.replace(slow, fast)
    (folder / "recipe.toml").write_text(text)
    plain = _finished(folder)
    other = _finished(folder, "select.fraction=0.5")
    shutil.rmtree(folder / "outputs")
    _finished(folder)
    return folder, plain, other


def _finished(folder: Path, *arguments: str) -> dict[str, str]:
    shutil.rmtree(folder / "outputs", ignore_errors=True)
    said = _run(folder, *arguments)
    assert said.code == 0, said.err
    return results(folder / "outputs")


def _run(folder: Path, *arguments: str) -> Said:
    os.environ["FAKE_CHAIN"] = str(folder / "control")
    with working_in(folder):
        return call("run", "recipe.toml", "--quiet", *arguments)


def _damage(generator: random.Random, store: Path) -> str:
    files = [
        p for p in sorted(store.rglob("*")) if p.is_file() and p.suffix not in (".lock", ".owner")
    ]
    if not files:
        return "nothing is left"
    path = generator.choice(files)
    name = path.relative_to(store)
    match generator.choice(("cut", "cut", "empty", "lose", "lose", "lose all", "folder")):
        case "cut":
            content = path.read_bytes()
            path.write_bytes(content[: generator.randrange(len(content) or 1)])
            return f"cut {name}"
        case "empty":
            path.write_bytes(b"")
            return f"empty {name}"
        case "folder":
            path.unlink()
            path.mkdir()
            if generator.random() < 0.5:
                (path / "inner").write_bytes(b"x")
            return f"a folder in the place of {name}"
        case "lose all":
            folder = store / name.parts[0]
            if folder.is_dir() and generator.random() < 0.5:
                shutil.rmtree(folder)
                return f"lose the folder {name.parts[0]}"
            for each in path.parent.iterdir():
                if each.is_file() and each.name != MANIFEST:
                    each.unlink()
            return f"lose all files beside {name}"
    path.unlink()
    return f"lose {name}"


def run_full_disk(generator: random.Random, folder: Path) -> Report:
    """Run on a disk that is too small, then on one with room: the same results."""
    report = Report(came="same")
    chain = Chain.fake(folder / "chain")
    disk = folder / "outputs"
    disk.mkdir()
    size = generator.randint(SMALLEST, LARGEST)
    if not _mounted(disk, size):
        report.came = "skipped: no tmpfs can be mounted here"
        return report
    # The disk holds the outputs and nothing else: what the run says is written beside it.
    mark = uuid4().hex
    try:
        said = chain.finish(disk, mark=mark)
        report.did.append(f"a disk of {size} KiB: exit code {said.code}")
        for kind, what in faults_of(said, (0, 1)):
            report.fault(f"a full disk: {kind}", what)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        said = chain.finish(disk, mark=mark)
        for kind, what in faults_of(said, (0,)):
            report.fault(f"after a full disk: {kind}", what)
        _compare(report, results(disk), "after a full disk")
    finally:
        end_all(mark)
        subprocess.run(["umount", "-l", str(disk)], check=False, capture_output=True)
    return report


def _mounted(disk: Path, size: int) -> bool:
    if os.geteuid():
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def run_together(generator: random.Random, folder: Path) -> Report:
    """Start two or three runs on one store at nearly the same time."""
    report = Report(came="same")
    chain = Chain.fake(folder / "chain", slow=0.02)
    outputs, marks = folder / "outputs", [uuid4().hex for _ in range(generator.choice((2, 2, 3)))]

    def one(mark: str, after: float) -> Said:
        time.sleep(after)
        return chain.finish(outputs, mark=mark)

    try:
        with ThreadPoolExecutor(len(marks)) as pool:
            delays = [generator.choice((0.0, 0.0, generator.random() * 2)) for _ in marks]
            for said in pool.map(one, marks, delays):
                for kind, what in faults_of(said, (0,)):
                    report.fault(f"of runs at once: {kind}", what)
        report.did.append(f"{len(marks)} runs, started after {delays}")
        _compare(report, results(outputs), "of runs at once")
    finally:
        for mark in marks:
            end_all(mark)
    return report


def _compare(report: Report, found: dict[str, str], when: str) -> None:
    from fuzzing.kills import whole

    expected = whole("fake").results
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    if wrong:
        report.came = "different"
        report.fault(f"other results {when}", "\n".join(wrong))


DAMAGE = Area("artifacts", run_damage, seconds=60.0, chunk=60)
FULL = Area("disks", run_full_disk, seconds=3600.0, own_limit=True, chunk=10)
TOGETHER = Area("together", run_together, seconds=3600.0, own_limit=True, chunk=10)
AREA = DAMAGE
