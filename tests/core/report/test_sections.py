"""The sections of the report against hand-made values and slow plain references."""

import json
import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import fastjsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
from report_runs import Run, accuracy, example, full_run, made_up_tokens
from scipy.stats import spearmanr

from selectmoe_core.cli import DISABLE
from selectmoe_core.cli.run import command as run_command
from selectmoe_core.data.shown import TokenDetail, examples_of_score, ladder
from selectmoe_core.report import write_report
from selectmoe_core.report.charts import (
    line_path,
    losses_panel,
    moving_mean,
    steps_path,
    ticks,
    training_panels,
)
from selectmoe_core.report.document import to_document
from selectmoe_core.report.gather import gather
from selectmoe_core.report.html import KINDS
from selectmoe_core.report.schema import derived_schema, shipped_schema
from selectmoe_core.report.sections.agreement import agreements
from selectmoe_core.report.sections.command import CommandLine
from selectmoe_core.report.sections.shading import LEVELS, SHADED, shadings
from selectmoe_core.store import Artifact


@pytest.mark.parametrize(
    ("command", "recipe", "overrides", "until"),
    [
        ("selectmoe run default", "default", (), ""),
        (
            "selectmoe run 'my recipe.toml' select.fraction=0.2 ~warmup --until select",
            "my recipe.toml", ("select.fraction=0.2", "~warmup"), "select",
        ),
        (
            "selectmoe run --outputs a=b --accelerate-config score=x.yaml -q r.toml seed=3 "
            "--until=score --threads 2",
            "r.toml", ("seed=3",), "score",
        ),
        ("selectmoe run r.toml 'score.use=\"it is\"'", "r.toml", ('score.use="it is"',), ""),
        ("python train.py", "", (), ""),
        ("selectmoe run 'unclosed", "", (), ""),
        ("", "", (), ""),
    ],
)  # fmt: skip
def test_a_command_line_in_parts(command, recipe, overrides, until):
    assert CommandLine.read(command) == CommandLine(recipe, overrides, until)


def test_the_value_of_an_option_is_no_override():
    options = [option for option in run_command.params if option.param_type_name == "option"]
    taking = [option.opts[-1] for option in options if not option.is_flag]
    assert len(taking) > 8
    for option in (*taking, DISABLE):
        line = f"selectmoe run {option} 2 recipe.toml"
        assert CommandLine.read(line).recipe == "recipe.toml", option
        assert CommandLine.read(line).overrides == ()


def chosen_run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    pool = run.pool([example("a", f"q{n}", f"answer {n}") for n in range(40)])
    run.score(pool, list(range(40)))
    run.select(pool, [39, 38, 37, 36])
    return run


@pytest.mark.parametrize(
    ("own", "random", "stderr", "verdict", "said"),
    [
        (0.702, 0.552, 0.014, "better", "+15.0 points (95 % interval 11.1 to 18.9; one training"),
        (0.552, 0.702, 0.014, "worse", "-15.0 points (95 % interval -18.9 to -11.1; one training"),
        (0.560, 0.552, 0.014, "no difference", "+0.8 points (95 % interval -3.1 to 4.7; one"),
        (0.560, 0.552, None, "no verdict", "+0.8 points (no standard error, so no interval)"),
        (0.260, 0.252, 0.014, "no verdict", "+0.8 points (95 % interval"),
    ],
)
def test_the_headline_says_what_the_interval_allows(tmp_path, own, random, stderr, verdict, said):
    run = chosen_run(tmp_path)
    run.evaluate("selected", {"arc": accuracy(own, stderr)})
    run.evaluate("random", {"arc": accuracy(random, stderr)})
    headline = gather(run.record()).headline
    assert headline.selection == "4 of 40 examples (10.0 %) chosen by router"
    shares = f"accuracy {100 * own:.1f} % against random's {100 * random:.1f} %: "
    assert headline.result.startswith(shares + said)
    assert headline.verdict == verdict
    named = {"better": "selected beats random", "worse": "selected is worse than random"}
    named["no difference"] = "no measurable difference from random"
    assert headline.verdict_text == named.get(verdict, "no verdict")


