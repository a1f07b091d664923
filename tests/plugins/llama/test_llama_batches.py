from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selectmoe_core.cost import Workload
from selectmoe_core.errors import RecipeError
from selectmoe_llama.batches import (
    NOTHING,
    StepSampler,
    balanced,
    neighbours,
    share_of,
)
from selectmoe_llama.config import LoraTrainingConfig, pass_tokens
from selectmoe_llama.plugin import selectmoe_trainers


def test_the_batch_is_divided_among_processes():
    assert share_of(LoraTrainingConfig(batch_size=128), 8) == 16
    with pytest.raises(RecipeError, match="128 cannot be divided among 3 processes") as caught:
        share_of(LoraTrainingConfig(batch_size=128), 3)
    assert "multiple of 3" in caught.value.hint


@pytest.mark.parametrize(
    ("device", "recomputed", "stated", "expected"),
    [
        ("cpu", False, None, 2048),
        ("cpu", True, None, 2048),
        ("cuda:1", False, None, 4096),
        ("cuda", True, None, 8192),
        ("cpu", False, 3, 3),
        ("cuda", True, 3, 3),
    ],
)
def test_a_pass_holds_what_the_device_wants(device, recomputed, stated, expected):
    config = LoraTrainingConfig(pass_tokens=stated, activation_checkpointing=recomputed)
    assert pass_tokens(config, device) == expected


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=60),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 200),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
)
def test_processes_and_passes_never_change_which_examples_make_a_step(
    lengths, processes, tokens, most, packing
):
    sizes = np.array(lengths)
    plain = [place.row for place in StepSampler(sizes, 8, 1, 3, tokens=10**6)]
    sampler = StepSampler(
        sizes, 8 // processes, processes, 3, tokens=tokens, most=most, packing=packing
    )
    order = list(sampler)
    assert len(order) == len(sampler)
    steps = [order[at : at + 8] for at in range(0, len(order), 8)]
    for number, step in enumerate(steps):
        wanted = plain[8 * number : 8 * number + 8]
        assert sorted(place.row for place in step) == sorted(wanted)
        (passes,) = {place.passes for place in step}
        assert all(place.number < passes for place in step)
        share = 8 // processes
        for start in range(0, 8, share):
            for held in range(passes):
                own = [place.row for place in step[start : start + share] if place.number == held]
                own = [lengths[row] for row in own if row != NOTHING]
                cost = sum(own) if packing else len(own) * max(own, default=0)
                assert len(own) < 2 or (cost <= tokens and len(own) <= (most or share))
    assert sorted(place.row for place in order if place.row != NOTHING) == list(range(len(lengths)))


@pytest.mark.parametrize("cut", [balanced, neighbours])
def test_passes_are_few_and_at_least_as_many_as_asked(cut):
    lengths = [9, 9, 8, 7, 7, 6, 5, 5, 4]
    passes = cut(lengths, 20, 99)
    assert sorted(chain(*passes)) == list(range(9))
    assert len(passes) <= 5
    more = cut(lengths, 20, 99, 7)
    assert len(more) == 7
    assert sorted(chain(*more)) == list(range(9))


def test_balanced_passes_cost_alike():
    lengths = sorted(np.random.default_rng(0).integers(20, 400, 128).tolist(), reverse=True)
    sums = [sum(lengths[n] for n in members) for members in balanced(lengths, 8192, 128)]
    assert len(sums) == -(-sum(lengths) // 8192)
    assert max(sums) - min(sums) < 30


def test_cost_counts_the_lora_weights():
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
    narrow = component.cost(
        LoraTrainingConfig(activation_checkpointing=True, quantization="nf4"),
        Workload(1000, 300_000, False, llama2, "bfloat16"),
    )
    # 32 layers of 202 million weights at 16 bits less 4.127
    assert cost.memory - narrow.memory == pytest.approx(32 * 202.4e6 * (2 - 0.516), rel=1e-3)
    assert narrow.disk == cost.disk
    longer = component.cost(
        LoraTrainingConfig(max_steps=100), Workload(1000, 300_000, False, llama2, "bfloat16")
    )
    assert longer.tokens == 100 * 128 * 300  # thirteen epochs: the steps decide, as in training
    unknown = component.cost(LoraTrainingConfig(), Workload(10, 100, True, None, "float32"))
    assert (unknown.tokens, unknown.flops) == (400, None)
