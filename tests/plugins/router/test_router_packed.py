"""Packed batches: cut evenly, the same means as padded ones, the same scores through the scorer."""

import numpy as np
import pytest
import torch
from test_router import _job, _score, examples, select_moe  # noqa: F401  (fixtures)

from selectmoe_core import Shard, StageError
from selectmoe_core.models import OnItsWay
from selectmoe_core.stages.scoring.score import _check_kernel
from selectmoe_core.tokens import even, moved, packed
from selectmoe_core.tokens.encoding import Joined
from selectmoe_olmoe.fused.ops import TorchSteps
from selectmoe_router.config import RouterConfig
from selectmoe_router.packed import PackedMeans
from selectmoe_router.reduction import Routing, ShardTable, TokenMeans
from selectmoe_router.scorer import RouterScorer

ORDERS = np.arange(40), np.array([7, 3, 4, 5, 39, 0])
"""Rows of the pool, as stretches and out of order."""


@pytest.mark.parametrize("budget", [1, 64, 512, 10**6])
def test_batches_keep_the_order_and_are_about_equal(budget):
    lengths = np.random.default_rng(budget).integers(1, 60, 300)
    batches = even(lengths, budget)
    assert np.concatenate(batches).tolist() == list(range(300))
    share = lengths.sum() / -(-lengths.sum() // budget)
    assert all(abs(lengths[rows].sum() - share) <= 60 for rows in batches) or budget == 1
    assert even(np.array([], dtype=np.int64), 8) == []


def drawn(seed, *, outputs):
    """Examples with tokens that count and tokens that do not, and logits for all of them."""
    random = np.random.default_rng(seed)
    lengths = np.array([5, 0, 1, 40, 12, 137])
    tokens = random.integers(0, 50, lengths.sum(), dtype=np.int32)
    joined = Joined(tokens, np.zeros(len(tokens), np.uint8), np.cumsum([0, *lengths]))
    mask = random.random(len(tokens)) < 0.6
    mask[joined.starts[1:][lengths > 0] - 1] = True
    return joined, mask, torch.randn(len(tokens), outputs, generator=torch.manual_seed(seed))


@pytest.mark.parametrize("rows", [[0], [2, 3, 4], [5, 0, 3, 2]])
@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("trash", [0, 3])
def test_packed_means_equal_padded_means(trash, features, rows):
    routing = Routing(13, trash, 4)
    joined, mask, logits = drawn(trash, outputs=13 + trash)
    batch = moved(packed(np.array(rows), joined, mask), "cpu")
    means = PackedMeans(batch, routing, features=features)
    means.take(0, logits[: len(batch.ids)])
    means.take(1, logits[: len(batch.ids)] * 2)
    assert batch.longest == max(joined.lengths[rows])
    found = OnItsWay(means.values).numpy()
    assert found.shape == (2, len(rows), routing.width(features=features))
    for place, row in enumerate(rows):
        start, stop = batch.starts[place : place + 2].tolist()
        at = slice(*joined.starts[row : row + 2])
        assert batch.ids[start:stop].tolist() == joined.ids[at].tolist()
        assert batch.counted[start:stop].tolist() == mask[at].tolist()
        assert batch.counts[place] == mask[at].sum()
        assert batch.positions[start:stop].tolist() == list(range(stop - start))
        alone = TokenMeans(torch.from_numpy(mask[at])[None], routing, features=features)
        alone.take(0, logits[start:stop])
        alone.take(1, logits[start:stop] * 2)
        np.testing.assert_allclose(found[:, place], alone.values[:, 0], rtol=1e-5, atol=1e-6)


def test_the_table_puts_every_mean_in_its_place():
    routing = Routing(3, 2, 2)
    table = ShardTable(4, 2, routing, features=True)
    statistics = len(routing.statistics)
    width = statistics + 3 + 2  # then the probabilities of the experts and trash cans
    values = np.arange(2 * 3 * width, dtype=np.float32).reshape(2, 3, width)
    rows = np.array([3, 0, 2])
    table.fill(rows, values)
    for place, row in enumerate(rows):
        for number, name in enumerate(routing.statistics):
            assert table.columns[name][row].tolist() == values[:, place, number].tolist()
        assert (
            table.features[row].tolist() == np.concatenate(values[:, place, statistics:]).tolist()
        )
    assert all(np.isnan(column[1]).all() for column in table.columns.values())
    assert np.isnan(table.features[1]).all()


@pytest.mark.parametrize("tokens", ["response", "end", "all"])
def test_a_model_that_reads_packed_sequences_gets_the_same_scores(
    select_moe,  # noqa: F811
    examples,  # noqa: F811
    tmp_path,
    monkeypatch,
    tokens,
):
    job = _job(select_moe, examples, tmp_path)
    options = {"features": True, "batch_tokens": 300, "layers": "first:2", "tokens": tokens}
    (plain,) = _score(job, examples, **options)
    monkeypatch.setattr("selectmoe_olmoe.fused.scoring_pass.obstacle", lambda _: None)
    monkeypatch.setattr("selectmoe_olmoe.fused.scoring_pass.TritonSteps", TorchSteps)
    (found,) = _score(job, examples, **options)
    assert plain.kernel == "transformers"
    assert found.kernel.startswith("packed: torch steps")
    assert list(found.skipped) == list(plain.skipped)
    np.testing.assert_allclose(found.score, plain.score, atol=1e-5)
    np.testing.assert_allclose(found.details["layers"], plain.details["layers"], atol=1e-5)
    np.testing.assert_allclose(
        found.features.astype(np.float32), plain.features.astype(np.float32), atol=1e-3
    )


@pytest.mark.parametrize("way", ["packed", "padded"])
def test_shards_begun_before_others_are_fetched_keep_their_scores(
    select_moe,  # noqa: F811
    examples,  # noqa: F811
    tmp_path,
    monkeypatch,
    way,
):
    if way == "packed":
        monkeypatch.setattr("selectmoe_olmoe.fused.scoring_pass.obstacle", lambda _: None)
        monkeypatch.setattr("selectmoe_olmoe.fused.scoring_pass.TritonSteps", TorchSteps)
    job = _job(select_moe, examples, tmp_path)
    with RouterScorer(RouterConfig(batch_tokens=200)).open(job) as scorer:
        cuts = [Shard(number, rows, ()) for number, rows in enumerate(ORDERS)]
        wanted = [scorer.score(shard) for shard in cuts]
        begun = [scorer.begin(shard) for shard in cuts]
        found = [scores() for scores in reversed(begun)][::-1]
    for one, other in zip(found, wanted, strict=True):
        assert one.kernel == other.kernel
        assert one.skipped == other.skipped
        np.testing.assert_array_equal(one.score, other.score)
        np.testing.assert_array_equal(one.details["layers"], other.details["layers"])
    whole = np.concatenate([one.score for one in found])
    assert np.isnan(whole).sum() == 2  # example 7, twice
    np.testing.assert_allclose(found[1].score, found[0].score[ORDERS[1]], atol=1e-5)


def test_a_cpu_gets_smaller_batches_than_a_gpu():
    assert RouterConfig().tokens_at_once("cpu") < RouterConfig().tokens_at_once("cuda:1")
    assert RouterConfig(batch_tokens=7).tokens_at_once("cuda") == 7


def test_shards_of_two_kernels_do_not_mix():
    _check_kernel([], "a")
    _check_kernel(["a"], "a")
    with pytest.raises(StageError, match="begun with the kernel 'a'"):
        _check_kernel(["a"], "b")
