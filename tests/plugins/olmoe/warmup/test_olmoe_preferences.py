"""Preference pairs in the contrastive warm-up: their loss, their share, and what is learned."""

import math

import numpy as np
import pytest
import torch
from olmoe_contrasts import EOS, slow_joint, slow_logit, softplus
from olmoe_stage import MODELS, example, gradient

from selectmoe_core.data.examples import Message, RawExample, RawPair
from selectmoe_core.data.pairs import PairTable, build_pairs
from selectmoe_core.errors import DataError
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_olmoe.config import ContrastiveConfig
from selectmoe_olmoe.warmup.batches import NOTHING, Split
from selectmoe_olmoe.warmup.parts import SelectMoeContrastive
from selectmoe_olmoe.warmup.preferences import MixedPairs, drawn
from selectmoe_olmoe.warmup.trainable import load_trainable

pytest_plugins = ["olmoe_fixtures"]

ASKED = Message("user", "Which?")


def pair(chosen, rejected, before=()):
    halves = [
        RawExample("test", (*before, ASKED, Message("assistant", text)), "here:1")
        for text in (chosen, rejected)
    ]
    return RawPair(*halves)


def table_of(folder, pairs, share=None):
    folder.mkdir(parents=True)
    return build_pairs(pairs, folder, share=share)


def rows_of(stage, name, pairs, share=None, **options):
    """Return the warm-up's part, its job and its rows, with these preference pairs."""
    table_of(stage.folder / name / "pairs", pairs, share)
    job = stage.job(name, inputs=Inputs(pairs=stage.folder / name / "pairs"))
    part = SelectMoeContrastive(ContrastiveConfig(**options))
    return part, job, part.rows(stage.source(), MODELS.tokenizer(stage.base), job)


WORDS = [(f"good {'ab' * n}", f"bad answer {n}") for n in range(1, 8)]
PAIRS = [pair(*words) for words in WORDS]


@pytest.mark.parametrize("tokens", ["end", "response"])
def test_the_loss_on_pairs_is_that_of_the_slow_way(stage, tokens):
    options = {"contrast_tokens": tokens, "bce_weight": 0.6, "margin_weight": 1.7}
    # Only the contrast: other tests look at the terms that read the chosen answers alone.
    options |= {"lm_weight": 0.0, "router_aux_loss_coef": 0.0}
    part, job, rows = rows_of(stage, "loss", PAIRS, share=1, **options)
    network = load_trainable(stage.base, part.config, job)
    trainer = part.trainer(stage.base, network, rows, job)
    picked = [rows[place] for place in range(4)]
    found, _ = gradient(trainer, network, picked, 4)

    config, chosen = network.config, [WORDS[int(rows.drawn[place])] for place in range(4)]
    alike = math.log(config.num_trash_experts / config.num_experts)
    weights = [1 / config.num_hidden_layers] * config.num_hidden_layers
    tokenizer = MODELS.tokenizer(stage.base)
    bce = ranking = 0.0
    for words in chosen:
        halves = []
        for text in words:
            (encoded,) = stage.chat.encode([example("Which?", text)], tokenizer)
            ids = encoded.ids.tolist()
            end = ids.index(EOS)
            places = range(end - len(text), end + 1)  # a letter is a token
            with torch.no_grad():
                out = network(torch.tensor([ids]), output_router_logits=True, use_cache=False)
            at = list(places)[-1:] if tokens == "end" else list(places)
            layers = [layer.double().softmax(-1)[at] for layer in out.router_logits]
            masses = [slow_logit(layer, config.num_experts) for layer in layers]
            halves.append(slow_joint(masses, weights, alike))
        bce += (softplus(halves[0]) + softplus(-halves[1])) / 2 / 4
        ranking += softplus(halves[0] - halves[1]) / 4
    assert found == pytest.approx(0.6 * bce + 1.7 * ranking, rel=1e-4)


def test_the_chosen_is_clean_and_the_rejected_has_no_language_model_loss(stage):
    _, _, rows = rows_of(stage, "clean", PAIRS, share=1)
    tokenizer = MODELS.tokenizer(stage.base)
    seen = []
    for place in range(len(rows)):
        both = rows[place]
        texts = [tokenizer.decode(row.ids[row.weights > 0]) for row in (both.clean, both.copy)]
        seen.append(texts[0].removesuffix("<eos>").strip())
        assert texts[1] == ""
        assert rows.lengths[place] == max(len(both.clean.ids), len(both.copy.ids))
    assert sorted(seen) == sorted(chosen for chosen, _ in WORDS)
    assert rows[NOTHING].copy is None


