from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selectmoe_core.cost import Workload
from selectmoe_core.errors import RecipeError
from selectmoe_llama.batches import NOTHING, Split, StepSampler, first_fit, pass_tokens, split_batch
from selectmoe_llama.config import LoraTrainingConfig
from selectmoe_llama.plugin import selectmoe_trainers


@pytest.mark.parametrize(
    ("total", "batch", "processes", "expected"),
    [
        (128, None, 1, Split(4, 32, 1)),
        (128, None, 8, Split(4, 4, 8)),
        (6, None, 1, Split(3, 2, 1)),
        (7, None, 7, Split(1, 1, 7)),
        (128, 16, 2, Split(16, 4, 2)),
    ],
)
def test_the_total_batch_is_divided(total, batch, processes, expected):
    config = LoraTrainingConfig(total_batch=total, per_device_batch=batch)
    assert split_batch(config, processes) == expected
    assert expected.total == total


def test_short_examples_go_together():
    config = LoraTrainingConfig(total_batch=48)
    lengths = (10, 50, 100, 150, 300, 999, 5000)
    sizes = [split_batch(config, 1, length, 1000).batch for length in lengths]
    assert sizes == [48, 16, 8, 6, 3, 1, 1]


@pytest.mark.parametrize(
    ("device", "checkpointing", "stated", "expected"),
    [
        ("cpu", False, None, 2048),
        ("cuda", False, None, 4096),
        ("cuda:1", True, None, 8192),
        ("cuda", True, 300, 300),
    ],
)
def test_a_pass_holds_what_the_device_wants(device, checkpointing, stated, expected):
    config = LoraTrainingConfig(activation_checkpointing=checkpointing, pass_tokens=stated)
    assert pass_tokens(config, device) == expected


@pytest.mark.parametrize(
    ("total", "batch", "processes", "what", "hint"),
    [
        (128, None, 3, "128 cannot be divided among 3 processes", "multiple of 3"),
        (12, 5, 1, "12 is not a multiple of per_device_batch = 5", "1, 2, 3, 4, 6, 12"),
        (16, 16, 2, "16 on 2 processes is not a multiple", "1, 2, 4, 8"),
    ],
)
def test_a_total_batch_that_does_not_divide(total, batch, processes, what, hint):
    with pytest.raises(RecipeError, match=what) as caught:
        split_batch(LoraTrainingConfig(total_batch=total, per_device_batch=batch), processes)
    assert hint in caught.value.hint


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=60),
    st.sampled_from([(1, 8, 1), (2, 4, 1), (4, 2, 1), (2, 2, 2), (1, 1, 8)]),
    st.booleans(),
)
def test_the_split_never_changes_which_examples_make_a_step(lengths, split, packing):
    sizes = np.array(lengths)
    plain = list(StepSampler(sizes, Split(8, 1, 1), 3, packing=True))
    sampler = StepSampler(sizes, Split(*split), 3, packing=packing)
    order = list(sampler)
    assert len(order) == len(sampler)
    assert len(order) % (split[0] * split[2]) == 0
    steps = [[n for n in order[at : at + 8] if n != NOTHING] for at in range(0, len(order), 8)]
    wanted = [[n for n in plain[at : at + 8] if n != NOTHING] for at in range(0, len(plain), 8)]
    assert [sorted(step) for step in steps] == [sorted(step) for step in wanted]
    assert sorted(chain(*steps)) == list(range(len(lengths)))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 60))
def test_bins_hold_every_item_once_and_no_more_than_fits(lengths, capacity):
    bins = first_fit(lengths, capacity)
    assert sorted(chain(*bins)) == list(range(len(lengths)))
    assert all(len(b) == 1 or sum(lengths[n] for n in b) <= capacity for b in bins)


def test_cost_counts_the_additions():
    component = selectmoe_trainers()[0]
    llama2 = {
        "num_attention_heads": 32,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
    }
    cost = component.cost(
        LoraTrainingConfig(activation_checkpointing=True),
        Workload(1000, 300_000, False, llama2, "bfloat16"),
    )
    assert cost.tokens == 1_200_000
    assert 15e9 < cost.memory < 24e9
    added = 32 * 4 * 128 * 8192  # layers x projections x r x (inputs + outputs)
    assert cost.disk == 16 * added
    assert cost.flops == pytest.approx(3 * 2 * 6.6e9 * 1.2e6, rel=0.05)
    unknown = component.cost(LoraTrainingConfig(), Workload(10, 100, True, None, "float32"))
    assert (unknown.tokens, unknown.flops) == (400, None)
