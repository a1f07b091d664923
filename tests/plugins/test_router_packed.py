"""Packed batches: cut evenly, the same means as padded ones, the same scores through the scorer."""

import numpy as np
import pytest
import torch
from test_router import _job, _score, examples, select_moe  # noqa: F401  (fixtures)

from selectmoe_core import StageError
from selectmoe_core.stages.score import _check_kernel
from selectmoe_olmoe.steps import TorchSteps
from selectmoe_router.packed import PackedMeans, ahead, even, packed
from selectmoe_router.reduction import Routing, TokenMeans


@pytest.mark.parametrize("budget", [1, 64, 512, 10**6])
def test_batches_keep_the_order_and_are_about_equal(budget):
    lengths = np.random.default_rng(budget).integers(1, 60, 300)
    batches = even(lengths, budget)
    assert np.concatenate(batches).tolist() == list(range(300))
    share = lengths.sum() / -(-lengths.sum() // budget)
    assert all(abs(lengths[rows].sum() - share) <= 60 for rows in batches) or budget == 1
    assert even(np.array([], dtype=np.int64), 8) == []


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("trash", [0, 3])
def test_packed_means_equal_padded_means(trash, features):
    random = np.random.default_rng(trash)
    routing = Routing(13, trash, 4)
    ids = [random.integers(0, 50, size) for size in (5, 1, 40, 12)]
    masks = [random.random(len(row)) < 0.6 for row in ids]
    for mask in masks:
        mask[-1] = True
    (batch,) = ahead([np.array([2, 0, 1, 3])], ids, masks, "cpu")
    logits = torch.randn(len(batch.ids), 13 + trash)
    means = PackedMeans(batch, routing, features=features)
    means.take(0, logits)
    for place, row in enumerate(batch.rows):
        start, stop = batch.starts[place : place + 2].tolist()
        assert batch.ids[start:stop].tolist() == ids[row].tolist()
        alone = TokenMeans(torch.from_numpy(masks[row])[None], routing, features=features)
        alone.take(0, logits[start:stop])
        for name, value in alone.means[0].items():
            torch.testing.assert_close(means.means[0][name][place], value[0])
        if features:
            torch.testing.assert_close(means.features[0][place], alone.features[0][0])
    assert packed(np.array([0]), ids, masks, pin=False).longest == 5


def test_a_model_that_reads_packed_sequences_gets_the_same_scores(
    select_moe,  # noqa: F811
    examples,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    job = _job(select_moe, examples, tmp_path)
    options = {"features": True, "batch_tokens": 300, "layers": "first:2"}
    (plain,) = _score(job, examples, **options)
    monkeypatch.setattr("selectmoe_olmoe.packed.obstacle", lambda _: None)
    monkeypatch.setattr("selectmoe_olmoe.packed.TritonSteps", TorchSteps)
    (found,) = _score(job, examples, **options)
    assert plain.kernel == "transformers"
    assert found.kernel.startswith("packed: torch steps")
    assert list(found.skipped) == list(plain.skipped)
    np.testing.assert_allclose(found.score, plain.score, atol=1e-5)
    np.testing.assert_allclose(found.details["layers"], plain.details["layers"], atol=1e-5)
    np.testing.assert_allclose(
        found.features.astype(np.float32), plain.features.astype(np.float32), atol=1e-3
    )


def test_shards_of_two_kernels_do_not_mix():
    _check_kernel([], "a")
    _check_kernel(["a"], "a")
    with pytest.raises(StageError, match="begun with the kernel 'a'"):
        _check_kernel(["a"], "b")
