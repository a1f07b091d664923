"""The contrast around damaged places: which tokens it reads, and its loss, the slow way."""

import math

import numpy as np
import pytest
import torch
from olmoe_contrasts import conversations, slow_joint, slow_logit, softplus
from olmoe_stage import example, gradient

from selectmoe_core.data.examples import Part
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import EncodedExample
from selectmoe_olmoe.fused.training_ops import TorchTrainingSteps
from selectmoe_olmoe.warmup import parts
from selectmoe_olmoe.warmup.pairs import damaged_places
from selectmoe_olmoe.warmup.trainable import gates

pytest_plugins = ["olmoe_fixtures"]

OFF = {"lm_weight": 0.0, "router_aux_loss_coef": 0.0, "contrastive": True}


def encoded(ids, answer):
    """Return tokens of which those at and behind ``answer`` are the answer."""
    kinds = [Part.PROMPT] * answer + [Part.RESPONSE] * (len(ids) - answer)
    return EncodedExample(np.array(ids, dtype=np.int32), np.array(kinds, dtype=np.uint8), cut=False)


def places_of(one, other, answer=0, window=1):
    found = damaged_places(encoded(one, answer), encoded(other, answer), window)
    return found and tuple(mask.nonzero()[0].tolist() for mask in found)


def test_a_place_is_what_lies_between_the_common_ends_and_a_little_more():
    assert places_of([1, 2, 3, 4, 5], [1, 2, 9, 4, 5]) == ([2, 3], [2, 3])
    assert places_of([1, 2, 3, 4, 5], [1, 2, 9, 8, 4, 5]) == ([2, 3], [2, 3, 4])
    # Something is missing, or added: the token behind it shows it.
    assert places_of([1, 2, 3, 4, 5], [1, 2, 5]) == ([2, 3, 4], [2])
    assert places_of([1, 2, 5], [1, 2, 3, 4, 5]) == ([2], [2, 3, 4])
    # A repeated token is counted once, from the front.
    assert places_of([1, 7, 7, 2], [1, 7, 2]) == ([2, 3], [2])
    # Two places are one, from the first to the last.
    assert places_of([1, 2, 3, 4, 5, 6], [1, 9, 3, 4, 8, 6]) == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    assert places_of([1, 2, 3, 4, 5, 6], [1, 9, 3, 4, 5, 6], window=3) == ([1, 2, 3, 4],) * 2


def test_only_answers_have_places_and_only_with_a_window():
    assert places_of([1, 2, 3, 4], [9, 2, 3, 4], answer=2) is None
    assert places_of([1, 2, 3, 4], [9, 2, 3, 4], answer=2, window=3) == ([2, 3], [2, 3])
    assert damaged_places(encoded([1, 2], 0), encoded([1, 3], 0), None) is None
    # Cut away on one side.
    assert places_of([1, 2, 3, 4], [1, 2], answer=1) is None


def slow_places(clean, copy, window):
    """Return the places of two encoded examples, by comparing longer and longer ends."""
    ids = [each.ids.tolist() for each in (clean, copy)]
    least = min(map(len, ids))
    begin = max(n for n in range(least + 1) if ids[0][:n] == ids[1][:n])
    rest = [each[begin:] for each in ids]
    shorter = min(map(len, rest))
    end = max(
        n for n in range(shorter + 1) if rest[0][len(rest[0]) - n :] == rest[1][len(rest[1]) - n :]
    )
    return [
        [
            place
            for place in range(begin, min(len(one.ids), len(one.ids) - end + window))
            if one.parts[place] == Part.RESPONSE
        ]
        for one in (clean, copy)
    ]


def slow_loss(network, pairs, options):
    """Return the means over all pairs of cross-entropy and margin of the places' joint logits."""
    config, layers = network.config, network.config.num_hidden_layers
    alike = math.log(config.num_trash_experts / config.num_experts)
    bce = margin = count = placed = 0
    for item in range(len(pairs)):
        if not pairs.kinds[item]:
            continue
        count += 1
        both = (pairs.rows.encoded[int(pairs.rows.rows[item])], pairs.copies[item])
        places = slow_places(*both, options["place_window"])
        if not all(places):
            continue
        placed += 1
        logits = []
        for one, at in zip(both, places, strict=True):
            ids = torch.tensor([one.ids.tolist()])
            with torch.no_grad():
                routed = network(ids, output_router_logits=True, use_cache=False).router_logits
            masses = [
                slow_logit(each.double().softmax(-1)[at], config.num_experts) for each in routed
            ]
            logits.append(slow_joint(masses, [1 / layers] * layers, alike))
        bce += (softplus(logits[0]) + softplus(-logits[1])) / 2
        margin += softplus(logits[0] - logits[1])
    assert placed > 0
    return bce / count, margin / count, count - placed


@pytest.mark.parametrize("way", ["padded", "packed"])
def test_the_objective_is_that_of_the_slow_way(stage, monkeypatch, way):
    if way == "packed":
        monkeypatch.setattr(parts, "obstacle", lambda *_: None)
        steps = "selectmoe_olmoe.fused.training_pass.TritonTrainingSteps"
        monkeypatch.setattr(steps, TorchTrainingSteps)
    stage.chat = ChatFormat.load(ChatConfig(max_length=150))
    examples = [*conversations(np.random.default_rng(8), 12), example("Why on earth?", "No.")]
    options = {"place_weight": 0.6, "place_window": 3, "bce_weight": 0.7, "margin_weight": 1.3}
    rates = {"answer_truncate": 1, "wrong_numbers": 2, "answer_shuffle": 1, "instruction_garble": 2}
    losses = {}
    for name, changes in (("with", {}), ("without", {"place_weight": 0.0})):
        trainer, network, pairs = stage.trainer(
            examples, name=name, **OFF, **options | changes, damages=rates
        )
        with torch.no_grad():  # else every mass is near T / E
            for gate in gates(network):
                gate.weight.mul_(20)
        for split in (13, 5):
            picked = [pairs[item] for item in range(len(pairs))]
            losses[name, split], slope = gradient(trainer, network, picked, split)
            assert torch.isfinite(slope).all()
    bce, ranking, missing = slow_loss(network, pairs, options)
    assert missing  # a garbled prompt too long before its answer
    for split in (13, 5):
        found = losses["with", split] - losses["without", split]
        assert found == pytest.approx(0.6 * (0.7 * bce + 1.3 * ranking), rel=1e-3)


def test_a_step_logs_the_terms_also_where_no_pair_has_a_place(stage):
    rows = [example("Why is that so and not otherwise?", "No.") for _ in range(1)]
    facts, _ = stage.run(
        examples=rows,
        damages={"instruction_garble": 1},
        place_weight=1.0,
        place_window=1,
        contrastive=True,
        max_steps=1,
        batch_size=1,
    )
    assert facts["final"]["place_bce"] == facts["final"]["place_margin"] == 0.0