def test_a_measure_that_is_no_share_keeps_its_unit(tmp_path):
    run = chosen_run(tmp_path)
    of = {"metric": "word_perplexity,none", "higher_is_better": False, "chance": None}
    run.evaluate("selected", {"wiki": accuracy(12.5, 0.5) | of})
    run.evaluate("random", {"wiki": accuracy(20.0, 0.5) | of})
    headline = gather(run.record()).headline
    assert headline.result.startswith("word_perplexity 12.50 against random's 20.00: -7.5 (95 %")
    assert headline.verdict == "better"


def test_the_headline_names_overrides_warnings_and_what_to_do_next(tmp_path):
    run = chosen_run(tmp_path)
    run.evaluate("selected", {"arc": accuracy(0.26, 0.02)})
    run.evaluate("random", {"arc": accuracy(0.25, 0.02)})
    run.evaluate("base", {"arc": accuracy(0.29, 0.02)})
    record = replace(
        run.record("selectmoe run default seed=4 select.fraction=0.1 --until evaluate"),
        recipe="[select]\nfraction = 0.1\n",
    )
    headline = gather(record).headline
    assert headline.overrides == ("seed=4", "select.fraction=0.1")
    assert "stopped after evaluate as asked" in headline.ran
    assert any("every arm is at chance on arc" in text for text in headline.warnings)
    assert any("untouched base model is better" in text for text in headline.warnings)
    assert any("the score follows length" in text for text in headline.warnings)
    commands = [command for _, command in headline.next_steps]
    assert commands == [
        "selectmoe compare default select.fraction=0.1 'seed=[1,2,3]'",
        "selectmoe audit default seed=4 select.fraction=0.1",
        "selectmoe run default seed=4 select.fraction=0.2",
    ]
    page = write_report(record, run.folder).page.read_text("utf-8")
    assert '<code class="override">select.fraction=0.1</code></h1>' in page


def test_a_run_until_select_opens_on_the_selection(tmp_path):
    run = chosen_run(tmp_path)
    page = write_report(run.record("selectmoe run r --until select"), run.folder).page
    text = page.read_text("utf-8")
    assert "4 of 40 examples (10.0 %) chosen by router." in text
    assert text.index('id="selection"') < text.index('id="scores"')
    assert 'id="result"' not in text
    # The command is the same; what differs is whether the recipe says how to train and evaluate.
    record = run.record("selectmoe run r --until select")
    question = "Does training on it help?"
    for tables, lacking in {
        "": " First add [train] and [evaluate] to the recipe",
        "[train]\n": " First add [evaluate] to the recipe",
        "[train]\n[evaluate]\n": "",
    }.items():
        headline = gather(replace(record, recipe=record.recipe + tables)).headline
        assert (f"{question}{lacking}", "selectmoe run r") in headline.next_steps


def test_examples_know_their_place_in_their_source_and_why(tmp_path):
    run = Run(tmp_path)
    pool = run.pool([example("ab"[n % 2], f"q{n}", f"answer {n}") for n in range(40)])
    scores = [float(n) if n % 2 else n / 100 for n in range(40)]
    scores[4] = math.nan
    run.score(pool, scores, ["too long" if n == 4 else None for n in range(40)])
    run.select(pool, [39, 37, 38], reasons=["a centre", None, None], clusters=[4, None, None])
    shown = {one.row: one for one in gather(run.record()).scores[0].shown}
    of_b = [score for n, score in enumerate(scores) if n % 2]
    assert shown[39].percentile == pytest.approx(100 * 19 / 20)
    assert shown[39].percentile == 100 * np.mean([score < 39 for score in of_b])
    assert shown[39].why == "chosen as number 1 of 3: a centre, cluster 4"
    assert (shown[39].rank, shown[38].rank, shown[35].rank) == (1, 3, None)
    assert shown[35].why == "not chosen: below 37.00, the lowest chosen score of its source"
    # Within source a row 38 with .38 was taken before higher ones of b: one pair for each source.
    border = {row for row, one in shown.items() if "border" in one.kinds}
    assert border == {37, 35, 38, 36}
    assert set(shown[38].kinds) >= {"border", "chosen"}
    assert "chosen" in shown[39].kinds
    assert 4 not in shown


