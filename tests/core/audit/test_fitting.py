"""A blend that is fitted on planted damage: against plain gradient descent, and on kinds unseen."""

import json
import math

import numpy as np
import pytest
from test_audit import KINDS, damaging_site, desk, document  # noqa: F401

from selectmoe_core.audit.fitting import TooFew, fit_blend
from selectmoe_core.audit.fitting_text import blend_lines


def slow_weights(ranks, clean):
    """Return the weights of the penalised regression, by plain gradient descent on z-scores."""
    spread = ranks.std(axis=0)
    inputs = (ranks - ranks.mean(axis=0)) / spread
    sizes = np.where(clean, len(clean) / (2 * clean.sum()), len(clean) / (2 * (~clean).sum()))
    weights, bias = np.zeros(inputs.shape[1]), 0.0
    for _ in range(6000):
        error = sizes * (1 / (1 + np.exp(-(inputs @ weights + bias))) - clean)
        weights = weights - 0.005 * (inputs.T @ error + weights) / len(clean) * 20
        bias -= 0.005 * error.sum() / len(clean) * 20
    return weights / spread


def slow_ranks(values):
    order = sorted(values)
    return np.array(
        [(sum(v < x for v in order) + sum(v <= x for v in order) + 1) / 2 for x in values]
    ) / len(values)


def planted(seed, sight, rows=120):
    """Return scores and labels; ``sight[name][kind]`` is how far a score sees a kind."""
    random = np.random.default_rng(seed)
    kinds = sorted({kind for seen in sight.values() for kind in seen})
    labels = np.array([""] * rows + [kind for kind in kinds for _ in range(rows // 2)])
    scores = {
        name: random.normal(size=len(labels)) - np.array([seen.get(k, 0.0) for k in labels])
        for name, seen in sight.items()
    }
    return scores, labels


def test_the_weights_are_those_of_a_slow_regression():
    scores, labels = planted(1, {"one": {"a": 2.0, "b": 0.5}, "two": {"a": 0.3, "b": 1.0}})
    found = fit_blend(scores, labels, ["a", "b"])
    ranks = np.column_stack([slow_ranks(score) for score in scores.values()])
    one, two = slow_weights(ranks, labels == "")
    assert found.weights["one"] / found.weights["two"] == pytest.approx(one / two, rel=0.03)
    assert min(found.weights.values()) == 1.0
    assert found.kinds == ("a", "b")


def test_only_the_given_kinds_and_scored_rows_count():
    scores, labels = planted(2, {"one": {"a": 2.0}, "two": {"b": 2.0}, "three": {"a": 1.0}})
    both = fit_blend(scores, labels, ["a", "b"])
    only = fit_blend(scores, labels, ["a"])
    assert both.weights["two"] > 2 * both.weights["three"]
    # Of a score that sees nothing of "a" hardly anything is left.
    assert only.weights.get("two", 0.0) < 0.4 * only.weights["one"]
    changed = {name: np.where(labels == "b", math.inf, score) for name, score in scores.items()}
    assert fit_blend(changed, labels, ["a"]) == only
    holes = dict(scores, three=np.where(np.arange(len(labels)) % 3 == 0, math.nan, scores["three"]))
    known = np.isfinite(holes["three"])
    kept = {name: score[known] for name, score in holes.items()}
    assert fit_blend(holes, labels, ["a", "b"]) == fit_blend(kept, labels[known], ["a", "b"])


def test_a_score_that_prefers_damage_is_left_out():
    scores, labels = planted(3, {"good": {"a": 1.5, "b": 1.5}, "bad": {"a": -1.0, "b": -1.0}})
    found = fit_blend(scores, labels, ["a", "b"])
    assert found.left_out == ("bad",)
    assert found.weights == {"good": 1.0}
    assert found.fitted == found.alone["good"]
    assert found.equal.value < found.fitted.value
    assert "only good helps: use it alone" in "\n".join(blend_lines(found))


def test_it_is_measured_on_kinds_that_it_has_not_seen():
    # Fitted on the other kind, each of the two trusts the score that sees nothing of this one.
    scores, labels = planted(4, {"one": {"a": 3.0, "b": -0.5}, "two": {"a": -0.5, "b": 3.0}}, 400)
    found = fit_blend(scores, labels, ["a", "b"])
    assert found.fitted.value < 0.5
    assert found.equal.value > 0.75
    assert fit_blend(scores, labels, ["a"]).fitted.value > 0.95


def test_too_few_rows_are_not_fitted():
    scores, labels = planted(5, {"one": {"a": 1.0}, "two": {"a": 1.0}}, rows=30)
    assert isinstance(fit_blend(scores, labels, ["a"]), TooFew)
    assert "raise --sample" in "\n".join(blend_lines(TooFew()))


def test_an_audit_prints_the_table_of_the_blend(desk):  # noqa: F811
    command = ["audit", "recipe.toml", "--kinds", KINDS, "--sample", 200, "--fit-blend"]
    said = desk.call(*command, "--score", "fake-score", "--score", "eyes", "--score", "length")
    assert said.code == 0, said.err
    assert (
        "a blend, fitted on kinds that warm-up was not shown: broken, cut and foreign" in said.out
    )
    blend = document(desk)["blend"]
    assert blend["weights"]["eyes"] >= 1.0
    assert blend["fitted"]["value"] > 0.5
    json.dumps(blend)
    for arguments, told in (
        (["--score", "eyes", "--labelled", "recipe.toml"], "leave out --labelled"),
        ([], "needs two or more scores"),
    ):
        said = desk.call(*command, *arguments)
        assert said.code == 2
        assert told in said.err
