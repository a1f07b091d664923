"""Where a pool is cut: every row once, by work, the last shards small, the same when resumed."""

import json
import random
from types import SimpleNamespace

import pytest

from selectmoe_core.cost import DEVICES, Cost
from selectmoe_core.stages.scoring.cuts import LAST, LEAST, LEAST_ON_CPU, cuts, shards_of
from selectmoe_core.store import Store

CHARACTERS = 400
"""Of each example: about 100 tokens."""


class FakePool:
    """So many examples of one source."""

    def __init__(self, examples):
        self.examples = examples
        size = {"prompt_characters": 100 * examples, "response_characters": 300 * examples}
        self.sources = {"some": SimpleNamespace(**size)}

    def __len__(self):
        return self.examples


def context_of(folder, *, device="cpu", wanted=None, seconds=None, threads=1, torch=True):
    """A scorer that needs so many seconds an example on the device that the core estimates for."""
    name = DEVICES["cpu" if device == "cpu" else "h100"]
    rate = name.flops * name.share * (threads if device == "cpu" else 1)

    def cost(_, workload):
        assert workload.tokens == workload.examples * CHARACTERS / 4
        return Cost(flops=seconds * rate * workload.examples)

    return SimpleNamespace(
        folder=folder,
        store=Store(folder),
        config=None,
        spec=SimpleNamespace(
            stage="score",
            own={"shard_examples": wanted},
            chat={"max_length": 2048},
            device=device,
            dtype="float32",
            threads=threads,
        ),
        component=SimpleNamespace(
            cost=None if seconds is None else cost, torch=torch, needs=lambda _: frozenset()
        ),
        job=None,  # the scorer reads no model
    )


def sizes(found):
    return [stop - start for _, start, stop in found]


def test_every_row_is_in_one_shard_and_the_last_shards_are_small():
    rng = random.Random()
    for _ in range(200):
        rows, size = rng.randrange(1, 5000), rng.randrange(1, 300)
        least = rng.choice([None, rng.randrange(1, size + 1)])
        found = list(cuts(rows, size, least))
        assert [number for number, _, _ in found] == list(range(len(found)))
        assert [row for _, start, stop in found for row in range(start, stop)] == list(range(rows))
        lengths = sizes(found)
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] <= size
        assert least is None or len(found) == 1 or lengths[-1] <= max(least, rows // LAST)
    assert sizes(cuts(20, 8)) == [8, 8, 4]
    assert sizes(cuts(40, 4, 1)) == [4, 4, 4, 3, 3, 2, 2, 2, 2] + [1] * 14


@pytest.mark.parametrize(
    ("examples", "size"),
    [(270_000, 2048), (10_000_000, 10_000), (10**8, 65_536)],
)
def test_shards_grow_with_the_pool(tmp_path, examples, size):
    assert sizes(shards_of(context_of(tmp_path, device="cuda"), FakePool(examples)))[0] == size


@pytest.mark.parametrize(
    ("device", "seconds", "size"),
    [
        ("cpu", 1.0, 40),  # a slow scorer on a CPU: forty seconds a shard
        ("cpu", 0.001, LEAST_ON_CPU),  # a fast one
        ("cpu", 1000.0, 16),
        ("cuda", 0.001, LEAST),
        ("cuda", 0.1, 600),
        ("cuda", 10.0, 256),  # a GPU is not given fewer
        ("cpu", None, LEAST_ON_CPU),  # nobody knows
        ("cuda", None, LEAST),
    ],
)
def test_a_shard_is_at_most_about_a_minute_of_work(tmp_path, device, seconds, size):
    found = shards_of(context_of(tmp_path, device=device, seconds=seconds), FakePool(100_000))
    assert sizes(found)[0] == pytest.approx(size, abs=1)
    assert sizes(found)[-1] <= max(size // LAST, 1)


def test_a_scorer_without_a_model_has_large_shards_on_a_cpu_too(tmp_path):
    assert sizes(shards_of(context_of(tmp_path, torch=False), FakePool(10_000)))[0] > LEAST_ON_CPU


def test_a_recipe_that_says_how_many_is_followed_to_the_end(tmp_path):
    found = shards_of(context_of(tmp_path, wanted=7, seconds=100.0), FakePool(30))
    assert sizes(found) == [7, 7, 7, 7, 2]


def test_a_resumed_stage_keeps_its_cuts(tmp_path):
    before = shards_of(context_of(tmp_path, seconds=0.1), FakePool(5000))
    for other in ({"wanted": 3}, {"seconds": 2.0}, {"device": "cuda"}):
        assert shards_of(context_of(tmp_path, **other), FakePool(5000)) == before
    # One that was begun before the last shards were small.
    (tmp_path / "shards.json").write_text(json.dumps({"examples": 2048}))
    assert sizes(shards_of(context_of(tmp_path), FakePool(5000))) == [2048, 2048, 904]