def test_a_selection_of_an_earlier_version_is_shown(tmp_path):
    run = chosen_run(tmp_path)
    path = run.nodes[-1].folder / "selection.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["cluster", "reason"]), path)
    replace(Artifact.load(run.nodes[-1].folder), files={}).save()
    shown = {one.row: one for one in gather(run.record()).scores[0].shown}
    assert shown[39].why == "chosen as number 1 of 4"


def test_the_border_of_a_choice_by_score_alone(tmp_path):
    run = Run(tmp_path)
    pool = run.pool([example("ab"[n % 2], f"q{n}", f"answer {n}") for n in range(40)])
    run.score(pool, list(range(40)))
    run.select(pool, list(range(39, 25, -1)))
    shown = gather(run.record()).scores[0].shown
    assert sorted(one.row for one in shown if "border" in one.kinds) == list(range(21, 31))


def test_agreement_equals_a_slow_count():
    rng = np.random.default_rng()
    first = rng.normal(size=300)
    scores = {"a": first, "b": first + rng.normal(size=300), "c": rng.normal(size=300)}
    scores = {k: np.where(rng.random(300) < 0.1, np.nan, v) for k, v in scores.items()}
    found = agreements(scores, 30)
    assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for one in found:
        x, y = scores[one.first], scores[one.second]
        both = [n for n in range(300) if not math.isnan(x[n]) and not math.isnan(y[n])]
        assert one.rows == len(both)
        assert one.correlation == pytest.approx(spearmanr(x[both], y[both]).statistic)
        best = [set(sorted(both, key=lambda n, v=v: -v[n])[:30]) for v in (x, y)]
        assert one.overlap == len(best[0] & best[1])
        assert one.chance == pytest.approx(900 / len(both))


def test_the_mass_on_trash_cans_is_shown_as_what_it_is(tmp_path):
    run = Run(tmp_path)
    pool = run.pool([example("ab"[n % 2], f"q{n}", f"answer {n}") for n in range(6)])
    regular = np.array([[0.9, 0.5], [0.8, 0.4], [0.7, 0.3], [0.6, 0.2], [0.5, 0.1], [0.4, 0.0]])
    meaning = {"title": "mass on trash cans", "complement": True, "share": True, "each": ""}
    meanings = {"trash_mass": meaning, "layers": meaning | {"each": "layer"}}
    details = {"trash_mass": regular.mean(axis=1), "layers": regular}
    run.score(pool, regular.mean(axis=1), details=details, meanings=meanings)
    scores = gather(run.record()).scores[0]
    (heat,) = scores.heat_maps
    assert heat.sources == ("whole pool", "b", "a")
    expected = [1 - regular.mean(0), 1 - regular[1::2].mean(0), 1 - regular[::2].mean(0)]
    np.testing.assert_allclose(heat.values, expected, rtol=1e-6)
    best = next(one for one in scores.shown if one.row == 0)
    assert dict(best.details) == {
        "mass on trash cans": "30.0 %",
        "mass on trash cans, layer by layer": "10.0 % 50.0 %",
    }
    page = write_report(run.record(), run.folder).page.read_text("utf-8")
    assert "trash_mass" not in page
    assert "Mean mass on trash cans by source, in %; a column for each layer" in page


