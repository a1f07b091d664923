"""A step shared out among processes has the same batches and the same loss as in one."""

from itertools import chain

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from selectmoe_core.errors import RecipeError
from selectmoe_olmoe.model.losses import balance_loss, trash_share
from selectmoe_olmoe.model.router import select
from selectmoe_olmoe.warmup.batches import (
    NOTHING,
    LengthGroupedSampler,
    Row,
    Split,
    collate,
    split_step,
)
from selectmoe_olmoe.warmup.packed_losses import balance_sum
from selectmoe_olmoe.warmup.packed_rows import collate_packed

BATCH, ACCUMULATION, EXAMPLES = 4, 2, 45
LENGTHS = np.random.default_rng(0).integers(3, 90, EXAMPLES)


def steps(split: Split) -> list[list[set[int]]]:
    """The micro-batches of each step, as the loaders and collators of all processes find them."""
    sampler = LengthGroupedSampler(LENGTHS, split, seed=3)
    shares = BatchSampler(sampler, split.share, drop_last=False)
    count = split.processes
    shards = [BatchSamplerShard(shares, count, rank) for rank in range(count)]
    ranks = [list(shares)] if count == 1 else list(map(list, shards))
    assert len({len(of_rank) for of_rank in ranks}) == 1
    found = []
    for step in zip(*ranks, strict=True):
        cut = [
            [share[at : at + split.batch] for at in range(0, len(share), split.batch)]
            for share in step
        ]
        assert len({len(micro) for micro in cut}) == 1
        if split.parts > 1:
            micro = [list(chain(*parts)) for parts in zip(*cut, strict=True)]
        else:
            micro = [batch for one in zip(*cut, strict=True) for batch in one]
        found.append([set(batch) - {NOTHING} for batch in micro if set(batch) != {NOTHING}])
    return found


@pytest.mark.parametrize(
    ("processes", "split"),
    [(2, Split(4, 1, 2)), (4, Split(1, 2, 4, parts=4)), (1, Split(4, 2))],
)
def test_a_step_has_the_micro_batches_of_one_process(processes, split):
    assert split_step(BATCH * ACCUMULATION, BATCH, processes) == split
    alone, shared = steps(Split(BATCH, ACCUMULATION)), steps(split)
    assert len(shared) == len(alone) == 6
    assert shared == alone  # and in the same order, dealt in turn
    assert sorted(row for step in shared for batch in step for row in batch) == list(range(45))


def test_what_cannot_be_shared_out_is_an_error():
    with pytest.raises(RecipeError, match="neither the 2 micro-batches of a step nor the 4"):
        split_step(BATCH * ACCUMULATION, BATCH, 3)


@pytest.mark.parametrize("over", ["all", "regular", "grouped"])
def test_parts_of_a_batch_sum_to_its_balance_loss(over):
    layers, tokens, experts, top_k = 2, 24, 6, 2
    whole = torch.randn(layers, tokens, experts + 2, requires_grad=True)
    mask = torch.rand(tokens) < 0.7
    wanted = balance_loss(list(whole), mask, experts, top_k, over)
    [gradient] = torch.autograd.grad(wanted, whole)
    halves = (slice(0, 10), slice(10, tokens))
    for packed in (False, True):
        given = [[], []]  # what each process adds to the sums, in its order

        def of(part, gather, packed=packed):
            logits, kept = whole[:, part], mask[part].float()
            if not packed:
                return balance_loss(list(logits), kept, experts, top_k, over, gather)
            index = torch.stack([select(one.softmax(-1), experts, top_k)[1] for one in logits])
            # The sum over a micro-batch is its tokens times its loss.
            total = balance_sum(logits, index, kept[None], experts, over, gather)
            return total / mask.sum()

        for seen, part in zip(given, halves, strict=True):
            of(part, lambda value, seen=seen: seen.append(value.detach()) or value)
        sums = [sum(values) for values in zip(*given, strict=True)]
        assert len(sums) == 2
        losses = []
        for part in halves:
            rest = iter(sums)
            losses.append(of(part, lambda value, rest=rest: next(rest)))
        torch.testing.assert_close(sum(losses), wanted)
        torch.testing.assert_close(torch.autograd.grad(sum(losses), whole)[0], gradient)


def test_no_example_counts_nowhere():
    row = Row(np.arange(5), np.array([0, 0, 1, 1, 1.0]), np.ones(5, bool))
    batch = collate([row, Row.nothing()])
    assert batch["attention_mask"].sum(dim=1).tolist() == [5, 0]
    assert batch["loss_weights"].sum(dim=1).tolist() == [3, 0]
    packed = collate_packed([row, Row.nothing()])
    assert packed["micro"].tolist() == [[1, 1, 1, 1, 1, 0]]
    logits, nobody = [torch.randn(1, 8)], torch.zeros(1)
    assert balance_loss(logits, nobody, 6, 2) == 0
    assert trash_share(logits, nobody, 6, 2).tolist() == [0]
