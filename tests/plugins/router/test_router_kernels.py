"""The router's Triton kernels beside plain torch, on Triton's interpreter."""

import numpy as np
import pytest
import torch
from triton_interpreter import inside, outside, skip_outside

from selectmoe_core.tokens.encoding import Joined
from selectmoe_router.packed import PackedMeans, packed
from selectmoe_router.reduction import Routing


@outside
def test_kernels_on_the_interpreter():
    child = inside(__file__)
    assert child.returncode == 0, child.stdout[-3000:]
    assert " 1 skipped" in child.stdout, child.stdout[-500:]  # this test alone


@pytest.fixture
def kernels():
    skip_outside()
    from selectmoe_router import kernels

    return kernels


def batch_of(lengths, share, seed):
    """Examples of random tokens, of which a share counts, and at least one of each."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, 99, sum(lengths), dtype=np.int32)
    joined = Joined(tokens, np.zeros(len(tokens), np.uint8), np.cumsum([0, *lengths]))
    mask = random.random(len(tokens)) < share
    mask[joined.starts[:-1]] = True
    return packed(np.arange(len(lengths)), joined, mask)


@pytest.mark.parametrize("lengths", [(1,), (3, 1, 130, 17), (128, 16, 16, 129, 2)])
@pytest.mark.parametrize(
    ("routing", "features"),
    [
        (Routing(13, 3, 4), True),
        (Routing(64, 8, 8), False),
        (Routing(64, 8, 8), True),
        (Routing(16, 0, 4), True),
        (Routing(6, 1, 6), False),
    ],
)
def test_kernels_reduce_like_plain_torch(kernels, monkeypatch, routing, features, lengths):
    seed = int(np.random.SeedSequence().entropy % 2**31)
    batch = batch_of(lengths, 0.5, seed)
    generator = torch.manual_seed(seed)
    outputs = routing.experts + routing.trash
    plain, launched = (PackedMeans(batch, routing, features=features) for _ in "ab")
    monkeypatch.setattr(launched, "_kernels", kernels)
    assert (plain.kernel, launched.kernel) == ("torch", "triton")
    for layer, scale in enumerate((0.1, 1.0, 30.0)):
        logits = torch.randn(len(batch.ids), outputs, generator=generator) * scale
        for means in (plain, launched):
            means.take(layer, logits)
    found, wanted = launched.values, plain.values
    assert found.shape == (3, len(lengths), routing.width(features=features))
    near = torch.isclose(found, wanted.float(), rtol=2e-5, atol=2e-5)
    assert near.all(), f"seed {seed}: {found[~near]} instead of {wanted[~near]}"


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_ties_go_to_regular_experts_and_what_does_not_count_adds_nothing(
    kernels, monkeypatch, scale
):
    routing = Routing(5, 3, 2)
    batch = batch_of((4, 9), 0.5, 1)
    logits = torch.zeros(13, 8)
    logits[:, 6] = scale  # one trash can before all others, or all alike
    logits[batch.counted == 0] = torch.arange(8.0) * 1e4  # all mass on a trash can
    means = PackedMeans(batch, routing, features=False)
    monkeypatch.setattr(means, "_kernels", kernels)
    means.take(0, logits)
    slots = means.values[0, :, routing.statistics.index("trash_slots")]
    sums = means.values[0, :, routing.statistics.index("logit_sum")]
    assert sums.tolist() == [0.0, 0.0]
    assert slots.tolist() == [1.0 if scale == 0 else 0.5] * 2
