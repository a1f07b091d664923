"""No child outlives its parent, and signals end a block."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selectmoe_core.runtime.processes import (
    Ended,
    bound,
    ended_by_signals,
    interrupts_held,
    not_swallowed,
)

WORK = "import os, time; open('began', 'w').close(); time.sleep({seconds}); open('done', 'w')"
PARENT = """\
import subprocess, sys, time
from selectmoe_core.runtime.processes import bound
child = subprocess.Popen([sys.executable, *bound("slow_work")])
print(child.pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("moment", [0.0, 0.01, 0.03, 0.06, "a", "b", "c", "d"])
def test_a_child_ends_with_its_parent_however_early_that_is_killed(tmp_path, moment):
    moment = random.random() / 3 if isinstance(moment, str) else moment
    (tmp_path / "slow_work.py").write_text(WORK.format(seconds=60))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(moment)
    parent.kill()
    parent.wait()
    last = time.monotonic() + 30
    while alive(child):
        assert time.monotonic() < last
        time.sleep(0.02)
    assert not (tmp_path / "done").exists()


def test_a_child_whose_parent_lives_does_its_work_with_its_arguments(tmp_path):
    (tmp_path / "small_work.py").write_text("import sys; print(__name__, *sys.argv[1:])")
    done = subprocess.run(
        [sys.executable, *bound("small_work", "a", "-b")],
        capture_output=True,
        check=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert done.stdout.split() == ["__main__", "a", "-b"]


def test_a_child_of_a_parent_that_has_gone_does_nothing(tmp_path):
    (tmp_path / "some_work.py").write_text("open('began', 'w')")
    command = bound("some_work")
    command[2] = str(os.getppid())  # not the process that starts it
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, check=False, text=True
    )
    assert done.returncode == 1
    assert "has ended" in done.stderr
    assert not (tmp_path / "began").exists()


CLEAN_UP = """\
import sys, time
try:
    print("began", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("cleaning", flush=True)
    time.sleep(1)
    print("clean", flush=True)
    raise
"""


@pytest.mark.usefixtures("heard")
def test_a_second_interrupt_does_not_disturb_the_clean_up_of_the_first(tmp_path):
    (tmp_path / "long_work.py").write_text(CLEAN_UP)
    child = subprocess.Popen(
        [sys.executable, *bound("long_work")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert child.stdout is not None
    for line in ("began", "cleaning"):
        assert child.stdout.readline().strip() == line
        child.send_signal(signal.SIGINT)
    out, errors = child.communicate(timeout=60)
    assert (out.strip(), errors, child.returncode) == ("clean", "", 130)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_block_as_an_interrupt_with_its_own_code(heard, number, code):
    before = signal.getsignal(number)

    def wait_for_it():
        os.kill(os.getpid(), number)
        time.sleep(5)

    with pytest.raises(Ended) as caught, ended_by_signals():
        wait_for_it()
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("turned_into", [None, ImportError])
def test_what_a_library_makes_of_a_signal_is_an_interrupt_all_the_same(heard, number, turned_into):
    def library():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except BaseException:
            if turned_into:
                raise turned_into("no such module") from None

    with pytest.raises(Ended) as caught, ended_by_signals(), not_swallowed():
        library()
    assert caught.value.exit_code == 128 + number
    with ended_by_signals(), not_swallowed():
        pass  # the earlier signal is over


def test_an_error_without_a_signal_stays_what_it_is():
    with pytest.raises(ImportError), ended_by_signals(), not_swallowed():
        raise ImportError


def test_a_run_that_outlives_its_terminal_goes_on_ignoring_it():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("moment", ["its start", "its imports", "its work"])
def test_an_interrupted_child_ends_without_a_traceback(heard, tmp_path, moment):
    (tmp_path / "imports.py").write_text(
        "import time; open('began', 'w'); time.sleep(30 if 'imports' in open('when').read() else 0)"
    )
    (tmp_path / "work_of_a_child.py").write_text(
        "import imports\nif __name__ == '__main__':\n    imports.time.sleep(30)\n"
    )
    (tmp_path / "when").write_text(moment)
    with interrupts_held():
        child = subprocess.Popen(
            [sys.executable, *bound("work_of_a_child")],
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
            text=True,
        )
    while moment != "its start" and not (tmp_path / "began").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert (child.returncode, said) == (130, "")


def test_what_starts_a_child_gets_its_own_interrupts_again():
    with interrupts_held():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_the_command_line_ends_without_a_traceback_while_it_is_imported(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", "selectmoe_core", "list"],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
