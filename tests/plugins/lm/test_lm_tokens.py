"""The numbers of tokens: what the scores are computed from, and when the stage asks for them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from lm_models import context_of, score_all, trial, tulu

from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.data.shown import examples_of_score, read_tokens
from selectmoe_core.errors import PluginError
from selectmoe_core.stages.scoring import score as score_stage
from selectmoe_core.stages.scoring import shading
from selectmoe_lm.config import IfdConfig, PerplexityConfig, TokenIfdConfig
from selectmoe_lm.ifd import IfdScorer
from selectmoe_lm.perplexity import PerplexityScorer, PerplexityShardScorer
from selectmoe_lm.plugin import selectmoe_scorers
from selectmoe_lm.token_ifd import TokenIfdScorer

PERPLEXITY = selectmoe_scorers()[0]


def test_the_losses_of_tokens_are_what_the_scores_are_made_of(job, examples):
    some = [examples[row] for row in (1, 5, 12)]
    plain = score_all(PerplexityScorer(PerplexityConfig()), job, examples)
    with PerplexityScorer(PerplexityConfig()).open(job) as scorer:
        details = scorer.tokens(some)
    for detail, row in zip(details, (1, 5, 12), strict=True):
        assert detail.values[detail.counts].mean() == pytest.approx(-plain.score[row], abs=1e-5)
        assert np.isnan(detail.values[~detail.counts]).all()
        assert "".join(detail.texts) == tulu(examples[row].messages)


def test_the_ifd_of_tokens_is_the_loss_that_the_instruction_saves(job, examples):
    options = {"ratio": "perplexity", "skip_from_one": False}
    ratio = score_all(IfdScorer(IfdConfig(**options)), job, examples)
    single = [row for row in range(30) if row % 3 == 0 and row % 4 and row not in (7, 8)]
    with IfdScorer(IfdConfig(**options)).open(job) as scorer:
        details = scorer.tokens([examples[row] for row in single])
    for detail, row in zip(details, single, strict=True):
        saved = math.exp(detail.values[detail.counts].mean())
        assert saved == pytest.approx(abs(ratio.score[row]), rel=1e-4)


def test_the_stage_asks_for_the_tokens_of_the_shown_examples(tmp_path, llama, examples):
    bench, config, job = trial(tmp_path, llama, examples, PERPLEXITY, prefer="mid")
    out = tmp_path / "out"
    context = context_of(PERPLEXITY, config, bench, job, out, shard_examples=7, max_skipped=0.1)
    score_stage.run(context)
    found, table = read_tokens(out), ScoreTable.open(out)
    # By the final scores, not by those before finish().
    assert set(found) == set(examples_of_score(table.score(), table.ids(), table.sources()[0]))
    assert {detail.name for detail in found.values()} == {"loss in nats"}
    before = (out / "shown_tokens.parquet").read_bytes()
    (out / "shown_tokens.parquet").unlink()
    score_stage.run(context)  # as if it was killed after the last shard
    assert (out / "shown_tokens.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda details: details[1:], "29 of 30 examples"),
        (lambda details: [replace(details[0], texts=("a",)), *details[1:]], "the lengths"),
    ],
)
def test_a_scorer_that_returns_other_tokens_is_named(
    tmp_path, llama, examples, monkeypatch, broken, said
):
    real = PerplexityShardScorer.tokens
    monkeypatch.setattr(PerplexityShardScorer, "tokens", lambda *a: broken(real(*a)))
    monkeypatch.setattr(shading, "examples_of_score", lambda *_: list(range(30)))
    bench, config, job = trial(tmp_path, llama, examples, PERPLEXITY)
    context = context_of(PERPLEXITY, config, bench, job, tmp_path / "out", max_skipped=0.1)
    with pytest.raises(PluginError, match=said):
        score_stage.run(context)


def test_token_ifd_shades_the_changes_that_it_counts(job, examples):
    some = [examples[row] for row in (1, 3, 14)]
    with TokenIfdScorer(TokenIfdConfig()).open(job) as scorer:
        details = scorer.tokens(some)
    with IfdScorer(IfdConfig()).open(job) as scorer:
        for mine, other in zip(details, scorer.tokens(some), strict=True):
            np.testing.assert_allclose(mine.values, other.values)
    found = score_all(TokenIfdScorer(TokenIfdConfig()), job, examples)
    for detail, row in zip(details, (1, 3, 14), strict=True):
        assert detail.counts.sum() == found.details["tokens"][row]
        assert math.exp(detail.values[detail.counts].mean()) == pytest.approx(
            found.details["ifd"][row], rel=1e-3
        )
