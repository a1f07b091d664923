"""The router's Triton kernels beside plain torch, on Triton's interpreter."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from triton_interpreter import inside, outside, skip_outside

import selectmoe_router
from selectmoe_core.tokens import packed
from selectmoe_core.tokens.encoding import Joined
from selectmoe_router import packed as packed_module
from selectmoe_router import reduction, statistics
from selectmoe_router.packed import PackedMeans
from selectmoe_router.reduction import ABSENT, Routing
from selectmoe_router.statistics import STATISTICS


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


# ------------------------------------------------------------------- the table and the kernel


def test_the_kernel_has_an_argument_for_each_statistic_and_writes_to_it():
    """Read as text, so that it holds where Triton is not installed."""
    text = (Path(selectmoe_router.__file__).parent / "kernels.py").read_text(encoding="utf-8")
    found = {node.name: node for node in ast.parse(text).body if hasattr(node, "name")}
    kernel = found["of_tokens"]
    taken = {argument.arg for argument in kernel.args.args if argument.annotation is not None}
    table = {entry.name.upper() for entry in STATISTICS} | {"FEATURES"}
    assert taken == table | {"TOP_K", "ROWS", "COLUMNS", "WIDTH"}
    stores = [
        ast.unparse(node.args[0])
        for node in ast.walk(kernel)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "tl.store"
    ]
    assert len(stores) == len(table)
    assert {name for name in table for store in stores if name in store} == table


def test_offsets_are_the_places_of_the_columns():
    names = Routing(6, 2, 3).statistics
    assert names == tuple(entry.name for entry in STATISTICS)
    places = {name.upper(): place for place, name in enumerate(names)}
    assert Routing(6, 2, 3).offsets(features=True) == places | {"FEATURES": len(names)}
    without = Routing(6, 0, 3)
    offsets = without.offsets(features=False)
    assert offsets.pop("FEATURES") == ABSENT
    had = {name: place for name, place in offsets.items() if place != ABSENT}
    assert had == {name.upper(): place for place, name in enumerate(without.statistics)}
    assert offsets.keys() - had.keys() == {"TRASH_MASS", "TRASH_SLOTS"}


@pytest.fixture
def table(monkeypatch):
    """Let a test change the table of statistics."""

    def change(entries):
        changed = tuple(entries)
        for module in (statistics, reduction):
            monkeypatch.setattr(module, "STATISTICS", changed)

    return change


class NothingIsZero:
    """torch, but for ``empty``, which is full of NaN."""

    def __getattr__(self, name):
        return getattr(torch, name)

    def empty(self, *shape, **kind):
        return torch.full(*shape, float("nan"), **kind)


def reduced(routing, kernels, monkeypatch, *, features):
    """Reduce the same logits by plain torch and by kernels, whose memory is NaN before."""
    batch = batch_of((5, 33, 2), 0.7, 3)
    logits = torch.randn(len(batch.ids), routing.experts + routing.trash)
    plain, launched = (PackedMeans(batch, routing, features=features) for _ in "ab")
    monkeypatch.setattr(launched, "_kernels", kernels)
    plain.take(0, logits)
    with monkeypatch.context() as patch:
        patch.setattr(packed_module, "torch", NothingIsZero())
        launched.take(0, logits)
    return plain.values.float(), launched.values


@pytest.mark.parametrize("trash", [0, 3])
@pytest.mark.parametrize("features", [False, True])
def test_another_order_of_the_table_is_the_kernels_too(
    kernels, monkeypatch, table, trash, features
):
    routing = Routing(9, trash, 4)
    straight, _ = reduced(routing, kernels, monkeypatch, features=features)
    table(reversed(STATISTICS))
    turned, launched = reduced(routing, kernels, monkeypatch, features=features)
    count = len(routing.statistics)
    assert routing.statistics == tuple(
        entry.name for entry in reversed(STATISTICS) if trash or not entry.needs_trash
    )
    assert turned.shape == straight.shape
    assert not torch.equal(turned, straight)
    torch.testing.assert_close(launched, turned, rtol=2e-5, atol=2e-5)
    assert launched.shape[-1] == count + (12 if features and trash else 9 if features else 0)


def test_a_statistic_that_the_table_forgot_is_an_error(kernels, monkeypatch, table):
    table(STATISTICS[:-1])
    with pytest.raises(Exception, match="LOGIT_SUM"):
        reduced(Routing(6, 2, 3), kernels, monkeypatch, features=False)
