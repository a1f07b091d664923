"""The contrastive warm-up: its mathematics, its copies, what it trains and that it repeats."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from olmoe_contrasts import contrasted_places, conversations, slow_contrast, slow_joint
from olmoe_models import tensors
from olmoe_stage import DAMAGES, MODELS, example, gradient, part_of
from safetensors.torch import load_file

from selectmoe_core.errors import DataError, StageError
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_olmoe import plugin
from selectmoe_olmoe.config import ConstraintConfig, ContrastiveConfig
from selectmoe_olmoe.warmup.batches import Split, TrainingRows
from selectmoe_olmoe.warmup.contrastive_losses import (
    cross_entropy,
    joint,
    layer_weights,
    margin,
    ordered,
    trash_logits,
)
from selectmoe_olmoe.warmup.pairs import CopyMaker, PairRows, collate_pairs
from selectmoe_olmoe.warmup.parts import copy_maker
from selectmoe_olmoe.warmup.trainable import gates, load_trainable

pytest_plugins = ["olmoe_fixtures"]

CONTRASTIVE = {"contrastive": True}
ANSWERS = {"contrast_tokens": "response"}
TOKENS, COMBINED = ("end", "response"), ("together", "each")
EXPERTS, TRASH = 16, 4


# -------------------------------------------------------------------------------- mathematics


def slow_logits(logits, answers, experts):
    """Token by token, in doubles, from probabilities."""
    rows, length = answers.shape
    found = torch.empty(len(logits), rows, dtype=torch.float64)
    for number, layer in enumerate(logits):
        probs = layer.double().softmax(-1).view(rows, length, -1)
        for row in range(rows):
            masses = [
                probs[row, place, experts:].sum() for place in range(length) if answers[row, place]
            ]
            mean = sum(masses) / len(masses)
            found[number, row] = (mean / (1 - mean)).log()
    return found


def test_trash_logits_are_those_of_the_mean_mass():
    torch.manual_seed(4)
    logits = [torch.randn(5 * 9, EXPERTS + TRASH) * 3 for _ in range(3)]
    answers = torch.rand(5, 9) < 0.5
    answers[:, 4] = True
    found = trash_logits(logits, answers, EXPERTS)
    assert found.shape == (3, 5)
    torch.testing.assert_close(
        found.double(), slow_logits(logits, answers, EXPERTS), atol=1e-5, rtol=1e-5
    )


def test_trash_logits_keep_their_digits_and_gradient_at_both_ends():
    for sign in (1, -1):
        layer = torch.zeros(1, 3)
        layer[0, 2] = sign * 60.0  # a mass of 1 - 1e-26, or of 1e-26
        layer.requires_grad_()
        found = trash_logits([layer], torch.ones(1, 1, dtype=torch.bool), 2)
        assert found.item() == pytest.approx(sign * 60 - math.log(2), rel=1e-6)
        found.sum().backward()
        assert layer.grad[0, 2].item() == pytest.approx(1.0)


def test_masked_tokens_get_no_gradient():
    torch.manual_seed(1)
    layer = torch.randn(2 * 4, 6, requires_grad=True)
    answers = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]]).bool()
    trash_logits([layer], answers, 4).sum().backward()
    moved = layer.grad.abs().sum(-1).view(2, 4) > 0
    assert torch.equal(moved, answers)


def test_losses_against_plain_formulas():
    torch.manual_seed(2)
    clean, corrupted = torch.randn(3, 7) * 2, torch.randn(3, 7) * 2
    weights = layer_weights((1, 0, 3), 3)
    assert weights.tolist() == [0.25, 0.0, 0.75]
    bce = ranking = 0.0
    for layer, weight in enumerate(weights.tolist()):
        for pair in range(7):
            s, d = clean[layer, pair].item(), corrupted[layer, pair].item()
            p, q = 1 / (1 + math.exp(-s)), 1 / (1 + math.exp(-d))
            bce += weight * (-math.log(1 - p) - math.log(q)) / 2
            ranking += weight * math.log(1 + math.exp(s - d))
    assert cross_entropy(clean, corrupted, weights).item() == pytest.approx(bce, rel=1e-5)
    assert margin(clean, corrupted, weights).item() == pytest.approx(ranking, rel=1e-5)


def test_the_joint_logit_is_the_weighted_sum_above_a_router_without_preferences():
    random = np.random.default_rng()
    for layers in (1, 2, 5):
        logits = torch.from_numpy(random.normal(size=(layers, 7)) * 3).float()
        weights = layer_weights(random.random(layers).tolist(), layers)
        alike = float(random.normal())
        found = joint(logits, weights, alike)
        assert found.shape == (1, 7)
        rows = zip(found[0].tolist(), logits.T.tolist(), strict=True)
        for one, of_layers in rows:
            wanted = slow_joint(of_layers, weights.tolist(), alike)
            assert one == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    equal = layer_weights(None, 5)
    torch.testing.assert_close(joint(logits, equal, 0.5)[0], (logits - 0.5).sum(0))


@pytest.mark.parametrize("weights", [None, (1, 4, 2)])
def test_the_joint_objective_moves_only_the_sum(weights):
    torch.manual_seed(np.random.SeedSequence().entropy % 2**63)
    shares = layer_weights(weights, 3)
    clean, corrupted = (torch.randn(3, 6) for _ in range(2))
    one = torch.ones(1)

    def loss_of(first, second, loss):
        return loss(joint(first, shares, -1.0), joint(second, shares, -1.0), one)

    shift = torch.tensor([2.0, -2.0, 0.0])[:, None] / shares[:, None]
    for loss in (cross_entropy, margin):
        wanted = loss_of(clean, corrupted, loss)
        torch.testing.assert_close(loss_of(clean + shift, corrupted, loss), wanted)
        torch.testing.assert_close(loss_of(clean, corrupted + shift, loss), wanted)
        assert abs(loss(clean + shift, corrupted, shares) - loss(clean, corrupted, shares)) > 0.1
        halves = [half.clone().requires_grad_() for half in (clean, corrupted)]
        loss_of(*halves, loss).backward()
        for half in halves:
            assert half.grad.abs().min() > 0
            of_the_sum = half.grad / shares[:, None]
            torch.testing.assert_close(of_the_sum, of_the_sum[:1].expand(3, 6))


def test_the_order_is_that_of_the_mean_mass():
    clean = torch.tensor([[0.0, 5.0, 1.0], [0.0, -5.0, 1.0]])
    corrupted = torch.tensor([[1.0, 4.0, 1.0], [-0.5, -1.0, 1.0]])
    # The second gains more at -5 than it loses at 5; the third is a tie.
    assert ordered(clean, corrupted).tolist() == [1.0, 1.0, 0.5]


def test_layer_weights_must_fit():
    assert layer_weights(None, 4).tolist() == [0.25] * 4
    for wrong in ((1.0,), (0.0, 0.0)):
        with pytest.raises(ValueError, match="layer_weights"):
            layer_weights(wrong, 2)


# -------------------------------------------------------------------------------------- copies


def pairs_of(stage, examples=None, name="pairs", **options):
    config, job, source = ContrastiveConfig(**options), stage.job(name), stage.source(examples)
    tokenizer = MODELS.tokenizer(stage.base)
    rows = TrainingRows(source.encoded(tokenizer), config.contrast_tokens)
    return PairRows(rows, source, copy_maker(config, job), tokenizer, job)


def test_kinds_come_at_their_own_rates_unless_the_recipe_says_otherwise(stage):
    job = stage.job("rates")
    maker = copy_maker(ContrastiveConfig(), job)
    assert maker.rates == {name: damage.rate for name, damage in job.damages.items()}
    assert maker.rates["answer_swap"] > maker.rates["mojibake"] > 0
    said = copy_maker(ContrastiveConfig(damages={"mojibake": 3, "answer_swap": 0}), job)
    assert [one.name for one in said.damages] == ["mojibake"]


def test_copies_depend_on_seed_and_epoch_alone(stage):
    maker = CopyMaker(tuple(DAMAGES.values()), dict.fromkeys(DAMAGES, 1.0), 7)
    first = list(maker.copies(stage.examples, 0))
    assert first == list(maker.copies(iter(stage.examples), 0))
    assert first != list(maker.copies(stage.examples, 1))
    assert first != list(replace(maker, seed=8).copies(stage.examples, 0))
    assert len({kind for _, kind in first}) > 5
    for (copy, _), original in zip(first, stage.examples, strict=True):
        assert copy.id != original.id


def test_a_pair_holds_an_example_and_its_own_copy(stage):
    pairs = pairs_of(stage, damages={"role_swap": 1}, **ANSWERS)
    tokenizer = MODELS.tokenizer(stage.base)
    assert pairs.kinds == ["role_swap"] * len(stage.examples)
    for pair, one in zip((pairs[i] for i in range(len(pairs))), stage.examples, strict=True):
        shown = tokenizer.decode(pair.copy.ids[pair.copy.answer])
        assert shown == one.prompt.strip() + "<eos>"
        assert tokenizer.decode(pair.clean.ids[pair.clean.answer]) == one.response.strip() + "<eos>"
        assert not pair.copy.weights.any()


def test_a_batch_holds_the_clean_first_then_their_copies(stage):
    answers = ("abc def ghi", "one two three four", "to be or", "7", "not", "abcdefg")
    examples = [example(f"Question {n}?", answer) for n, answer in enumerate(answers)]
    pairs = pairs_of(stage, examples, damages={"answer_shuffle": 1}, **ANSWERS)
    assert pairs.kinds[3:5] == ["", ""]
    batch = collate_pairs([pairs[i] for i in range(6)])
    assert batch["input_ids"].shape[0] == 10
    assert batch["originals"].tolist() == [0, 1, 2, 5]
    for place, clean in enumerate(batch["originals"].tolist()):
        copy = 6 + place
        one, other = (sorted(batch["input_ids"][i].tolist()) for i in (clean, copy))
        assert one == other  # the same characters in another order
        assert not torch.equal(batch["input_ids"][clean], batch["input_ids"][copy])
    assert not batch["loss_weights"][6:].any()
    assert (batch["answers"].sum(1) > 1).all()
    assert not (batch["answers"] & ~batch["attention_mask"].bool()).any()


def test_what_the_length_limit_hides_is_no_copy(stage):
    stage.chat = ChatFormat.load(ChatConfig(max_length=32))
    hidden, shown = example("Why?", "abc 1234567"), example("Why?", "1 abc 23456")
    pairs = pairs_of(stage, [hidden, shown], damages={"wrong_numbers": 1})
    assert pairs.rows.encoded.cut.all()
    assert pairs.kinds == ["", "wrong_numbers"]


@pytest.mark.parametrize("tokens", TOKENS)
def test_a_copy_whose_answer_is_cut_away_is_left_out(stage, tokens):
    stage.chat = ChatFormat.load(ChatConfig(max_length=40))
    one = example("Why?", "Because it is so, and so on for long enough.")
    pairs = pairs_of(stage, [one], damages={"role_swap": 1}, contrast_tokens=tokens)
    assert pairs.kinds == [""]


@pytest.mark.parametrize("tokens", TOKENS)
def test_pairs_are_told_apart_at_the_end_of_every_answer_or_all_over_them(stage, tokens):
    stage.chat = ChatFormat.load(ChatConfig(max_length=210))
    examples = conversations(np.random.default_rng(), 150)
    pairs = pairs_of(stage, examples, contrast_tokens=tokens)
    found = []
    for item in range(len(pairs)):
        halves = [(pairs[item].clean, pairs.rows.encoded[int(pairs.rows.rows[item])])]
        if pairs.kinds[item]:
            halves.append((pairs[item].copy, pairs.copies[item]))
        for row, encoded in halves:
            assert row.answer.dtype == bool
            assert row.answer.nonzero()[0].tolist() == contrasted_places(encoded, tokens)
            found.append((int(row.answer.sum()), bool(encoded.cut and row.answer[-1])))
    if tokens == "end":
        assert {count for count, _ in found} >= {1, 2, 3}
    assert any(cut_inside for _, cut_inside in found)


def test_a_batch_counts_the_last_tokens_of_answers_alone(stage):
    pairs = pairs_of(stage, conversations(np.random.default_rng(), 9))
    batch = collate_pairs([pairs[i] for i in range(9)])
    tokenizer = MODELS.tokenizer(stage.base)
    assert torch.equal(batch["answers"], batch["input_ids"] == tokenizer.eos_token_id)
    assert batch["answers"][:9].sum(1).tolist() == [1, 2, 3] * 3


def test_a_new_epoch_brings_new_copies_and_sorts_by_the_longer_of_two(stage):
    pairs = pairs_of(stage)
    sampler = pairs.sampler(Split(4, 1), 1)
    first = [pairs[i].copy.ids.tolist() for i in range(len(pairs)) if pairs.kinds[i]]
    assert sorted(sampler) == list(range(len(pairs)))
    sampler.set_epoch(1)
    second = [pairs[i].copy.ids.tolist() for i in range(len(pairs)) if pairs.kinds[i]]
    assert first != second
    for item in range(len(pairs)):
        rows = [row for row in (pairs[item].clean, pairs[item].copy) if row is not None]
        assert pairs.lengths[item] == max(len(row.ids) for row in rows)
    assert np.array_equal(sampler.lengths, pairs.lengths)
    assert pairs_of(stage, name="again").kinds != pairs.kinds
    sampler.set_epoch(0)
    assert first == [pairs[i].copy.ids.tolist() for i in range(len(pairs)) if pairs.kinds[i]]


# ----------------------------------------------------------------------------------- training


def test_the_loss_is_the_documented_sum(stage):
    options = {"bce_weight": 0.7, "margin_weight": 1.3, "lm_weight": 0.4, "layer_weights": (1, 2)}
    options |= {"balance_over": "all"}
    options |= ANSWERS | {"contrast_layers": "each"}
    trainer, network, pairs = stage.trainer(**CONTRASTIVE, **options)
    picked = [pairs[i] for i in range(5)]
    loss, _ = gradient(trainer, network, picked, 5)
    batch = collate_pairs(picked)
    alone = [collate_pairs([replace(pair, copy=None)]) for pair in picked]
    logits, masses = [], {"clean": [], "corrupted": []}
    weighted = total = 0.0
    with torch.no_grad():
        for one in alone:  # each by itself, without padding
            out = network(one["input_ids"], output_router_logits=True)
            logits.append(out.router_logits)
            losses = torch.nn.functional.cross_entropy(
                out.logits[0, :-1], one["input_ids"][0, 1:], reduction="none"
            )
            weighted += (losses * one["loss_weights"][0, 1:]).sum().item()
            total += one["loss_weights"].sum().item()
        for pair in picked:
            if pair.copy is None:
                continue
            for name, row in (("clean", pair.clean), ("corrupted", pair.copy)):
                ids = torch.from_numpy(row.ids.astype(np.int64))[None]
                routed = network(ids, output_router_logits=True).router_logits
                answer = torch.from_numpy(row.answer)[None]
                masses[name].append(slow_logits(routed, answer, EXPERTS)[:, 0])
    clean, corrupted = torch.stack(masses["clean"], 1), torch.stack(masses["corrupted"], 1)
    layers = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    bce = -((1 - clean.sigmoid()).log() + corrupted.sigmoid().log()) / 2
    ranking = (1 + (clean - corrupted).exp()).log()
    from selectmoe_olmoe.model.losses import balance_loss

    joined = [torch.cat([one[layer] for one in logits]) for layer in range(2)]
    balance = balance_loss(joined, torch.ones(len(joined[0])), EXPERTS, 4).item()
    wanted = 0.4 * weighted / total + 0.01 * balance
    wanted += 0.7 * (layers @ bce).mean().item() + 1.3 * (layers @ ranking).mean().item()
    assert loss == pytest.approx(wanted, rel=1e-4)
    assert len(batch["originals"]) == clean.shape[1]


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("layers", COMBINED)
@pytest.mark.parametrize("weights", [None, (1, 3)], ids=["alike", "weighted"])
def test_the_contrast_is_that_of_the_slow_way(stage, tokens, layers, weights):
    stage.chat = ChatFormat.load(ChatConfig(max_length=150))
    options = {"contrast_tokens": tokens, "contrast_layers": layers, "layer_weights": weights}
    off = {"lm_weight": 0.0, "router_aux_loss_coef": 0.0, "bce_weight": 0.7, "margin_weight": 1.3}
    examples = conversations(np.random.default_rng(), 12)
    trainer, network, pairs = stage.trainer(examples, **CONTRASTIVE, **options, **off)
    with torch.no_grad():  # else every mass is near T / E
        for gate in gates(network):
            gate.weight.mul_(20)
    assert any(pairs.copies.cut[row] for row, kind in enumerate(pairs.kinds) if kind)
    bce, ranking = slow_contrast(network, pairs, range(12), options)
    for split in (12, 5):
        loss, _ = gradient(trainer, network, [pairs[i] for i in range(12)], split)
        assert loss == pytest.approx(0.7 * bce + 1.3 * ranking, rel=1e-4)


def test_a_router_without_preferences_has_the_joint_logit_0(stage):
    off = {"lm_weight": 0.0, "router_aux_loss_coef": 0.0}
    trainer, network, pairs = stage.trainer(**CONTRASTIVE, **off, layer_weights=(2, 1))
    for gate in gates(network):
        torch.nn.init.zeros_(gate.weight)
    loss, _ = gradient(trainer, network, [pairs[i] for i in range(6)], 3)
    assert loss == pytest.approx(2 * math.log(2), rel=1e-5)


def test_accumulation_scales_nothing(stage):
    options = {"lm_weight": 0.5, "router_aux_loss_coef": 0.0, "bce_weight": 30.0}
    trainer, network, pairs = stage.trainer(**CONTRASTIVE, **options)
    picked = [pairs[i] for i in range(8)]
    whole_loss, whole = gradient(trainer, network, picked, 8)
    for split in (1, 3, 4):
        loss, accumulated = gradient(trainer, network, picked, split)
        torch.testing.assert_close(accumulated, whole, rtol=1e-3, atol=1e-4 * whole.abs().max())
        assert loss == pytest.approx(whole_loss, rel=1e-5)


def test_a_batch_without_copies_is_language_modelling_alone(stage):
    trainer, network, pairs = stage.trainer(**CONTRASTIVE, lm_weight=1.0, router_aux_loss_coef=0.0)
    alone = [replace(pairs[i], copy=None) for i in range(4)]
    loss, grads = gradient(trainer, network, alone, 2)
    plain, other, rows = stage.trainer(
        name="plain", constraint_loss_weight=0.0, router_aux_loss_coef=0.0
    )
    expected, wanted = gradient(plain, other, [rows[i] for i in range(4)], 2)
    assert loss == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(grads, wanted)


def test_the_constraint_is_off_unless_asked_for(stage):
    trainer, network, _ = stage.trainer(**CONTRASTIVE)
    assert trainer.terms.constraint_weight == 0.0 == network.config.constraint_loss_weight
    trainer, _, _ = stage.trainer(**CONTRASTIVE, constraint_loss_weight=0.3)
    assert trainer.terms.constraint_weight == 0.3


def test_only_the_contrast_reaches_the_trash_rows_when_all_else_is_off(stage):
    off = {"lm_weight": 0.0, "router_aux_loss_coef": 0.0}
    trainer, network, pairs = stage.trainer(**CONTRASTIVE, **off, layer_weights=(0, 1))
    gradient(trainer, network, [pairs[i] for i in range(6)], 6)
    first, second = (gate.weight.grad.abs().sum().item() for gate in gates(network))
    assert second > 0
    assert first > 0  # the second layer reads what the first lets through
    trainer, network, pairs = stage.trainer(**CONTRASTIVE, **off, layer_weights=(1, 0))
    gradient(trainer, network, [pairs[i] for i in range(6)], 6)
    first, second = (gate.weight.grad.abs().sum().item() for gate in gates(network))
    assert first > 0
    assert second == 0  # nothing behind it counts
    assert all(w.grad is None for n, w in network.named_parameters() if "mlp.gate." not in n)


@pytest.mark.parametrize("peft_mode", ["full_rank", "lora"])
@pytest.mark.parametrize("trainable", ["router", "all"])
def test_modes_train_what_they_say(stage, peft_mode, trainable):
    lora = {"lora_rank": 4} if peft_mode == "lora" else {}
    _, out = stage.run(**CONTRASTIVE, peft_mode=peft_mode, trainable=trainable, max_steps=2, **lora)
    fresh = MODELS.load(stage.base, dtype="float32", device="cpu").state_dict()
    state = stage.load(out).state_dict()
    changed = {n for n, w in state.items() if not torch.equal(w, fresh[n])}
    gate = {name for name in fresh if name.endswith("mlp.gate.weight")}
    if trainable == "router":
        assert changed == gate
        assert load_file(out / "partial.safetensors").keys() == gate
    elif peft_mode == "lora":
        attention = {n for n in fresh if ".self_attn." in n and n.endswith("_proj.weight")}
        assert changed == gate | attention
    else:
        assert changed == set(fresh)


def test_training_orders_the_pairs(stage):
    facts, _ = stage.run(
        **CONTRASTIVE,
        max_steps=40,
        batch_size=11,
        lm_weight=0.0,
        trainable="all",
        learning_rate=3e-3,
    )
    accuracy = [point["pair_accuracy"] for point in stage.curve]
    assert sum(accuracy[-10:]) / 10 > sum(accuracy[:5]) / 5 + 0.15
    assert sum(accuracy[-10:]) / 10 > 0.8
    last, first = facts["final"], facts["first"]
    assert last["bce"] < first["bce"] - 0.1
    assert last["margin"] < first["margin"]
    # One batch of eleven pairs: the gap moves by a tenth with the number of threads.
    assert last["corrupted_trash_mass"] > last["clean_trash_mass"] + 0.1
    assert sum(facts["corrupted_copies"].values()) == len(stage.examples)
    wanted = {"loss", "cross_entropy", "balance", "constraint", "bce", "margin", "trash_share"}
    for point in stage.curve:
        assert wanted <= point.keys()
        total = point["bce"] + point["margin"] + 0.01 * point["balance"]
        assert point["loss"] == pytest.approx(total, rel=1e-4)
    json.dumps(facts)


@pytest.mark.parametrize(
    "options",
    [{}, {"trainable": "all", "batch_size": 6, "micro_batch_size": 3}, {"peft_mode": "lora"}],
    ids=["router", "all", "lora"],
)
def test_a_resumed_run_ends_with_the_same_bytes(stage, options):
    """Killed in the second epoch, whose copies are others than those of the first."""
    options = {**CONTRASTIVE, "max_steps": 12, "batch_size": 3, "checkpoint_every": 2, **options}
    whole, resumed, curve = stage.resumed(11, **options)
    assert [point["step"] for point in stage.curve] == [11, 12]
    for point in stage.curve:
        assert point == curve[point["step"]]
    for path in whole.iterdir():
        assert path.read_bytes() == (resumed / path.name).read_bytes(), path.name


def test_bf16_trains(stage):
    facts, out = stage.run(**CONTRASTIVE, dtype="bfloat16", max_steps=2)
    assert facts["final"]["bce"] > 0
    assert {weight.dtype for weight in tensors(out).values()} == {torch.bfloat16}


# -------------------------------------------------------------------------------------- options


def test_damage_that_nobody_offers_is_said_before_the_run(stage):
    def check(job=None, **options):
        part_of(**options).check(job or stage.job())

    check(**CONTRASTIVE)
    with pytest.raises(StageError, match="no plugin offers the kind 'anser_swap'") as caught:
        check(**CONTRASTIVE, damages={"anser_swap": 1})
    assert caught.value.hint == "did you mean 'answer_swap'?"
    for damages in ({}, {"answer_swap": 0}):
        with pytest.raises(StageError, match="no kind of damage"):
            check(**CONTRASTIVE, damages=damages)
    with pytest.raises(StageError, match="no kind of damage"):
        check(replace(stage.job(), damages={}), **CONTRASTIVE)


def test_what_does_not_fit_is_said(stage):
    with pytest.raises(StageError, match="layer_weights has 3 weights, but the model has 2 layers"):
        stage.run(**CONTRASTIVE, layer_weights=(1, 1, 1))
    with pytest.raises(DataError, match="none of the 2 examples can be damaged"):
        stage.run(
            "other",
            [example("Sum?", "seven"), example("Colour?", "red")],
            **CONTRASTIVE,
            damages={"wrong_numbers": 1},
        )


def test_copies_double_the_cost_and_need_the_kinds(stage):
    from selectmoe_core.cost import Workload

    constraint, contrastive = plugin.selectmoe_trainers()
    shape = MODELS.config(stage.base)
    work = Workload(examples=100, tokens=5000, estimated=False, model=shape, dtype="float32")
    plain, pairs = ConstraintConfig(), ContrastiveConfig()
    assert contrastive.cost(pairs, work).tokens == 2 * constraint.cost(plain, work).tokens
    assert contrastive.cost(pairs, work).memory > constraint.cost(plain, work).memory
    assert contrastive.needs(pairs) == constraint.needs(plain) | {Need.DAMAGES, Need.PAIRS}
    assert Need.DAMAGES not in constraint.needs(plain)
    assert list(constraint.damages(plain)) == []
    assert contrastive.damages(pairs) is None
    some = ContrastiveConfig(damages={"mojibake": 2, "role_swap": 0})
    assert contrastive.damages(some) == ["mojibake"]
    assert load_trainable(stage.base, pairs, stage.job()).config.constraint_loss_weight == 0.0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "end"),
        ({"contrast_tokens": "response"}, "response"),
        ({"contrastive": False}, None),
    ],
)
def test_the_selector_says_where_its_router_was_taught(stage, options, expected):
    _, out = stage.run(**CONTRASTIVE | {"max_steps": 1} | options)
    base = json.loads((Path(stage.base.location) / "selector.json").read_text())
    said = json.loads((out / "selector.json").read_text())
    assert said == base | ({"tokens": expected} if expected else {})
