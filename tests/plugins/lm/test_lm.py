"""Perplexity, IFD and blends: hand-made numbers, a slow loop, and the same score in any company."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from lm_models import TINY, byte_tokenizer, context_of, nats, score_all, slow_answers, trial
from pydantic import ValidationError
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaForCausalLM,
)

from selectmoe_core import Job, ModelError, Shard, StageError
from selectmoe_core.cost import Workload
from selectmoe_core.data.scores import ScoreTable, ShardScores, write_part
from selectmoe_core.stages.scoring import score as score_stage
from selectmoe_core.testing import check_plugin, check_scorer, generated_examples
from selectmoe_core.tokens.chat import EncodedExample
from selectmoe_lm import losses as losses_module
from selectmoe_lm.answers import Answers
from selectmoe_lm.blend import BlendScorer
from selectmoe_lm.config import BlendConfig, IfdConfig, PerplexityConfig
from selectmoe_lm.ifd import (
    FROM_ONE,
    INFINITE,
    NO_TURN,
    NOT_ALONE,
    IfdScorer,
    IfdShardScorer,
)
from selectmoe_lm.losses import TokenLosses
from selectmoe_lm.opening import OpenedModel
from selectmoe_lm.perplexity import NOTHING_COUNTS, PerplexityScorer
from selectmoe_lm.plugin import selectmoe_scorers
from selectmoe_lm.ranks import percentiles, ranks, z_scores
from selectmoe_lm.turns import Turn, alone, answered_turns, within

pytest_plugins = ["lm_fixtures"]

PERPLEXITY, IFD, BLEND = selectmoe_scorers()[:3]


@pytest.fixture(scope="module")
def slow(llama, examples):
    """Losses of every answer of every example but the two without one that can be scored."""
    model = LlamaForCausalLM.from_pretrained(llama.location)
    return {
        row: list(slow_answers(model, example))
        for row, example in enumerate(examples)
        if row not in (7, 8)
    }


# ------------------------------------------------------------------------------- perplexity


@pytest.mark.parametrize(("prefer", "sign"), [("low", -1), ("high", 1)])
def test_perplexity_is_the_mean_loss_over_all_answer_tokens(job, examples, slow, prefer, sign):
    found = score_all(PerplexityScorer(PerplexityConfig(prefer=prefer)), job, examples)
    for row, answers in slow.items():
        nats = [loss for given, _ in answers for loss in given]
        assert found.score[row] == pytest.approx(sign * np.mean(nats), rel=1e-4)
        assert found.details["tokens"][row] == len(nats)
    assert found.skipped[7] == NOTHING_COUNTS
    assert np.isnan(found.score[7])
    assert [row for row, reason in enumerate(found.skipped) if reason] == [7]


def test_the_middle_is_the_distance_from_a_percentile_of_the_pool(tmp_path):
    _write(tmp_path, [9.0] * 5, loss=np.array([3.0, np.nan, 1.0, 2.0, 9.0]), skip=[1])
    table = ScoreTable.open(tmp_path)
    # Percentiles of 1, 2, 3, 9: 12.5, 37.5, 62.5, 87.5.
    found = PerplexityScorer(PerplexityConfig(prefer="mid")).finish(table).score
    np.testing.assert_allclose(found, [-12.5, np.nan, -37.5, -12.5, -37.5])
    found = PerplexityScorer(PerplexityConfig(prefer="mid", percentile=80)).finish(table).score
    np.testing.assert_allclose(found, [-17.5, np.nan, -67.5, -42.5, -7.5])
    assert PerplexityScorer(PerplexityConfig(prefer="high")).finish(table).score is None


# -------------------------------------------------------------------------------------- ifd


def test_ifd_is_loss_given_over_loss_alone_answer_by_answer(job, examples, slow):
    config = IfdConfig(skip_from_one=False)
    found = score_all(IfdScorer(config), job, examples)
    for row, answers in slow.items():
        expected = np.mean([np.mean(given) / np.mean(by) for given, by in answers])
        assert found.score[row] == pytest.approx(expected, rel=1e-4)
        assert found.details["turns"][row] == len(answers)
        loss = np.mean([np.mean(given) for given, _ in answers])
        assert found.details["loss"][row] == pytest.approx(loss, rel=1e-4)
    assert [row for row, reason in enumerate(found.skipped) if reason == NO_TURN] == [7, 8]
    low = score_all(IfdScorer(config.model_copy(update={"prefer": "low"})), job, examples)
    np.testing.assert_array_equal(low.score, -found.score)


def test_perplexity_ratio_divides_the_perplexities_answer_by_answer(job, examples, slow):
    found = score_all(IfdScorer(IfdConfig(ratio="perplexity", skip_from_one=False)), job, examples)
    for row, answers in slow.items():
        ratios = [math.exp(np.mean(given)) / math.exp(np.mean(by)) for given, by in answers]
        assert found.score[row] == pytest.approx(np.mean(ratios), rel=1e-3)
    loss = score_all(IfdScorer(IfdConfig(skip_from_one=False)), job, examples)
    np.testing.assert_array_equal(found.details["loss"], loss.details["loss"])
    single = [row for row in slow if found.details["turns"][row] == 1]
    assert [found.score[row] < 1 for row in single] == [loss.score[row] < 1 for row in single]
    assert not np.allclose(found.score[single], loss.score[single], rtol=0.01)


def _bare(prompt: str, *answers: str) -> EncodedExample:
    """Encode prompt, answer, prompt, answer, with no token of a format between them."""
    pieces = [(text, part) for answer in answers for text, part in ((prompt, 1), (answer, 2))]
    ids = [np.array(byte_tokenizer()(text)["input_ids"], np.int32) for text, _ in pieces]
    parts = [np.full(len(of), part, np.uint8) for of, (_, part) in zip(ids, pieces, strict=True)]
    return EncodedExample(np.concatenate(ids), np.concatenate(parts), cut=False)


@pytest.mark.parametrize("ratio", ["loss", "perplexity"])
@pytest.mark.parametrize("skip", [True, False])
def test_an_answer_that_nothing_opens(llama, job, ratio, skip):
    rows = [
        _bare("ab cd?", "fed cab"),
        _bare("gab", "x"),
        _bare("cd", "x", "ha bad"),
        _bare("", "ab"),
    ]
    given = replace(job, encoded=lambda _: rows)
    found = score_all(IfdScorer(IfdConfig(ratio=ratio, skip_from_one=skip)), given, rows)
    model = LlamaForCausalLM.from_pretrained(llama.location)

    def expected(context, answer):
        after = nats(model, context, answer)
        by = nats(model, answer[0], answer[1:])  # nothing stands before the first token
        if ratio == "loss":
            return np.mean(after[1:]) / np.mean(by)
        return math.exp(np.mean(after)) / math.exp(np.mean(by))

    ifd = found.details["ifd"]
    assert ifd[0] == pytest.approx(expected("ab cd?", "fed cab"), rel=1e-4)
    assert ifd[2] == pytest.approx(expected("cdxcd", "ha bad"), rel=1e-4)  # the other has none
    for row in (0, 2):
        assert found.skipped[row] == (FROM_ONE if skip and ifd[row] >= 1 else None)
    assert found.skipped[1] == NOT_ALONE
    assert found.skipped[3] == NO_TURN


def test_nothing_lost_alone_has_its_own_reason():
    scorer = IfdShardScorer(IfdConfig(skip_from_one=False), OpenedModel(Job(seed=0), None, None))
    none, some = np.zeros(2, np.float32), np.ones(2, np.float32)
    assert Answers([some], [none]).ifd("loss") == np.inf
    assert scorer._reason(np.inf, Answers([some], [none])) == INFINITE
    assert scorer._reason(1.5, Answers([some], [some])) is None
    assert Answers([none], [none]).ifd("loss") == Answers([none], [none]).ifd("perplexity") == 1.0


@pytest.mark.parametrize("component", [PERPLEXITY, IFD])
def test_the_device_chooses_the_tokens_of_a_pass_and_scores_stay_equal(job, examples, component):
    def scored(**options):
        part = component.build(component.config(**options))
        with part.open(job) as opened:
            tokens = opened._model.losses._batch_tokens
            return tokens, opened.score(Shard(0, np.arange(len(examples)), examples)).score

    (by_default, few), (chosen, many) = scored(), scored(batch_tokens=16384)
    assert (by_default, chosen) == (1024, 16384)
    np.testing.assert_allclose(few, many, atol=1e-5)


def test_an_ifd_of_one_or_more_is_skipped_with_its_reason_and_kept_as_a_detail(job, examples):
    everything = score_all(IfdScorer(IfdConfig(skip_from_one=False)), job, examples)
    found = score_all(IfdScorer(IfdConfig()), job, examples)
    ifd = everything.details["ifd"]
    assert (ifd >= 1).any()
    assert (ifd < 1).any()
    for row, value in enumerate(ifd):
        if value >= 1:
            assert found.skipped[row] == FROM_ONE
            assert np.isnan(found.score[row])
        elif value < 1:
            assert found.score[row] == everything.score[row]
    np.testing.assert_array_equal(found.details["ifd"], ifd)


def test_a_template_that_pushes_most_above_one_is_told(tmp_path):
    scorer = IfdScorer(IfdConfig())
    _write(tmp_path / "most", [1.0] * 4, ifd=np.array([1.2, 1.0, 1.1, 0.3]))
    (text,) = scorer.finish(ScoreTable.open(tmp_path / "most")).warnings
    assert text.startswith("75% of the examples have an IFD of 1 or more")
    _write(tmp_path / "half", [1.0] * 4, ifd=np.array([1.2, 1.1, 0.1, 0.3]))
    assert scorer.finish(ScoreTable.open(tmp_path / "half")).warnings == ()
    _write(tmp_path / "none", [1.0] * 4, ifd=np.array([np.nan, 0.1, 0.1, 0.3]), skip=[0])
    (text,) = scorer.finish(ScoreTable.open(tmp_path / "none")).warnings
    assert text.startswith("25.0% of the examples have no IFD")


def _encoded(parts: list[int]) -> EncodedExample:
    return EncodedExample(
        np.arange(10, 10 + len(parts), dtype=np.int32), np.array(parts, np.uint8), cut=False
    )


def test_turns_of_hand_made_parts():
    #               f  p  p  f  f  r  r  f  p  f  r  f  r  f
    one = _encoded([0, 1, 1, 0, 0, 2, 2, 0, 1, 0, 2, 0, 2, 0])
    turns = answered_turns(one)
    # The last answer follows an answer: nobody asked for it.
    assert turns == [Turn(3, 5, 7), Turn(9, 10, 11)]
    ids, mask = alone(one, turns[0], None)
    assert ids.tolist() == [13, 14, 15, 16]
    assert mask.tolist() == [False, False, True, True]
    ids, mask = alone(one, turns[0], 10)
    assert ids.tolist() == [10, 13, 14, 15, 16]
    assert mask.tolist() == [False, False, False, True, True]
    assert np.flatnonzero(within(one, turns, [2, 1])).tolist() == [5, 6, 10]
    assert answered_turns(_encoded([0, 0, 2, 2])) == []
    assert answered_turns(_encoded([0, 1, 0])) == []
    # Nothing opens the answer: its first token has no loss alone, so it counts in neither.
    ids, mask = alone(_encoded([1, 2, 2]), Turn(1, 1, 3), None)
    assert (ids.tolist(), mask.tolist()) == ([11, 12], [False, True])


# ------------------------------------------------------------------------------ token losses


def test_the_head_runs_on_nothing_but_counted_tokens_and_in_pieces(llama, monkeypatch):
    model = LlamaForCausalLM.from_pretrained(llama.location)
    monkeypatch.setattr(losses_module, "HEAD_BYTES", 4 * 257 * 5)
    reader = TokenLosses(model, "cpu", 64)
    rows = []
    model.lm_head.register_forward_hook(lambda _m, inputs, _o: rows.append(inputs[0].shape[:-1]))
    random = np.random.default_rng()
    ids = [random.integers(0, 256, size=length) for length in (30, 1, 17, 23, 9)]
    masks = [random.random(len(of)) < 0.4 for of in ids]
    masks[3][:] = False
    for mask in masks:
        mask[0] = False
    found = reader.of(ids, masks)
    assert sum(math.prod(shape) for shape in rows) == sum(mask.sum() for mask in masks)
    assert max(math.prod(shape) for shape in rows) <= 5
    for of, mask, losses in zip(ids, masks, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor(of[None])).logits[0]
        expected = -logits.log_softmax(-1)[np.arange(len(of)) - 1, of]
        np.testing.assert_allclose(losses, expected[torch.from_numpy(mask)], rtol=1e-4, atol=1e-5)


def test_what_a_model_does_to_its_logits_behind_the_head_counts():
    torch.manual_seed(0)
    config = Gemma2Config(**TINY, head_dim=8, final_logit_softcapping=0.5, query_pre_attn_scalar=8)
    model = Gemma2ForCausalLM(config).eval()
    ids = np.array([5, 9, 77, 3])
    (found,) = TokenLosses(model, "cpu", 64).of([ids], [np.array([False, True, True, True])])
    with torch.no_grad():
        logits = model(torch.tensor(ids[None])).logits[0]
    assert logits.abs().max() <= 0.5
    expected = -logits.log_softmax(-1)[np.arange(3), ids[1:]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_model_without_a_decoder_of_its_own_is_refused(llama):
    model = LlamaForCausalLM.from_pretrained(llama.location)
    with pytest.raises(ModelError, match="cannot be separated from its head"):
        TokenLosses(model.model, "cpu", 64)


# ------------------------------------------------------------------------------------ ranks


def test_ranks_percentiles_and_z_scores_by_hand():
    values = np.array([3.0, 1.0, 3.0, 8.0])
    assert ranks(values).tolist() == [2.5, 1.0, 2.5, 4.0]
    assert percentiles(values).tolist() == [50.0, 12.5, 50.0, 87.5]
    assert z_scores(np.array([1.0, 3.0])).tolist() == [-1.0, 1.0]
    with pytest.raises(StageError, match="3 equal scores have no z-scores"):
        z_scores(np.full(3, 2.0))


def _write(folder: Path, scores, *, skip=(), ids=None, **details) -> None:
    """Write a table of one part; the rows in ``skip`` are skipped because of ``why ROW``."""
    reasons = [f"why {row}" if row in skip else None for row in range(len(scores))]
    values = np.where([reason is not None for reason in reasons], np.nan, scores)
    names = [f"{number:016d}".encode() for number in ids or range(len(scores))]
    write_part(
        folder,
        0,
        pa.array(names, pa.binary(16)),
        pa.array(["s"] * len(scores)),
        ShardScores(values, reasons, details),
    )


def _blend(tmp_path: Path, **options: object) -> ShardScores:
    _write(tmp_path / "a", [10.0, 30.0, 20.0, 99.0, 0.0, 7.0], skip=[3])
    _write(tmp_path / "b", [0.5, 0.1, 0.9, 0.0, 0.7, 0.0], skip=[3, 5])
    tables = {name: ScoreTable.open(tmp_path / name) for name in "ab"}
    config = BlendConfig(**{"scores": ("a", "b"), **options})
    return BlendScorer(config).combine(tables, Job(seed=0))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Of the four rows that both score: ranks 2 4 3 1 by a, 2 1 4 3 by b.
        ({}, [4, 5, 7, 4]),
        ({"weights": (2.0, 0.5)}, [5, 8.5, 8, 3.5]),
        ({"combine": "min"}, [2, 1, 3, 1]),
        ({"combine": "product"}, [4, 4, 12, 3]),
        ({"combine": "min", "scale": "percentile"}, [37.5, 12.5, 62.5, 12.5]),
        ({"combine": "product", "scale": "raw"}, [5, 3, 18, 0]),
    ],
)
def test_blends_of_hand_made_scores(tmp_path, options, expected):
    found = _blend(tmp_path, **options)
    assert found.score[[0, 1, 2, 4]].tolist() == expected
    assert found.skipped == [None, None, None, "a: why 3", None, "b: why 5"]
    assert np.isnan(found.score[[3, 5]]).all()
    assert found.details.keys() == {"of_a", "of_b"}


def test_a_blend_of_z_scores(tmp_path):
    found = _blend(tmp_path, scale="z-score", weights=(1.0, 3.0)).score[[0, 1, 2, 4]]
    a, b = np.array([10.0, 30.0, 20.0, 0.0]), np.array([0.5, 0.1, 0.9, 0.7])
    expected = (a - a.mean()) / a.std() + 3 * (b - b.mean()) / b.std()
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("first", "order"),
    [
        # By a alone the four rows come as 1 2 0 4, by b as 2 4 0 1.
        ({}, [1, 2, 0, 4]),
        ({"b": 0.5}, [2, 4, 1, 0]),
        ({"b": 0.3}, [2, 4, 1, 0]),
        ({"b": 0.25}, [2, 1, 0, 4]),
        ({"b": 0.75}, [2, 0, 4, 1]),
        ({"b": 0.5, "a": 0.5}, [2, 1, 0, 4]),
    ],
)
@pytest.mark.parametrize("scale", ["rank", "raw"])
def test_what_passes_the_filters_comes_first(tmp_path, first, order, scale):
    found = _blend(tmp_path, scores=("a",), filter_first=first, scale=scale)
    assert [row for row in np.argsort(-found.score, kind="stable") if row not in (3, 5)] == order
    assert found.details.keys() == {"of_a"}


def test_of_equal_scores_that_filter_all_come_first(tmp_path):
    _write(tmp_path / "a", [4.0, 3.0, 2.0, 1.0])
    _write(tmp_path / "b", [0.0, 7.0, 7.0, 7.0])
    tables = {name: ScoreTable.open(tmp_path / name) for name in "ab"}
    config = BlendConfig(scores=("a",), filter_first={"b": 0.25})
    found = BlendScorer(config).combine(tables, Job(seed=0)).score
    assert np.argsort(-found).tolist() == [1, 2, 3, 0]


def test_tables_of_other_examples_are_an_error(tmp_path):
    _write(tmp_path / "a", [1.0, 2.0, 3.0])
    _write(tmp_path / "b", [1.0, 2.0, 3.0], ids=[0, 1, 7])
    tables = {name: ScoreTable.open(tmp_path / name) for name in "ab"}
    with pytest.raises(StageError, match="1 ids of the first have no score in the second"):
        BlendScorer(BlendConfig(scores=("a", "b"))).combine(tables, Job(seed=0))
    with pytest.raises(StageError, match="no score 'c' to blend"):
        BlendScorer(BlendConfig(scores=("a", "c"))).combine(tables, Job(seed=0))


# --------------------------------------------------------------------------- with the core


@pytest.mark.parametrize(
    ("component", "options"),
    [
        (PERPLEXITY, {}),
        (PERPLEXITY, {"prefer": "mid", "percentile": 30}),
        (IFD, {"prefer": "low"}),
        (IFD, {"skip_from_one": False}),
    ],
)
def test_they_pass_the_conformance_kit(llama, component, options):
    some = generated_examples(16)
    check_scorer(component, options=options, examples=some, model=llama.location)


@pytest.mark.parametrize("combine", ["sum", "min", "product"])
def test_blend_passes_the_conformance_kit(combine):
    check_scorer(BLEND, options={"scores": ["x", "y"], "combine": combine})


def test_the_plugin_is_sound():
    check_plugin("selectmoe_lm.plugin")


def test_the_stage_finishes_in_the_middle_and_again_after_a_kill(tmp_path, llama, examples):
    bench, config, job = trial(tmp_path, llama, examples, PERPLEXITY, prefer="mid")
    out = tmp_path / "out"
    options = {"shard_examples": 7, "max_skipped": 0.1}
    facts = score_stage.run(context_of(PERPLEXITY, config, bench, job, out, **options))
    table = ScoreTable.open(out)
    loss = table.detail("loss")
    scored = np.isfinite(loss)
    np.testing.assert_array_equal(table.score()[scored], -np.abs(percentiles(loss[scored]) - 50))
    assert np.isnan(table.score()[~scored]).all()
    assert facts["skipped"] == {NOTHING_COUNTS: 1}
    before = table.score()
    (out / "scores" / "part-00002.parquet").unlink()
    score_stage.run(context_of(PERPLEXITY, config, bench, job, out, **options))
    np.testing.assert_array_equal(ScoreTable.open(out).score(), before)


def test_ifd_may_skip_more_than_others_unless_the_recipe_forbids_it(
    tmp_path, llama, examples, capsys
):
    bench, config, job = trial(tmp_path, llama, examples, IFD)
    facts = score_stage.run(context_of(IFD, config, bench, job, tmp_path / "out"))
    assert facts["skipped"][FROM_ONE] > 0.01 * len(examples)
    assert any("have no IFD" in text for text in facts["warnings"])
    assert "warning: score: " in capsys.readouterr().err
    strict = context_of(IFD, config, bench, job, tmp_path / "out", max_skipped=0.02)
    with pytest.raises(StageError, match=r"more than max_skipped = 2.0%: .*IFD of 1 or more"):
        score_stage.run(strict)
    kept = config.model_copy(update={"skip_from_one": False})
    with pytest.raises(StageError, match=r"more than max_skipped = 1.0%"):
        score_stage.run(context_of(IFD, kept, bench, job, tmp_path / "kept"))


def test_a_single_row_without_a_score_ends_no_run_unless_the_recipe_says_so(
    tmp_path, llama, examples
):
    bench, config, job = trial(tmp_path, llama, examples, PERPLEXITY)
    facts = score_stage.run(context_of(PERPLEXITY, config, bench, job, tmp_path / "one"))
    assert (facts["examples"] - facts["scored"], facts["skipped"]) == (1, {NOTHING_COUNTS: 1})
    strict = context_of(PERPLEXITY, config, bench, job, tmp_path / "strict", max_skipped=0.01)
    with pytest.raises(StageError, match=r"1 of 30 examples \(3.3%\)") as caught:
        score_stage.run(strict)
    assert "max_skipped = 0.04 in [score]" in caught.value.hint


# ---------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (PerplexityConfig, {"percentile": 30}, "has no effect"),
        (PerplexityConfig, {"prefer": "mid", "percentile": 100}, "less than 100"),
        (BlendConfig, {"scores": []}, "at least 1"),
        (BlendConfig, {"scores": ["a", "b", "a"]}, "names a twice"),
        (BlendConfig, {"scores": ["a", "b"], "weights": [1]}, "1 'weights' for 2 'scores'"),
        (BlendConfig, {"scores": ["a"], "weights": [0]}, "greater than 0"),
        (BlendConfig, {"scores": ["a"], "combine": "min", "weights": [1]}, "have no effect"),
        (BlendConfig, {"scores": ["a"], "combine": "product", "scale": "z-score"}, "two bad"),
    ],
)
def test_nonsense_is_refused(config, options, message):
    with pytest.raises(ValidationError, match=message):
        config(**options)


def test_cost_counts_the_second_pass_and_knows_when_it_knows_nothing():
    load = Workload(1000, 50_000, estimated=False, model=dict(TINY), dtype="float32")
    once, twice = PERPLEXITY.cost(PerplexityConfig(), load), IFD.cost(IfdConfig(), load)
    assert twice.flops == pytest.approx(2 * once.flops)
    assert once.memory > 0
    assert PERPLEXITY.cost(PerplexityConfig(), replace(load, model=None)).flops is None
    assert IFD.cost(IfdConfig(), replace(load, model={"n_embd": 3})).flops is None