def test_the_load_of_experts_is_the_mean_of_the_features(tmp_path):
    run = Run(tmp_path)
    pool = run.pool([example("a", f"q{n}", f"answer {n}") for n in range(8)])
    rng = np.random.default_rng()
    features = rng.random((8, 2 * 3)).astype(np.float16)
    features[3] = np.nan  # a skipped row
    layer = {"title": "mass on trash cans", "each": "layer", "share": True}
    load = {"title": "router probability by output", "each": "output", "rows": "layers"}
    run.score(
        pool, list(range(8)), [None] * 3 + ["empty"] + [None] * 4, parts=3, features=features,
        details={"layers": rng.random((8, 2))}, meanings={"layers": layer, "features": load},
    )  # fmt: skip
    heat = gather(run.record()).scores[0].heat_maps[1]
    assert (heat.sources, heat.columns) == (("layer 0", "layer 1"), ("0", "1", "2"))
    expected = np.delete(features.astype(float), 3, axis=0).mean(axis=0).reshape(2, 3)
    np.testing.assert_allclose(heat.values, expected, rtol=1e-6)
    page = write_report(run.record(), run.folder).page.read_text("utf-8")
    assert "Mean router probability by output; a column for each output, from 0" in page


def test_lengths_in_characters_where_no_stage_made_tokens(tmp_path):
    run = Run(tmp_path)
    pool = run.pool([example("a", "q", "x" * (n + 1)) for n in range(20)])
    run.score(pool, list(range(20)))
    run.select(pool, [19, 0])
    lengths = gather(run.record()).lengths
    whole, own = lengths.rows
    assert (lengths.unit, whole.name, own.name) == ("characters", "pool", "selected")
    assert (whole.total, own.total) == (sum(range(2, 22)), 2 + 21)
    assert own.quantiles[2] == 11.5
    assert whole.counts.sum() == 20


def test_two_selections_example_by_example(tmp_path):
    run = Run(tmp_path)
    pool = run.pool([example("ab"[n % 2], f"q{n}", f"answer {n}") for n in range(20)])
    run.score(pool, list(range(20)))
    run.select(pool, [19, 18, 17, 15])
    run.score(pool, list(range(20)), key="score@random", arms=("random",))
    run.select(pool, [3, 17, 19], "select@random", ("random",))
    (found,) = gather(run.record()).differences
    assert (found.names, found.sizes, found.common) == (("selected", "random"), (4, 3), 2)
    assert found.jaccard == pytest.approx(2 / 5)
    assert found.chance == pytest.approx(4 * 3 / 20)
    assert found.sources == {"a": (1, 0, 0), "b": (3, 3, 2)}
    shown = [(one.group, one.prompt, one.ranks, one.scores[0]) for one in found.examples]
    assert shown == [
        ("first", "q18", (2, None), 18.0),
        ("first", "q15", (4, None), 15.0),
        ("second", "q3", (None, 1), 3.0),
        ("both", "q19", (1, 3), 19.0),
        ("both", "q17", (3, 2), 17.0),
    ]


def test_another_run_with_another_pool_is_compared_by_ids(tmp_path):
    first, second = Run(tmp_path / "a"), Run(tmp_path / "b")
    for run, numbers, kept in ((first, range(10), [9, 8]), (second, range(5, 15), [4, 9])):
        pool = run.pool([example("a", f"q{n}", f"answer {n}") for n in numbers])
        run.add("filler", "x", {})  # so that the digests of the pools differ
        run.score(pool, list(range(10)))
        run.select(pool, kept)
    second.nodes[0] = replace(second.nodes[0], digest="f" * 64)
    (found,) = gather(first.record(), against=second.record()).differences
    assert (found.sizes, found.common, found.chance) == ((2, 2), 1, None)
    assert [(one.group, one.prompt, one.ranks) for one in found.examples] == [
        ("first", "q8", (2, None)), ("second", "q14", (None, 2)), ("both", "q9", (1, 1)),
    ]  # fmt: skip


