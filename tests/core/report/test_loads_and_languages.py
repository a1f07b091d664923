"""The load of experts and the languages of the pool, beside hand-made values."""

import json

import numpy as np
import pytest
from report_runs import Run, example

from selectmoe_core.data.pool import Pool
from selectmoe_core.report import write_report
from selectmoe_core.report.gather import gather
from selectmoe_core.report.markdown import render_markdown

LOG = [{"step": step, "loss": 1.0 / step} for step in (1, 2, 3)]


def test_the_load_of_experts_before_and_after(tmp_path):
    """Four experts and two trash cans; in layer 1 all slots go to trash cans afterwards."""
    before = [[0.4, 0.3, 0.2, 0.1, 0.0, 0.0], [0.25, 0.25, 0.0, 0.0, 0.25, 0.25]]
    after = [[0.36, 0.0, 0.02, 0.02, 0.3, 0.3], [0.0, 0.0, 0.0, 0.0, 0.5, 0.5]]
    run = Run(tmp_path)
    facts = {"examples": 9, "tokens": 70, "experts": 4, "before": before, "after": after}
    run.train("warmup", LOG, facts={"expert_load": facts})
    run.train("train", LOG)
    warmup, train = gather(run.record()).training
    assert train.load is None
    first, second = warmup.load.layers
    assert first.trash == pytest.approx((0.0, 0.6))
    assert first.busiest == pytest.approx((0.4, 0.9))
    assert first.idle == (0, 1)  # less than a fortieth: 0 of .4, while .02 of .4 is a twentieth
    assert second.trash == pytest.approx((0.5, 1.0))
    assert second.busiest == pytest.approx((0.5, 0.0))
    assert second.idle == (2, 4)
    assert warmup.load.before.columns == ("0", "1", "2", "3", "T0", "T1")
    np.testing.assert_array_equal(warmup.load.after.values, after)
    page = write_report(run.record(), run.folder).page.read_text("utf-8")
    text = " ".join(page.split())
    assert "9 examples (70 tokens) of the warm-up" in text
    row = '<th scope="row">1</th><td>50.0 %</td><td>100.0 %</td><td>50.0 %</td><td>0.0 %</td>'
    assert row + "<td>2</td><td>4</td>" in page
    assert json.loads((run.folder / "report.json").read_text())["training"][0]["load"]


def with_languages(tmp_path, languages):
    run = Run(tmp_path)
    pool = run.pool([example("ab"[n % 2], f"q{n}", f"answer {n}") for n in range(6)])
    run.add("filter:length", "length", {"examples": 6, "left_out": 0})
    run.add("filter:language", "language", {"languages": languages, "examples": 6})
    run.score(pool, list(range(6)))
    return run


def test_languages_by_source_the_most_frequent_first(tmp_path):
    counts = {
        "a": {"en": 5, "de": 1, "fr": 1, "es": 1, "it": 1, "nl": 1, "": 2},
        "b": {"de": 9, "en": 6},
    }
    run = with_languages(tmp_path, counts)
    found = gather(run.record()).languages
    assert found.languages == 7
    assert found.codes == ("en", "de", "unknown", "es", "fr", "others")
    rows = {row.name: (row.examples, row.counts) for row in found.rows}
    assert rows == {
        "whole pool": (27, (11, 10, 2, 1, 1, 2)),
        "b": (15, (6, 9, 0, 0, 0, 0)),
        "a": (12, (5, 1, 2, 1, 1, 2)),
    }
    assert [row.name for row in found.rows] == ["whole pool", "b", "a"]
    page = write_report(run.record(), run.folder).page.read_text("utf-8")
    assert '<th scope="row">b</th><td>15</td><td>40.0 %</td><td>60.0 %</td>' in page
    assert "languages" not in render_markdown(gather(run.record())).lower()


def test_languages_of_what_was_chosen(tmp_path):
    run = with_languages(tmp_path, {"a": {"en": 5, "de": 1}, "b": {"de": 9, "fr": 1}})
    for arm, counts in (
        ("selected", {"a": {"en": 2}}),
        ("random", {"a": {"de": 1}, "b": {"fr": 1}}),
    ):
        key = "select" if arm == "selected" else "select@random"
        of = {source: {"kept": 1, "of": 3} for source in counts}
        folder = run.select(Pool.open(run.nodes[0].folder), [0], key, (arm,)).folder
        facts = {"kept": 1, "of": 6, "sources": of, "languages": counts}
        run.nodes.pop()
        run.add(key, "top-k", facts, (arm,), folder=folder)
    rows = {row.name: row.counts for row in gather(run.record()).languages.rows}
    assert list(rows) == ["whole pool", "selected: chosen", "random: chosen", "b", "a"]
    assert rows["selected: chosen"] == (0, 2, 0)  # de, en, fr
    assert rows["random: chosen"] == (1, 0, 1)


def test_one_language_is_one_sentence(tmp_path):
    run = with_languages(tmp_path, {"a": {"en": 3}, "b": {"en": 3}})
    page = write_report(run.record(), run.folder).page.read_text("utf-8")
    assert "All 6 examples are in one language: en." in page


def test_without_such_a_filter_nothing_is_said(tmp_path):
    run = with_languages(tmp_path, {})
    assert gather(run.record()).languages is None
    assert "Languages" not in write_report(run.record(), run.folder).page.read_text("utf-8")


def test_many_sources_are_combined(tmp_path):
    run = with_languages(tmp_path, {f"s{n:02d}": {"en": n + 1, "de": 1} for n in range(60)})
    rows = gather(run.record()).languages.rows
    assert len(rows) == 41
    assert (rows[0].name, rows[0].examples) == ("whole pool", sum(range(1, 61)) + 60)
    assert rows[-1].name == "21 other sources"
    assert rows[-1].counts == (sum(range(1, 22)), 21)