def test_answers_that_both_share_are_not_compared(stage):
    before = (Message("user", "Hi."), Message("assistant", "Hello there."))
    table = table_of(stage.folder / "turns", [pair("yes", "no", before)])
    for half in (*table.chosen(), *table.rejected()):
        assert [turn.trained for turn in half.messages if turn.role == "assistant"] == [False, True]
    _, _, rows = rows_of(
        stage, "shared", [pair("yes", "no", before)], 1, contrast_tokens="response"
    )
    tokenizer = MODELS.tokenizer(stage.base)
    texts = [tokenizer.decode(row.ids[row.answer]) for row in (rows[0].clean, rows[0].copy)]
    assert texts == ["yes<eos>", "no<eos>"]


@pytest.mark.parametrize("share", [None, 0.25, 0.5, 0.8, 1.0])
def test_the_share_of_pairs_in_an_epoch(stage, share):
    _, _, rows = rows_of(stage, "share", PAIRS, share)
    examples = 0 if share == 1 else len(stage.examples)
    real = len(rows) - examples
    wanted = len(PAIRS) / (len(PAIRS) + examples) if share is None else share
    assert real / len(rows) == pytest.approx(wanted, abs=0.02)
    order = sorted(rows.sampler(Split(4, 1), 3))
    assert order == list(range(len(rows)))
    kinds = [rows[place].clean.ids.tolist() for place in range(examples, len(rows))]
    tokenizer = MODELS.tokenizer(stage.base)
    assert all("good" in tokenizer.decode(ids) for ids in kinds)


def test_every_pair_is_used_equally_often_over_the_epochs():
    for pairs, count in ((7, 3), (3, 7), (5, 5), (1, 4)):
        epochs = [drawn(pairs, count, epoch, seed=9) for epoch in range(2 * pairs)]
        for upto in range(1, 2 * pairs + 1):
            used = np.bincount(np.concatenate(epochs[:upto]), minlength=pairs)
            assert used.max() - used.min() <= 1
        assert not np.array_equal(drawn(50, 50, 0, 1), drawn(50, 50, 1, 1))
        assert np.array_equal(drawn(50, 9, 3, 1), drawn(50, 9, 3, 1))


def test_a_new_epoch_draws_other_pairs_and_makes_other_copies(stage):
    _, _, rows = rows_of(stage, "epochs", PAIRS, 0.1)
    assert isinstance(rows, MixedPairs)
    first, copies = rows.drawn.tolist(), list(rows.made.kinds)
    rows.set_epoch(1)
    assert rows.drawn.tolist() != first
    assert rows.made.kinds != copies
    assert len(rows.lengths) == len(rows)


def test_pairs_that_truncation_makes_equal_are_left_out(stage):
    stage.chat = ChatFormat.load(ChatConfig(max_length=45))
    alike = pair("the same beginning of it, then this", "the same beginning of it, then that")
    part, _, rows = rows_of(stage, "cut", [alike, *PAIRS[:2]], share=1)
    assert part.about(rows)["preference_pairs_left_out"] == 1
    with pytest.raises(DataError, match="none of the 1 pairs"):
        rows_of(stage, "none", [alike], share=1)


def test_training_on_pairs_alone_learns_them_and_reports_them(stage):
    table_of(stage.folder / "pairs", PAIRS, share=1)
    job = stage.job("learn", inputs=Inputs(pairs=stage.folder / "pairs"))
    options = {"trainable": "all", "learning_rate": 5e-3, "epochs": 20, "batch_size": 7}
    part = SelectMoeContrastive(ContrastiveConfig(**options))
    facts = part.train(stage.base, stage.source(), stage.folder / "out", job)
    assert facts["preference_pairs"] == len(PAIRS)
    assert facts["examples"] == len(PAIRS)
    assert "corrupted_copies" not in facts
    assert facts["final"]["pair_accuracy"] == 1.0
    assert facts["final"]["bce"] < facts["first"]["bce"] / 2


def test_a_table_without_pairs_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"\[warmup.pairs\] is empty"):
        table_of(tmp_path / "none", [])
    assert len(PairTable.open(table_of(tmp_path / "some", PAIRS).pool.folder)) == len(PAIRS)
