"""Stages as copies of a process with the libraries: separate, reported, and ended with it."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from conftest import LEFT_OUT
from waiting import has, wait_for

from selectmoe_core.errors import StageError
from selectmoe_core.runner.forks import AVAILABLE, Forks

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="stages are copies on Linux alone")


@pytest.fixture
def forks():
    """Forks that are closed at the end."""
    made = Forks()
    yield made
    made.close()


@pytest.fixture
def broken(tmp_path):
    """A node that no process can read, and a file to print to."""
    (tmp_path / "node.json").write_text("{")
    (tmp_path / "printed").touch()
    return tmp_path / "node.json", tmp_path / "printed"


def children_of(pid):
    """The processes that a process has started, of those that live."""
    return [child.pid for child in psutil.Process(pid).children() if alive(child.pid)]


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_copy_reports_how_it_ended_and_prints_to_its_file(forks, broken):
    node, printed = broken
    copies = [forks.start([str(node)], printed) for _ in range(2)]
    assert copies[0].pid != copies[1].pid
    assert [copy.wait(timeout=120) for copy in copies] == [1, 1]
    assert [copy.returncode for copy in copies] == [1, 1]
    assert "Traceback" in printed.read_text()


def test_a_copy_waits_no_longer_than_it_was_told(forks, broken, monkeypatch):
    node, printed = broken
    copy = forks.start([str(node)], printed)
    monkeypatch.setattr(forks, "code_of", lambda _: None)
    with pytest.raises(subprocess.TimeoutExpired):
        copy.wait(timeout=0.1)


def test_without_the_original_there_is_an_error(forks, broken):
    node, printed = broken
    forks.start([str(node)], printed).wait(timeout=120)
    forks._server.kill()
    forks._server.wait()
    with pytest.raises(StageError, match="has ended with -9"):
        forks.start([str(node)], printed)


def test_forks_that_started_nothing_are_closed():
    Forks().close()


class Runs:
    """A run of two stages at a time in a process group of its own."""

    def __init__(self, project):
        command = [sys.executable, "-m", "selectmoe_core", *LEFT_OUT, "run", "recipe.toml"]
        self.process = subprocess.Popen(
            [*command, "--parallel", "2", "-q"], cwd=project.folder, text=True,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        wait_for(lambda: has(project.control / "calls", "convert"), self.process)

    @property
    def original(self):
        [found] = wait_for(lambda: children_of(self.process.pid))
        return found

    def end(self):
        said = self.process.communicate(timeout=120)[1]
        return self.process.returncode, said


def test_ctrl_c_on_a_terminal_ends_the_stages_and_the_run_once(project):
    project.tell("slow", "100")
    run = Runs(project)
    original = run.original
    copies = wait_for(lambda: children_of(original))
    os.killpg(run.process.pid, signal.SIGINT)
    code, said = run.end()
    assert code == 130
    assert "Traceback" not in said
    assert not [pid for pid in (original, *copies) if alive(pid)]


@pytest.mark.parametrize("which", ["stage", "original"])
def test_a_killed_process_ends_the_run_with_an_error(project, which):
    project.tell("slow", "100")
    run = Runs(project)
    original = run.original
    copies = wait_for(lambda: children_of(original))
    for pid in copies if which == "stage" else [original]:
        os.kill(pid, signal.SIGKILL)
    code, said = run.end()
    assert code == 1
    assert "was ended by SIG" + ("KILL" if which == "stage" else "TERM") in said
    assert "Traceback" not in said
    project.tell("slow", "0")
    assert project.run("--parallel", "2").code == 0


def test_stages_end_with_a_killed_run(project):
    project.tell("slow", "100")
    run = Runs(project)
    original = run.original
    copies = wait_for(lambda: children_of(original))
    run.process.kill()
    run.end()
    wait_for(lambda: not [pid for pid in (original, *copies) if alive(pid)])
