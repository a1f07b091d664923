"""The embedder: its contract, its vectors beside the slow reference, and what it refuses."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from less_reference import less_vectors
from less_warm_up import make_warm_up
from llama_models import conversations, job, llama, options, train

from selectmoe_core import ModelError, Shard, StageError
from selectmoe_core.models.models import Models
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_core.testing import check_embedder, check_plugin
from selectmoe_core.tokens.encoding import encode
from selectmoe_gradient.checkpoints import shares
from selectmoe_gradient.config import LoraGradientsConfig
from selectmoe_gradient.embedder import LoraGradients
from selectmoe_gradient.plugin import selectmoe_embedders

WIDTH, SEED = 128, 11


@pytest.fixture(scope="module")
def warm_up(tmp_path_factory):
    return make_warm_up(tmp_path_factory.mktemp("warm-up"))


def embed(warm_up, folder, examples, role, **options):
    made = job(
        folder,
        seed=SEED,
        inputs=Inputs(model=warm_up.adapter, checkpoints=warm_up.folder),
        models=Models(),
    )
    encoded = {}

    def tokens(tokenizer):
        if not encoded:
            encoded["made"] = encode(examples, folder / "encoded", made.chat, tokenizer)
        return encoded["made"]

    made = replace(made, encoded=tokens)
    config = LoraGradientsConfig(**{"dimensions": WIDTH} | options)
    with LoraGradients(config).open(made, role) as embedder:
        vectors = embedder.embed(Shard(0, np.arange(len(examples)), examples))
    return vectors, encoded["made"]


def masked(encoded):
    rows = []
    for example in encoded:
        counted = np.array(encoded.chat.counts(example.parts))
        counted[:1] = False
        ids = torch.from_numpy(np.array(example.ids, dtype=np.int64))
        rows.append((ids, torch.from_numpy(counted)))
    return rows


def test_the_plugin_follows_the_rules():
    check_plugin("selectmoe_gradient.plugin")


def test_the_embedder_keeps_its_contract(warm_up):
    (component,) = selectmoe_embedders()
    check_embedder(
        component,
        options={"dimensions": 64},
        examples=conversations(9, seed=5),
        model=warm_up.adapter.location,
        checkpoints=warm_up.folder,
    )


@pytest.mark.parametrize("role", ["pool", "target"])
@pytest.mark.parametrize(
    ("kind", "rule"),
    [("count-sketch", "paper"), ("count-sketch", "released-code"), ("rademacher", "paper")],
)
def test_vectors_equal_the_slow_reference_row_for_row(warm_up, tmp_path, role, kind, rule):
    examples = conversations(6, seed=21)
    found, encoded = embed(
        warm_up, tmp_path, examples, role, projection=kind, preconditioner=rule, pass_tokens=90
    )
    how = {"kind": kind, "width": WIDTH, "seed": SEED, "rule": rule}
    base = Models().load(warm_up.base, dtype="float32", device="cpu")
    expected = less_vectors(base, warm_up.kept, masked(encoded), pool=role == "pool", how=how)
    rates = [checkpoint.mean_learning_rate for checkpoint in warm_up.kept]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0  # though the last step's rate is nearly zero
    assert found.shape == (6, 3 * WIDTH)
    assert found.dtype == np.float16
    for number, (block, rate) in enumerate(zip(expected, rates, strict=True)):
        made = found[:, number * WIDTH : (number + 1) * WIDTH].astype(np.float64)
        np.testing.assert_allclose(made, block * (rate / sum(rates)) ** 0.5, atol=4e-4)
    np.testing.assert_allclose(np.linalg.norm(found.astype(np.float64), axis=1), 1, atol=1e-3)


def test_gradients_of_targets_are_not_preconditioned(warm_up, tmp_path):
    examples = conversations(3, seed=2)
    pool, _ = embed(warm_up, tmp_path / "a", examples, "pool")
    target, _ = embed(warm_up, tmp_path / "b", examples, "target")
    assert np.abs(pool - target).max() > 0.05


def test_an_example_without_a_counted_token_has_a_vector_of_zeros(warm_up, tmp_path):
    examples = conversations(3, seed=2)
    examples[1] = type(examples[1])(examples[1].id, "test", examples[1].messages[:1])
    found, _ = embed(warm_up, tmp_path, examples, "pool")
    assert found[1].any() == 0
    assert found[0].any()
    assert found[2].any()


def test_shares_are_those_of_the_mean_learning_rates(warm_up):
    rates = [checkpoint.mean_learning_rate for checkpoint in warm_up.kept]
    assert shares(warm_up.kept) == pytest.approx([rate / sum(rates) for rate in rates])
    still = [replace(checkpoint, mean_learning_rate=0.0) for checkpoint in warm_up.kept]
    assert shares(still) == pytest.approx([1 / 3] * 3)


def test_a_warm_up_that_kept_nothing_is_an_error(warm_up, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match="kept none") as caught:
        embed(replace(warm_up, folder=tmp_path / "empty"), tmp_path, conversations(2), "pool")
    assert 'checkpoint_every = "epoch"' in caught.value.hint


def test_moments_that_are_missing_are_an_error(warm_up, tmp_path):
    from safetensors.torch import load_file, save_file

    from selectmoe_core.training.kept import KeptCheckpoint

    folder = tmp_path / "copied"
    shutil.copytree(warm_up.folder, folder)
    for checkpoint in warm_up.kept:
        own = folder / "kept" / checkpoint.folder.name
        moments = load_file(own / "moments.safetensors")
        del moments[sorted(moments)[0]]
        save_file(moments, own / "moments.safetensors")
        KeptCheckpoint(**vars(checkpoint) | {"folder": own}).write()
    with pytest.raises(StageError, match="has no moments of"):
        embed(replace(warm_up, folder=folder), tmp_path, conversations(2), "pool")
    embed(replace(warm_up, folder=folder), tmp_path / "target", conversations(2), "target")


def test_another_model_than_the_warm_ups_is_refused(warm_up, tmp_path):
    other = llama(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="but the warm-up trained"):
        embed(replace(warm_up, adapter=other), tmp_path, conversations(2), "pool")
    vectors, _ = embed(replace(warm_up, adapter=warm_up.base), tmp_path, conversations(2), "pool")
    assert vectors.any()


def test_checkpoints_of_two_trainings_are_refused(warm_up, tmp_path):
    config = options(checkpoint_every=1, max_steps=1, lora_rank=2)
    train(warm_up.base, conversations(8), tmp_path / "other", config)
    folder = tmp_path / "mixed"
    shutil.copytree(warm_up.folder, folder)
    other = tmp_path / "other" / "checkpoints" / "kept" / "checkpoint-1"
    shutil.copytree(other, folder / "kept" / "checkpoint-1")
    with pytest.raises(ModelError, match="different LoRA weights"):
        embed(replace(warm_up, folder=folder), tmp_path, conversations(2), "target")


def test_float16_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(StageError, match="float16"):
        LoraGradients(LoraGradientsConfig()).check(job(tmp_path, dtype="float16"))
