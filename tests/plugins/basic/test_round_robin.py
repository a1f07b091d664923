"""Turns of target tasks, of the pool and of each source, against plain loops over lists."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from selectmoe_basic.config import RoundRobinConfig
from selectmoe_basic.round_robin import RoundRobin
from selectmoe_core import Job, ScoreTable, ShardScores, StageError
from selectmoe_core.data.scores import write_part
from selectmoe_core.stages.select import choose

TASKS = ("arc", "sciq", "zeta")


def drawn_table(folder, random, rows=120, tasks=TASKS) -> tuple[ScoreTable, list[dict]]:
    """A table with ties, skipped rows and rows that a task has no score for."""
    ids = [random.bytes(16) for _ in range(rows)]
    score = random.integers(0, 9, size=rows).astype(float)
    score[random.random(rows) < 0.1] = np.nan
    own = {name: random.integers(0, 7, size=rows).astype(float) for name in tasks}
    for values in own.values():
        values[random.random(rows) < 0.2] = np.nan
    sources = ["abc"[n] for n in random.choice(3, p=[0.6, 0.3, 0.1], size=rows)]
    reasons = ["cut" if np.isnan(value) else None for value in score]
    details = {f"task:{name}": values for name, values in own.items()} | {"other": score * 2}
    for number, part in enumerate(np.array_split(np.arange(rows), 3)):
        write_part(
            folder,
            number,
            pa.array([ids[row] for row in part], pa.binary(16)),
            pa.array([sources[row] for row in part]).dictionary_encode(),
            ShardScores(
                score[part],
                [reasons[row] for row in part],
                {name: values[part] for name, values in details.items()},
            ),
        )
    plain = [
        {"row": n, "id": ids[n], "score": score[n], "source": sources[n]}
        | {name: own[name][n] for name in tasks}
        for n in range(rows)
    ]
    return ScoreTable.open(folder), plain


def plain_turns(rows, tasks, count):
    """Who takes what: each task in turn takes the best row that is left."""
    left = {row["row"]: row for row in rows if not np.isnan(row["score"])}
    found = []
    while len(found) < count:
        before = len(found)
        for task in tasks:
            mine = [row for row in left.values() if not np.isnan(row[task])]
            if mine and len(found) < count:
                best = min(mine, key=lambda row: (-row[task], row["id"]))
                found.append((best["row"], task))
                del left[best["row"]]
        if len(found) == before:
            break
    return found


@pytest.mark.parametrize("tasks", [(), ("zeta", "arc")])
def test_each_task_takes_its_best_row_that_is_left(tmp_path, tasks):
    random = np.random.default_rng()
    for trial in range(20):
        table, plain = drawn_table(tmp_path / str(trial), random)
        k = int(random.integers(1, 60))
        found = RoundRobin(RoundRobinConfig(k=k, tasks=tasks)).select(table, Job(seed=1))
        expected = plain_turns(plain, tasks or TASKS, k)
        assert found.rows.tolist() == [row for row, _ in expected]
        assert found.group.to_pylist() == [task for _, task in expected]
        order = {
            task: sorted(
                (r for r in plain if not np.isnan(r["score"] + r[task])),
                key=lambda r, task=task: (-r[task], r["id"]),
            )
            for task in TASKS
        }
        for (row, task), reason in zip(expected, found.reason.to_pylist(), strict=True):
            rank = [entry["row"] for entry in order[task]].index(row) + 1
            assert reason == f"no. {rank} by {task}"


def test_every_row_is_taken_once_and_a_task_without_rows_left_has_no_turn(tmp_path):
    random = np.random.default_rng()
    table, plain = drawn_table(tmp_path, random, rows=60)
    scored = sum(not np.isnan(row["score"]) for row in plain)
    found = RoundRobin(RoundRobinConfig(k=scored)).select(table, Job(seed=1))
    reached = [
        row["row"]
        for row in plain
        if not np.isnan(row["score"]) and any(not np.isnan(row[task]) for task in TASKS)
    ]
    assert sorted(found.rows.tolist()) == reached
    if len(reached) < scored:
        assert found.warnings == (f"kept {len(reached)} of the {scored} asked for",)


def test_turns_within_each_source_follow_the_quotas(tmp_path):
    random = np.random.default_rng()
    table, plain = drawn_table(tmp_path, random, rows=300)
    config = RoundRobinConfig(k=40, per="source", quota={"c": 0.25})
    found = RoundRobin(config).select(table, Job(seed=1))
    groups = found.group.to_pylist()
    counts = {name: groups.count(name) for name in "abc"}
    assert counts["c"] == 10
    assert sum(counts.values()) == 40
    for name, count in counts.items():
        own = [row for row in plain if row["source"] == name]
        expected = [row for row, _ in plain_turns(own, TASKS, count)]
        kept = [row for row, group in zip(found.rows, groups, strict=True) if group == name]
        assert sorted(kept) == sorted(expected)


def test_a_score_without_tasks_and_a_task_that_is_not_there(tmp_path):
    random = np.random.default_rng()
    table, _ = drawn_table(tmp_path / "none", random, tasks=())
    with pytest.raises(StageError, match="this score has none") as caught:
        RoundRobin(RoundRobinConfig(k=3)).select(table, Job(seed=1))
    assert "[targets]" in caught.value.hint
    table, _ = drawn_table(tmp_path / "some", random)
    with pytest.raises(StageError, match="'scq'") as caught:
        RoundRobin(RoundRobinConfig(k=3, tasks=("scq",))).select(table, Job(seed=1))
    assert "sciq" in caught.value.hint
    with pytest.raises(ValidationError, match="a task twice"):
        RoundRobinConfig(tasks=("a", "a"))
    with pytest.raises(StageError, match="k = 4,000, but only"):
        RoundRobin(RoundRobinConfig(k=4000)).select(table, Job(seed=1))


def test_the_selection_file_has_the_scores_of_every_task(tmp_path):
    table, plain = drawn_table(tmp_path / "scores", np.random.default_rng())
    part = RoundRobin(RoundRobinConfig(k=20))
    choose(part, table, tmp_path, Job(seed=1))
    written = pq.read_table(tmp_path / "selection.parquet").to_pylist()
    assert len(written) == 20
    for row in written:
        for task in TASKS:
            value = plain[row["row"]][task]
            np.testing.assert_equal(row[f"task:{task}"], np.float32(value))
        assert row["cluster"] is None
        assert "other" not in row
