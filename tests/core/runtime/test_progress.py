"""Progress says what it should and never disturbs the work."""

import sys
from types import SimpleNamespace

import pytest

from selectmoe_core.runtime import progress
from selectmoe_core.runtime.progress import NoProgress, PlainProgress, RichProgress, make_progress


@pytest.mark.parametrize("kind", [NoProgress, PlainProgress, RichProgress])
def test_bars_inside_bars_and_errors(kind, capsys):
    bars = kind()
    for total in (3, None, 0):
        with bars.task("outer", total) as outer, bars.task("inner", 2, "tokens") as inner:
            outer(1)
            inner(2.5)
    with pytest.raises(ZeroDivisionError), bars.task("outer", 3) as outer:
        outer(1 / 0)
    with bars.task("after", 1) as advance:
        advance(1)
    assert capsys.readouterr().out == ""


def test_bars_of_threads_end_in_any_order(capsys):
    bars = RichProgress()
    first, second = bars.task("first", 2), bars.task("second", 2)
    first.__enter__()
    advance = second.__enter__()
    first.__exit__(None, None, None)  # it was there first, and the other still moves
    shown = bars._bars
    assert shown.live.is_started
    advance(1)
    assert [(task.description, task.completed) for task in shown.tasks] == [("second", 1)]
    second.__exit__(None, None, None)
    assert not shown.live.is_started
    assert capsys.readouterr().out == ""


def test_plain_lines_come_now_and_then(capsys, monkeypatch):
    now = iter([100.0, 105.0, 112.0, 113.0, 130.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with PlainProgress().task("score", 200) as advance:
        for _ in range(4):
            advance(20)
    assert capsys.readouterr().err == (
        "  score: 40 of 200 examples, 3/s, 48 s left\n  score: 80 of 200 examples, 3/s, 45 s left\n"
    )


def test_less_than_one_a_second_is_not_shown_as_none(capsys, monkeypatch):
    now = iter([0.0, 25.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with PlainProgress().task("warm-up", 25, unit="steps") as advance:
        advance(1)
    assert capsys.readouterr().err == "  warm-up: 1 of 25 steps, 0.04/s, 600 s left\n"


def test_what_was_done_before_counts_for_no_rate(capsys, monkeypatch):
    now = iter([0.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with PlainProgress().task("score", 1000, done=500) as advance:
        advance(100)
    assert capsys.readouterr().err == "  score: 600 of 1,000 examples, 5/s, 80 s left\n"
    bars = RichProgress()
    with bars.task("score", 1000, done=500) as advance:
        advance(100)
        (shown,) = bars._bars.tasks
        assert (shown.completed, shown.total) == (600, 1000)


def test_plain_lines_without_a_total(capsys, monkeypatch):
    now = iter([0.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with PlainProgress().task("read", None, "rows") as advance:
        advance(5000)
    assert capsys.readouterr().err == "  read: 5,000 rows, 250/s\n"


def test_auto_asks_the_terminal(monkeypatch):
    for terminal, kind in ((True, RichProgress), (False, PlainProgress)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda answer=terminal: answer, raising=False)
        assert isinstance(make_progress("auto"), kind)
    assert isinstance(make_progress("none"), NoProgress)


@pytest.mark.parametrize(
    ("speed", "shown"), [(None, ""), (0.162, "0.16 steps/s"), (1234.4, "1,234 steps/s")]
)
def test_a_bar_shows_slow_work_as_more_than_nothing(speed, shown):
    bars = RichProgress()
    with bars.task("warm-up", 10, "steps"):
        task = SimpleNamespace(speed=speed, fields={"unit": "steps"})
        texts = [
            str(column.render(task)) for column in bars._bars.columns if "Rate" in repr(column)
        ]
    assert texts == [shown]
