"""Scores by similarity equal slow plain references, row for row."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from selectmoe_core.data.vectors import finish_vectors, write_vectors
from selectmoe_targeted import candidates, ranking
from selectmoe_targeted.candidates import by_similarity, tasks_of
from selectmoe_targeted.config import SimilarityConfig
from selectmoe_targeted.ranking import Tasks, rank
from selectmoe_targeted.sources import Cosines

ROWS, WIDTH = 400, 6


def stored(folder, vectors, size):
    sizes = [len(part) for part in np.split(vectors, range(size, len(vectors), size))]
    start = 0
    for number, count in enumerate(sizes):
        write_vectors(folder, number, vectors[start : start + count], count)
        start += count
    return finish_vectors(folder, sizes)


class Case:
    """A random pool and its targets, and their similarities in float64."""

    def __init__(self, tmp_path, seed, names, *, copies=0, zeros=0):
        draw = np.random.default_rng(seed)
        pool = draw.normal(size=(ROWS, WIDTH))
        if copies:  # ties: some rows are equal
            pool[draw.integers(0, ROWS, copies)] = pool[0]
        pool[draw.permutation(np.arange(1, ROWS))[:zeros]] = 0
        targets = draw.normal(size=(len(names), WIDTH)) + 0.5
        self.vectors = stored(tmp_path / "pool", pool, 37)
        self.targets = stored(tmp_path / "targets", targets, 3)
        self.ids = draw.integers(0, 1 << 62, (ROWS, 2)).astype(np.uint64)
        self.names, self.task_of = tasks_of(names)
        a, b = pool.astype(np.float16), targets.astype(np.float16)
        a, b = a.astype(np.float32), b.astype(np.float32)
        norms = np.linalg.norm(a, axis=1, keepdims=True)
        self.there = norms[:, 0] > 0
        unit = a / np.where(norms > 0, norms, 1)
        self.whole = unit @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
        self.whole[~self.there] = -2

    def found(self, block=64, **options):
        config = SimilarityConfig(block_rows=block, **options)
        source = Cosines(self.vectors, self.targets, "cpu", block)
        moved = []
        found = rank(
            source, Tasks(self.names, self.task_of), config, self.ids, lambda _: moved.append
        )
        assert sum(moved) % ROWS == 0
        return found

    def key(self, row):
        return tuple(self.ids[row])


def plain_turns(case, targets, most):
    """Every target in turn takes the best row that is left; the rest by the largest similarity."""
    left = [row for row in range(ROWS) if case.there[row]]
    taken = []
    while left and len(taken) < most:
        target = targets[len(taken) % len(targets)]
        best = min(left, key=lambda row: (-case.whole[row, target], case.key(row)))
        left.remove(best)
        taken.append(best)
    rest = [row for row in range(ROWS) if row not in set(taken)]
    rest.sort(key=lambda row: (-case.whole[row, targets].max(), case.key(row)))
    return taken + rest


ARC = ["arc"] * 7
BOTH = ["arc", "sciq", "arc", "arc", "sciq", "piqa"]


@pytest.mark.parametrize("depth", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("names", "copies", "zeros"), [(ARC, 0, 0), (ARC, 60, 5), (BOTH, 30, 3)])
def test_ranks_are_those_of_the_plain_round_robin(tmp_path, depth, names, copies, zeros):
    case = Case(tmp_path, 1, names, copies=copies, zeros=zeros)
    found = case.found(depth=depth)
    most = max(1, round(depth * ROWS))
    orders = {}
    for task, name in enumerate(case.names):
        targets = np.flatnonzero(case.task_of == task).tolist()
        orders[name] = plain_turns(case, targets, most)
        expected = np.empty(ROWS)
        expected[orders[name]] = 1 - np.arange(ROWS) / ROWS
        expected[~case.there] = np.nan
        np.testing.assert_array_equal(found.by_task[task], expected)
    together = plain_merge(list(orders.values()), found, case, most)
    expected = np.empty(ROWS)
    expected[together] = 1 - np.arange(ROWS) / ROWS
    expected[~case.there] = np.nan
    np.testing.assert_array_equal(found.score, expected)


def plain_merge(orders, found, case, most):
    """Tasks take turns, each takes the first row of its order that is left."""
    if len(orders) == 1:
        return orders[0]
    taken = []
    while len(taken) < most:
        order = orders[len(taken) % len(orders)]
        taken.append(next(row for row in order if row not in taken))
    places = [{row: place for place, row in enumerate(order)} for order in orders]
    rest = [row for row in range(ROWS) if row not in set(taken)]
    rest.sort(key=lambda row: (min(place[row] for place in places), case.key(row)))
    return taken + rest


def test_lists_that_end_too_early_are_made_again(tmp_path, monkeypatch):
    case = Case(tmp_path, 2, ARC, copies=40)
    whole = case.found(depth=0.9)
    passes = []
    real = Cosines.blocks

    def counted(self):
        passes.append(1)
        return real(self)

    monkeypatch.setattr(Cosines, "blocks", counted)
    monkeypatch.setattr(ranking, "LISTED", 1)
    monkeypatch.setattr(ranking, "MOST_LISTED", 1)
    monkeypatch.setattr(candidates, "SAMPLE", 50)
    monkeypatch.setattr(candidates, "LEAST", 1)
    found = case.found(depth=0.9)
    assert len(passes) > 3
    np.testing.assert_array_equal(found.score, whole.score)


@pytest.mark.parametrize("per_task", ["max", "mean"])
def test_max_and_mean(tmp_path, per_task):
    case = Case(tmp_path, 3, BOTH, zeros=4)
    found = case.found(per_task=per_task)
    for task in range(3):
        own = case.whole[:, case.task_of == task]
        expected = own.max(axis=1) if per_task == "max" else own.mean(axis=1)
        expected[~case.there] = np.nan
        np.testing.assert_allclose(found.by_task[task], expected, atol=1e-6)
    np.testing.assert_array_equal(found.score, found.by_task.max(axis=0))
    np.testing.assert_array_equal(np.isnan(found.score), ~case.there)
    np.testing.assert_array_equal(found.nearest[case.there], case.whole.argmax(1)[case.there])
    np.testing.assert_allclose(found.similarity, case.whole.max(1), atol=1e-6)


@pytest.mark.parametrize("per_task", ["ranks", "max", "mean"])
def test_blocks_equal_the_whole_matrix(tmp_path, per_task):
    case = Case(tmp_path, 4, BOTH)
    whole = case.found(per_task=per_task, block=ROWS)
    for block in (1, 50):
        found = case.found(per_task=per_task, block=block)
        np.testing.assert_allclose(found.score, whole.score, atol=1e-6)
        np.testing.assert_allclose(found.by_task, whole.by_task, atol=1e-6)


def test_equal_similarities_go_by_id():
    ids = np.array([[3, 0], [1, 9], [1, 2], [0, 0], [2, 0]], dtype=np.uint64)
    values = np.array([0.5, 0.5, 0.5, 0.9, 0.1], dtype=np.float32)
    assert by_similarity(values, np.arange(5), ids).tolist() == [3, 2, 1, 0, 4]
    rows = np.array([4, 2, 0])
    assert by_similarity(values[rows], rows, ids).tolist() == [2, 0, 4]


def test_a_target_of_zeros_takes_no_turn(tmp_path):
    case = Case(tmp_path, 5, ARC)
    targets = case.targets.take(range(7)).copy()
    targets[2] = 0
    zero = stored(tmp_path / "zero", targets, 3)
    source = Cosines(case.vectors, zero, "cpu", 64)
    assert source.empty.tolist() == [False, False, True, *[False] * 4]
    given = Tasks(case.names, case.task_of)
    found = rank(source, given, SimilarityConfig(), case.ids, lambda _: lambda _: None)
    without = [0, 1, 3, 4, 5, 6]
    expected = np.empty(ROWS)
    expected[plain_turns(case, without, 100)] = 1 - np.arange(ROWS) / ROWS
    np.testing.assert_array_equal(found.score, expected)


@contextmanager
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_second_run_is_equal_to_the_last_bit(tmp_path):
    case = Case(tmp_path, 6, BOTH, copies=20)
    with one_thread():
        first, second = case.found(per_task="mean"), case.found(per_task="mean")
    assert first.score.tobytes() == second.score.tobytes()