def test_shades_have_one_scale_and_their_sign():
    nan = math.nan
    first = TokenDetail(
        "loss",
        ("a ", "b ", "c ", "d"),
        np.array([nan, 0.0, 1.0, 1.0]),
        np.array([0, 1, 1, 1], bool),
    )
    second = TokenDetail("loss", ("e", "f"), np.array([-0.5, 0.41]), np.array([1, 1], bool))
    none = TokenDetail("loss", ("g",), np.array([nan]), np.array([False]))
    found = shadings({3: first, 5: second, 7: none})
    assert set(found) == {3, 5}
    pieces = [(one.text, one.level, one.counts) for one in found[3].pieces]
    assert pieces == [("a ", 0, False), ("b ", 1, True), ("c d", LEVELS, True)]
    assert found[3].pieces[2].value == 1.0
    assert [one.level for one in found[5].pieces] == [-3, 3]
    assert (found[5].low, found[5].high) == (-0.5, 1.0)
    assert [piece.text for piece in found[3].largest] == ["c d", "b "]


def test_a_very_long_example_is_shaded_at_its_beginning():
    size = SHADED + 7
    long = TokenDetail("loss", ("x",) * size, np.ones(size), np.ones(size, bool))
    found = shadings({0: long})[0]
    assert ("".join(one.text for one in found.pieces), found.hidden) == ("x" * SHADED, 7)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.53, 0.824), (-3, 12), (1e-6, 3e-6), (0, 123456)]
)
def test_ticks_are_round_and_in_their_place(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    for tick in found:
        assert -1e-6 <= tick.place <= 100 + 1e-6
        assert low + (high - low) * tick.place / 100 == pytest.approx(
            float(tick.text), abs=(high - low) * 1e-3
        )
    assert len(ticks(2.0, 2.0)) == 1


def test_paths_of_pictures():
    assert steps_path(np.array([1, 4]), 4.0) == "M0 40L0 30L50 30L50 0L100 0L100 40Z"
    assert steps_path(np.zeros(2), 0.0) == ""
    points = np.array([0.0, 1.0, 2.0])
    assert line_path(points, np.array([0.0, math.nan, 1.0]), (0, 2, 0, 1)) == "M0 40L100 0"
    assert line_path(points[:1], points[:1], (0, 2, 0, 1)) == "M0 40h1"


def test_a_moving_mean_equals_a_loop():
    values = np.random.default_rng().normal(size=100)
    expected = [values[max(0, n - 2) : n + 3].mean() for n in range(100)]
    np.testing.assert_allclose(moving_mean(values), expected)
    assert moving_mean(values[:40]) is not None
    np.testing.assert_array_equal(moving_mean(values[:40]), values[:40])


def test_curves_are_those_of_the_objective(tmp_path):
    run = Run(tmp_path)
    log = [
        {"step": n, "loss": 5 - n, "pair_accuracy": 0.5 + n / 10, "bce": 1 / (n + 1), "aux": 0.0,
         "constraint": float(n % 2), "trash_share": n / 9, "trash_share/layer_00": n / 8}
        for n in range(4)
    ]  # fmt: skip
    artifact = run.train("warmup", log)
    replace(artifact, details={"options": {"constraint_loss_weight": 0.0, "bce_weight": 1}}).save()
    (training,) = gather(run.record()).training
    panels, out = training_panels(training)
    assert [panel.title for panel in panels] == ["pair accuracy", "bce", "loss", "trash share"]
    assert set(out) == {"constraint", "aux"}
    assert [line.style for line in panels[-1].lines] == ["thin", "own"]
    assert losses_panel([training]).lines[0].style == "own"


def test_the_schema_is_that_of_the_classes_and_fits_every_report(tmp_path):
    assert shipped_schema() == json.loads(json.dumps(derived_schema())), (
        "write report.schema.json again: json.dumps(derived_schema(), indent=1)"
    )
    check = fastjsonschema.compile(shipped_schema())
    whole = full_run(tmp_path / "whole", rows=30)
    empty = Run(tmp_path / "empty")
    for run in (whole, empty, chosen_run(tmp_path / "chosen")):
        document = json.loads(json.dumps(to_document(gather(run.record())), allow_nan=False))
        check(document)
    wrong = document | {"headline": document["headline"] | {"verdict": 3}}
    with pytest.raises(fastjsonschema.JsonSchemaValueException, match="verdict"):
        check(wrong)
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        check({name: value for name, value in document.items() if name != "pool"})


def test_the_markdown_is_short_enough_for_a_pull_request(tmp_path):
    run = full_run(tmp_path, sources=48, rows=90)
    report = write_report(run.record(), run.folder)
    assert len(report.markdown.splitlines()) < 80
    assert "more are in the page" in report.markdown
    assert tomllib.loads(run.record().recipe)["name"] == "nano"


def test_rows_whose_tokens_are_kept_lie_at_equal_steps_of_rank():
    rng = np.random.default_rng()
    score, codes = rng.permutation(2000).astype(float), rng.integers(0, 8, 2000)
    score[rng.choice(2000, 100, replace=False)] = np.nan
    ids = rng.integers(0, 2**63, (2000, 2)).astype(np.uint64)
    known = [n for n in range(2000) if not math.isnan(score[n])]
    order = sorted(known, key=lambda n: -score[n])
    expected = [order[int((step + 0.5) * 1900 / 133)] for step in range(133)]  # one in 15 of 2000
    assert ladder(score, ids, np.arange(2000), 133) == expected
    kept = set(examples_of_score(score, ids, codes))
    assert set(expected) <= kept
    assert {*order[:10], *order[-10:]} <= kept
    sizes = np.bincount(codes)
    for code in sorted(range(8), key=lambda code: (-sizes[code], code))[:5]:
        own = [n for n in order if codes[n] == code]
        assert {own[int((step + 0.5) * len(own) / 16)] for step in range(16)} <= kept
    assert len(kept) <= 30 + 133 + 5 * 16
    assert ladder(np.array([2.0, 1.0, 2.0]), ids[:3], np.arange(3), 9) == [
        min((0, 2), key=lambda n: tuple(ids[n])),
        1,
    ]
    assert ladder(np.array([np.nan]), ids[:1], np.arange(1), 9) == []


@pytest.mark.parametrize("by_source", [False, True])
@pytest.mark.parametrize("share", [0.04, 0.11, 0.3])
def test_the_border_and_the_chosen_are_shaded_whatever_is_chosen(tmp_path, by_source, share):
    rng = np.random.default_rng()
    run = Run(tmp_path)
    names = "abcdefgh"
    pool = run.pool([example(names[n % 8], f"q{n}", f"an answer {n}") for n in range(2400)])
    score = rng.normal(size=2400) + np.arange(2400) % 8
    run.score(pool, score, shading=made_up_tokens(pool, score, rng))
    chosen: list[int] = []
    for group in range(8) if by_source else (None,):
        own = [n for n in range(2400) if group is None or n % 8 == group]
        chosen += sorted(own, key=lambda n: -score[n])[: int(share * len(own))]
    run.select(pool, chosen)
    shown = gather(run.record()).scores[0].shown
    near = [one for one in shown if "border" in one.kinds]
    assert len(near) == 10
    assert {kind: all(one.shading for one in shown if kind in one.kinds) for kind in KINDS} == (
        dict.fromkeys(KINDS, True)
    )
    # Near: within a few per cent of the ranks of all rows, or of the source.
    for one in near:
        own = [n for n in range(2400) if not by_source or n % 8 == names.index(one.source)]
        last = min(score[n] for n in chosen if n in set(own))
        between = sum(min(score[one.row], last) < score[n] < max(score[one.row], last) for n in own)
        assert between <= 0.075 * len(own)
        assert (one.rank is not None) == (score[one.row] >= last)


def test_files_that_are_there_are_linked_from_the_page(tmp_path):
    run = chosen_run(tmp_path)
    (run.nodes[-1].folder / "selected_data.jsonl").write_text("{}\n")
    replace(Artifact.load(run.nodes[-1].folder), files={}).save()
    run.train("train", [{"step": 1, "loss": 1.0}])  # it left no model
    page = write_report(run.record(), run.folder).page.read_text("utf-8")
    linked = re.findall(r'href="(artifacts/[^"]*)"', page)
    assert linked == ["artifacts/score/scores", "artifacts/select/selected_data.jsonl"]
