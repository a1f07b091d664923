"""The audit: exact figures, honest words, and a chain of fakes with damage planted in it."""

import json
import math
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import rows_of, use_site, write_plugin, write_rows

from selectmoe_core.audit import planting
from selectmoe_core.audit.findings import CLEAN, Sample, examine_score
from selectmoe_core.audit.measures import Auroc, auroc, precision, shifts, top
from selectmoe_core.audit.verdict import judge, listed, sight
from selectmoe_core.runtime.processes import ended_by_signals

NAN = math.nan

# --------------------------------------------------------------------------------- measures


def slow_auroc(clean, damaged):
    """The definition of value and DeLong error, pair by pair."""
    psi = np.array([[1.0 if c > d else 0.5 if c == d else 0.0 for d in damaged] for c in clean])
    m, n = psi.shape
    over, under = psi.mean(axis=1), psi.mean(axis=0)
    value = psi.mean()
    variance = ((over - value) ** 2).sum() / (m - 1) / m
    variance += ((under - value) ** 2).sum() / (n - 1) / n
    return value, math.sqrt(variance)


def test_an_auroc_by_hand():
    # Pairs: 3>1, 3>2, 2>1, 2=2: three and a half of four.
    found = auroc(np.array([3.0, 2.0]), np.array([1.0, 2.0]))
    assert found.value == 3.5 / 4
    # Of the clean rows 1 and .75 are above, of the damaged ones 1 and .75 below: var .03125 each.
    assert found.stderr == pytest.approx(math.sqrt(0.03125 / 2 + 0.03125 / 2))
    assert (found.clean, found.damaged) == (2, 2)


@pytest.mark.parametrize("seed", range(20))
def test_auroc_equals_the_slow_definition_with_ties(seed):
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, 8, rng.integers(2, 60)).astype(float)
    damaged = rng.integers(-2, 6, rng.integers(2, 60)).astype(float)
    found = auroc(clean, damaged)
    value, stderr = slow_auroc(clean, damaged)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.stderr == pytest.approx(stderr, abs=1e-12)
    # Only the order counts.
    assert auroc(np.exp(clean), np.exp(damaged)).value == pytest.approx(value, abs=1e-12)
    assert auroc(damaged, clean).value == pytest.approx(1 - value, abs=1e-12)


def test_the_error_of_an_auroc_is_that_of_repeated_samples():
    rng = np.random.default_rng(3)
    found = [auroc(rng.normal(1, 1, 80), rng.normal(0, 1, 120)) for _ in range(400)]
    spread = np.std([one.value for one in found])
    assert np.mean([one.stderr for one in found]) == pytest.approx(spread, rel=0.12)


def test_a_row_without_a_score_stands_last():
    assert auroc(np.array([1.0, 2.0]), np.array([NAN, NAN])).value == 1.0
    assert auroc(np.array([NAN]), np.array([-5.0])).value == 0.0
    assert auroc(np.array([NAN]), np.array([NAN])).value == 0.5
    assert math.isnan(auroc(np.array([1.0]), np.array([0.0])).stderr)
    with pytest.raises(ValueError, match="needs at least one clean row"):
        auroc(np.array([1.0]), np.array([]))


def test_the_best_rows_and_how_clean_they_are():
    score = np.array([5.0, 4.0, NAN, 3.0, 2.0, 1.0, 5.0, 0.0, -1.0, -2.0])
    assert top(score, 0.3).tolist() == [0, 6, 1]
    assert top(score, 0.21).tolist() == [0, 6, 1]  # rounded up
    assert top(np.arange(100.0), 0.07).tolist() == [99, 98, 97, 96, 95, 94, 93]
    assert top(score, 1.0).tolist() == [0, 6, 1, 3, 4, 5, 7, 8, 9]  # never the skipped one
    clean = np.array([True, False, True, True, True, False, True, False, False, False])
    found = precision(score, clean, 0.3)
    assert (found.value, found.kept, found.base) == (2 / 3, 3, 0.5)
    assert found.stderr == pytest.approx(math.sqrt(2 / 9 / 3))
    nothing = precision(np.array([NAN, NAN]), np.array([True, False]), 0.5)
    assert nothing.kept == 0
    assert math.isnan(nothing.value)


def test_the_shift_of_the_sources():
    codes = np.array([0, 0, 0, 1, 1, 2])
    found = shifts(np.array([1.0, 2, 3, 9, 8, 0]), codes, ("a", "b", "c", "none"), 0.5)
    assert [(one.source, one.rows, one.share, one.kept) for one in found] == [
        ("a", 3, 0.5, 1 / 3),
        ("b", 2, 2 / 6, 2 / 3),
        ("c", 1, 1 / 6, 0.0),
    ]


# ------------------------------------------------------------------------------------- words


def sample_of(rows=600, kinds=("cut", "shuffled", "swapped"), seed=0):
    rng = np.random.default_rng(seed)
    labels = np.array([CLEAN if n % 2 else kinds[n // 2 % len(kinds)] for n in range(rows)])
    answer = rng.lognormal(4, 1, rows)
    conversation = answer + rng.lognormal(3, 0.5, rows)
    fits = dict.fromkeys(kinds, labels == CLEAN)
    return Sample(labels, answer, conversation, np.arange(rows) % 3, ("a", "b", "c"), fits)


def verdict_of(score, sample, shown=()):
    found = examine_score("one", "fake", score, sample, shown=shown, fraction=0.1)
    return found, judge(found)


def knows(sample, *kinds):
    """A score that sees some kinds, and noise."""
    noise = np.random.default_rng(1).normal(size=len(sample.labels))
    return noise - 3.0 * np.isin(sample.labels, kinds)


def test_a_score_that_knows_can_be_trusted():
    sample = sample_of()
    found, verdict = verdict_of((sample.labels == CLEAN) + 0.0, sample)
    assert found.overall == Auroc(1.0, 0.0, 300, 300)
    assert found.precision.value == 1.0
    assert found.precision.kept == 60
    assert verdict.level == "yes"
    assert "finds cut, shuffled and swapped" in verdict.sentences[1]
    assert "(60 rows) 100 % ± 0 are clean; of all rows, 50 % are" in " ".join(verdict.sentences)


def test_a_random_score_is_no_better_than_chance():
    sample = sample_of()
    found, verdict = verdict_of(np.random.default_rng(5).normal(size=600), sample)
    assert abs(found.overall.value - 0.5) < 3 * found.overall.stderr
    assert verdict.level == "no"
    assert verdict.sentences[0] == "No better than chance on this pool."
    assert "misses cut, shuffled and swapped" in verdict.sentences[1]


def test_a_score_turned_round_is_worse_than_chance():
    sample = sample_of()
    found, verdict = verdict_of(-knows(sample, "cut", "shuffled"), sample)
    assert found.overall.value < 0.3
    assert verdict.level == "no"
    assert verdict.sentences[0].startswith("Worse than chance")
    assert "misses swapped; prefers cut and shuffled" in verdict.sentences[1]


def test_a_score_that_misses_a_kind_is_trusted_in_part():
    sample = sample_of()
    found, verdict = verdict_of(knows(sample, "cut", "shuffled"), sample)
    by_kind = {one.kind: one.auroc.value for one in found.kinds}
    assert by_kind["cut"] > 0.95
    assert abs(by_kind["swapped"] - 0.5) < 0.1
    assert verdict.level == "partly"
    assert verdict.sentences[:2] == (
        "It can be trusted partly: it does not find swapped.",
        "It finds cut and shuffled; misses swapped.",
    )


def test_a_measure_of_length_is_called_so():
    sample = sample_of()
    score = np.log(sample.answer) - 1.0 * (sample.labels != CLEAN)
    found, verdict = verdict_of(score, sample)
    assert found.overall.value > 0.7
    assert found.answer > 0.99
    assert verdict.level == "no"
    assert verdict.sentences[0] == "It mostly measures length."
    assert "rank correlation is +1.00" in " ".join(verdict.sentences)


def test_kinds_that_warm_up_was_shown_do_not_decide():
    sample = sample_of()
    score = knows(sample, "cut", "shuffled") - 0.8 * (sample.labels == "swapped")
    found, verdict = verdict_of(score, sample, shown=("cut", "shuffled"))
    assert [(one.kind, one.seen) for one in found.kinds] == [
        ("cut", True), ("shuffled", True), ("swapped", False),
    ]  # fmt: skip
    assert found.overall.value > 0.8
    assert found.seen is not None
    assert found.unseen is not None
    assert found.seen.damaged + found.unseen.damaged == found.overall.damaged
    assert found.unseen.value < 0.8
    assert verdict.level == "partly"
    assert verdict.sentences[0] == (
        "It can be trusted partly: its AUROC on kinds that warm-up was never shown is "
        f"{found.unseen.value:.3f}, below 0.8."
    )
    # Unseen kinds left out of the account, the same score would pass.
    assert judge(examine_score("one", "fake", score, sample, shown=(), fraction=0.1)).level == "yes"
    everything, all_shown = verdict_of(score, sample, shown=("cut", "shuffled", "swapped"))
    assert everything.unseen is None
    assert all_shown.level == "unknown"
    assert "shown every kind" in all_shown.sentences[0]


@pytest.mark.parametrize("rows", [12, 100, 114])
def test_too_few_rows_of_every_kind_are_not_judged(rows):
    sample = sample_of(rows)  # a sixth of them of each kind: fewer than 20
    _, verdict = verdict_of((sample.labels == CLEAN) + 0.0, sample)
    assert verdict.level == "unknown"
    assert "fewer than 20 rows" in verdict.sentences[0]
    assert verdict_of((sample_of(126).labels == CLEAN) + 0.0, sample_of(126))[1].level == "yes"
    assert "as --kinds cut,shuffled" in verdict.sentences[0]
    assert verdict.sentences[1] == "It had fewer than 20 rows of every kind."
    # Rows of kinds that warm-up was shown do not help.
    many = sample_of(600, ("cut",) * 20 + ("shuffled",))
    _, verdict = verdict_of((many.labels == CLEAN) + 0.0, many, shown=("cut",))
    assert verdict.level == "unknown"


def test_the_best_rows_of_shown_kinds_do_not_count_for_trust():
    """Among the best are many rows of an unseen kind, and few of the many rows of a shown one."""
    sample = sample_of(1200, ("cut", "cut", "cut", "cut", "swapped"))
    score = knows(sample, "cut", "swapped")
    score[np.flatnonzero(sample.labels == "swapped")[:24]] += 100
    found, verdict = verdict_of(score, sample, shown=("cut",))
    rows = (sample.labels == CLEAN) | (sample.labels == "swapped")
    best = np.argsort(-score[rows])[: round(0.1 * rows.sum())]
    assert found.unseen_precision.value == (sample.labels[rows][best] == CLEAN).mean()
    assert found.precision.value - 1.96 * found.precision.stderr > found.precision.base
    assert verdict.level == "partly"
    assert "not clearly cleaner" in verdict.sentences[0]


def test_a_score_without_a_warm_up_is_not_told_of_one():
    sample = sample_of()
    score = 0.3 * knows(sample, "cut", "shuffled", "swapped")
    score += np.random.default_rng(8).normal(size=len(score))
    found, verdict = verdict_of(score, sample)
    assert 0.5 < found.unseen.value < 0.8
    assert verdict.sentences[0].startswith("It can be trusted partly: its AUROC is 0.")


def test_a_score_that_knows_what_it_was_shown_alone_is_not_trusted():
    sample = sample_of()
    _, verdict = verdict_of(knows(sample, "cut", "shuffled"), sample, shown=("cut", "shuffled"))
    assert verdict.level == "no"
    assert verdict.sentences[0] == "It finds only the damage that warm-up was shown."


def test_a_score_whose_best_rows_are_damaged_is_trusted_in_part():
    """It orders the rows well but for the few at the top, which are all that is selected."""
    sample = sample_of()
    score = knows(sample, "cut", "shuffled", "swapped")
    score[np.flatnonzero(sample.labels == "cut")[:12]] += 100
    score[np.flatnonzero(sample.labels == "swapped")[:12]] += 100
    score[np.flatnonzero(sample.labels == "shuffled")[:12]] += 100
    found, verdict = verdict_of(score, sample)
    assert found.overall.value > 0.8
    assert found.precision.value == 24 / 60
    assert verdict.level == "partly"
    assert verdict.sentences[0] == (
        "It can be trusted partly: its best rows are not clearly cleaner than all rows."
    )
    assert "are clean; of all rows, 50 % are" in verdict.sentences[2]


def test_skipped_rows_are_counted_and_stand_last():
    sample = sample_of()
    score = knows(sample)
    score[sample.labels == "cut"] = NAN
    score[1] = NAN
    found, verdict = verdict_of(score, sample)
    assert (found.skipped_clean, found.skipped_damaged) == (1, 100)
    assert found.kinds[0].auroc.value > 0.99
    assert "no score to 1 clean and 100 damaged rows" in " ".join(verdict.sentences)


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        (Auroc(0.9, 0.05, 100, 100), "seen"),
        (Auroc(0.69, 0.05, 100, 100), "half seen"),
        (Auroc(0.55, 0.05, 100, 100), "missed"),
        (Auroc(0.3, 0.05, 100, 100), "preferred"),
        (Auroc(0.9, 0.05, 100, 19), "too few"),
    ],
)
def test_how_well_a_kind_is_seen(area, expected):
    assert sight(area) == expected


def test_lists_read_as_english():
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c"]) == "a, b and c"


# ------------------------------------------------------------------------------------- chain

KINDS = "broken,cut,foreign"


@pytest.fixture(scope="session")
def damaging_site(tmp_path_factory):
    site = tmp_path_factory.mktemp("damaging")
    source = Path(__file__).parents[2] / "helpers" / "damaging_plugin.py"
    write_plugin(site, "damaging", source.read_text(encoding="utf-8"))
    return site


@pytest.fixture
def desk(project, damaging_site, monkeypatch):
    """The project of fakes with a larger pool, and the plugin that damages."""
    use_site(damaging_site, monkeypatch)
    write_rows(project.folder / "pool.jsonl", rows_of(400))
    project.edit("shard_examples = 8", "shard_examples = 100")
    return project


def audit(desk, *arguments):
    said = desk.call("audit", "recipe.toml", "--kinds", KINDS, *arguments)
    assert said.code == 0, said.err
    return said


def document(desk):
    newest = max(
        desk.folder.glob("outputs/fake/*/*/audit.json"), key=lambda p: p.stat().st_ctime_ns
    )
    return json.loads(newest.read_text())


def scores_of(desk):
    return {score["name"]: score for score in document(desk)["scores"]}


def planted(desk):
    """The rows of the planted pool: label, original id, source, text of the answer."""
    from selectmoe_core.data.pool import Pool

    [folder] = (path.parent for path in desk.store.glob("audit-pool-*/artifact.json"))
    pool = Pool.open(folder)
    return [
        (pool.meta(row)["label"], pool.meta(row)["original_id"], one.source, one.response)
        for row, one in enumerate(pool.examples())
    ]


def test_an_audit_tells_a_score_that_knows_from_others(desk):
    names = ("--score", "fake-score", "--score", "eyes", "--score", "random")
    said = audit(desk, "--sample", 200, *names)
    found = scores_of(desk)
    assert list(found) == ["fake-score", "eyes", "random"]
    kinds = {kind["kind"]: kind["auroc"]["value"] for kind in found["eyes"]["kinds"]}
    assert kinds["broken"] == kinds["cut"] == 1.0
    assert 0.3 < kinds["foreign"] < 0.7
    assert found["eyes"]["level"] == "partly"
    assert "It finds broken and cut; misses foreign." in found["eyes"]["verdict"]
    overall = found["random"]["overall"]
    assert abs(overall["value"] - 0.5) < 4 * overall["stderr"]
    assert found["fake-score"]["answer"] == pytest.approx(1.0)
    # Marks make answers longer, so that length prefers the damaged ones.
    assert found["fake-score"]["level"] == "no"
    assert all(len(line) <= 100 for line in said.out.splitlines())
    assert "eyes: It can be trusted partly: " in " ".join(said.out.split())
    assert "it does not find foreign. It finds" in " ".join(said.out.split())
    text = next(desk.folder.glob("outputs/fake/*/*/audit.md")).read_text()
    assert "# Audit of fake" in text
    assert "| dolly |" in text


def test_the_table_holds_what_the_labels_say(desk):
    """The figures of the document follow from pool and scores by the slow definition."""
    audit(desk, "--sample", 200, "audit.fraction=0.1")
    rows = planted(desk)
    labels = np.array([row[0] for row in rows])
    length = np.array([float(len(row[3])) for row in rows])
    found = scores_of(desk)["fake-score"]
    value, stderr = slow_auroc(length[labels == ""], length[labels != ""])
    assert found["overall"]["value"] == pytest.approx(value, abs=1e-12)
    assert found["overall"]["stderr"] == pytest.approx(stderr, abs=1e-12)
    best = labels[np.argsort(-length, kind="stable")[: math.ceil(len(rows) / 10)]]
    assert found["precision"]["value"] == pytest.approx((best == "").mean())
    assert found["precision"]["base"] == pytest.approx((labels == "").mean())
    assert sum(one["rows"] for one in found["shifts"]) == (labels == "").sum()


def test_half_is_damaged_in_equal_shares_and_nothing_of_warm_up(desk):
    audit(desk, "--sample", 120)
    rows = planted(desk)
    labels = [row[0] for row in rows]
    assert len(rows) == 120
    assert labels.count("") == 60
    assert [labels.count(kind) for kind in ("broken", "cut", "foreign")] == [20, 20, 20]
    [trained] = desk.store.glob("warmup-*/model/rows")
    drawn = set(trained.read_text().split())
    assert len(drawn) == 200
    assert not drawn & {row[1] for row in rows}
    marks = {"broken": "<broken>", "cut": "<cut>"}
    for label, _, _, answer in rows:
        assert ("<" in answer) == (label in marks)
        assert answer.startswith(marks.get(label, "Answer"))
    assert document(desk)["planted"]["excluded"] == 200


def test_a_kind_is_set_beside_the_clean_rows_that_it_could_have_changed(desk):
    """A kind that needs long answers and leaves their length looks long, and is not seen by it."""
    write_rows(desk.folder / "pool.jsonl", rows_of(2000))
    said = desk.call("audit", "recipe.toml", "--kinds", "cut,long", "--sample", 800)
    assert said.code == 0, said.err
    [kind] = [one for one in scores_of(desk)["fake-score"]["kinds"] if one["kind"] == "long"]
    area = kind["auroc"]
    assert abs(area["value"] - 0.5) < 4 * area["stderr"]
    assert area["damaged"] > 100
    assert area["clean"] < 300
    rows = planted(desk)
    naive = auroc(
        np.array([len(row[3]) for row in rows if not row[0]]),
        np.array([len(row[3]) for row in rows if row[0] == "long"]),
    )
    assert naive.high < 0.4


def test_where_no_score_reads_the_warm_up_every_row_may_be_drawn(desk):
    absent = ("~score", "~select", "~train", "~evaluate", "~compare")
    audit(desk, "--sample", 400, "--score", "eyes", *absent)
    assert len(planted(desk)) == 400
    assert not list(desk.store.glob("warmup-*"))
    assert document(desk)["planted"]["excluded"] == 0


def test_a_second_audit_makes_nothing_and_says_the_same(desk):
    audit(desk, "--sample", 100)
    first = document(desk)
    desk.calls()
    said = audit(desk, "--sample", 100)
    assert document(desk) == first
    assert not [call for call in desk.calls() if not call.startswith("run ")]
    assert "reused" in said.err
    # Rows, not their order in the file, decide.
    write_rows(desk.folder / "pool.jsonl", rows_of(400)[::-1])
    audit(desk, "--sample", 100)
    assert document(desk)["scores"][0]["overall"] == first["scores"][0]["overall"]
    audit(desk, "--sample", 100, "seed=8")
    assert document(desk)["scores"][0]["overall"] != first["scores"][0]["overall"]


def test_an_audit_takes_the_nodes_of_the_run_and_the_report_shows_it(desk):
    assert desk.run().code == 0
    before = desk.digests()
    desk.calls()
    audit(desk, "--sample", 100)
    calls = desk.calls()
    assert "convert" not in calls
    assert not [call for call in calls if call.startswith("train")]
    assert [call for call in calls if call.startswith("score")] == ["score 0"]
    assert scores_of(desk)["fake-score"]["of"] == before["score"]
    # The list of runs says what came out, and that only the name of the score is new.
    listed = [line.split() for line in desk.call("runs").out.splitlines()]
    [line] = [line for line in listed if "audit" in line]
    assert line[1:] == ["audit", "fake-score", "not", "judged", "nothing"]
    [run] = [folder for folder in desk.runs() if not (folder / "audit.json").exists()]
    assert "Audit:" not in (run / "report.md").read_text()
    assert desk.call("report", run).code == 0
    assert "**Audit: " in (run / "report.md").read_text()
    assert "<h3>Audit</h3>" in (run / "report.html").read_text()
    # Of another score nothing is known.
    assert desk.run("score.factor=2.0").code == 0
    assert "Audit:" not in (desk.runs()[-1] / "report.md").read_text()


def test_what_warm_up_was_shown_stands_apart(desk):
    desk.edit(
        'use = "fake-train"\nsubset_ratio', 'use = "shown-train"\nkinds = ["cut"]\nsubset_ratio'
    )
    desk.edit('use = "fake-score"\nreads_model = true', 'use = "eyes"\nafter_warmup = true')
    said = audit(desk, "--sample", 200, "--score", "eyes", "--score", "random")
    found = scores_of(desk)
    assert {kind["kind"]: kind["seen"] for kind in found["eyes"]["kinds"]} == {
        "cut": True, "broken": False, "foreign": False,
    }  # fmt: skip
    assert found["eyes"]["seen"]["value"] == 1.0
    assert found["eyes"]["unseen"]["value"] < 1.0
    # A score that did not come of the warm-up was shown nothing.
    assert not any(kind["seen"] for kind in found["random"]["kinds"])
    assert "1.00 ± .00*" in said.out
    assert "never shown" in said.out


def test_a_kind_without_a_rate_is_not_shown_unless_it_is_named(desk):
    desk.edit(
        'use = "fake-train"\nsubset_ratio', 'use = "shown-train"\neverything = true\nsubset_ratio'
    )
    desk.edit('use = "fake-score"\nreads_model = true', 'use = "eyes"\nafter_warmup = true')
    audit(desk, "--sample", 200)
    assert {kind["kind"]: kind["seen"] for kind in scores_of(desk)["eyes"]["kinds"]} == {
        "cut": True, "broken": True, "foreign": False,
    }  # fmt: skip


def test_several_scores_and_a_blend_of_them(desk):
    desk.edit('[score]\nuse = "fake-score"\nreads_model = true\nshard_examples = 100', """\
[score.long]
use = "fake-score"
[score.eyes]
use = "eyes"
[score.both]
use = "fake-blend"
of = ["long", "eyes"]
""")  # fmt: skip
    desk.edit("fraction = 0.25", 'fraction = 0.25\nscore = "both"')
    audit(desk, "--sample", 100, 'audit.scores=["eyes"]')
    found = scores_of(desk)
    assert set(found) == {"long", "eyes", "both", "eyes-default"}
    assert found["eyes"]["overall"] == found["eyes-default"]["overall"]
    assert found["both"]["answer"] > 0.9
    assert found["both"]["fraction"] == 0.25


def test_only_the_scores_that_the_user_names_are_audited(desk):
    """The recipe's score reads the warm-up; where another is named, no model is needed."""
    desk.edit('use = "fake-score"\nreads_model = true', 'use = "eyes"\nafter_warmup = true')
    audit(desk, "--sample", 200, "--score", "random")
    assert list(scores_of(desk)) == ["random"]
    assert not list(desk.store.glob("warmup-*"))
    assert document(desk)["planted"]["excluded"] == 0
    # The name of the recipe's own score means that one, with its options.
    audit(desk, "--sample", 200, "--score", "eyes", "--score", "random")
    assert list(scores_of(desk)) == ["eyes", "random"]
    assert list(desk.store.glob("warmup-*"))


def test_a_blend_that_is_named_is_audited_with_what_it_reads(desk):
    desk.edit('[score]\nuse = "fake-score"\nreads_model = true\nshard_examples = 100', """\
[score.long]
use = "fake-score"
[score.eyes]
use = "eyes"
[score.chance]
use = "random"
[score.both]
use = "fake-blend"
of = ["long", "eyes"]
""")  # fmt: skip
    desk.edit("fraction = 0.25", 'fraction = 0.25\nscore = "both"')
    audit(desk, "--sample", 100, "--score", "both")
    assert set(scores_of(desk)) == {"long", "eyes", "both"}


def test_kinds_are_printed_as_they_are_typed(desk):
    """The two words of a name may be apart, and what the table prints can be typed."""
    said = desk.call("audit", "recipe.toml", "--sample", 200, "--kinds", "answer swap,cut")
    assert said.code == 0, said.err
    names = document(desk)["planted"]["damaged"]
    assert set(names) == {"answer_swap", "cut"}
    assert [line for line in said.out.splitlines() if line.startswith("answer_swap  ")]
    assert "answer swap" not in said.out


def test_length_is_shown_once_and_all_parts_of_a_table_have_one_order(desk, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [text for name in ("eyes", "random", "fake-score") for text in ("--score", name)]
    desk.edit('use = "fake-score"\nreads_model = true', 'use = "eyes"\nafter_warmup = true')
    desk.edit(
        'use = "fake-train"\nsubset_ratio', 'use = "shown-train"\nkinds = ["foreign"]\nsubset_ratio'
    )
    said = audit(desk, "--sample", 200, *names[:4], "--score", "length")
    assert "(length)" not in said.out
    said = audit(desk, "--sample", 200, *names)
    heads = [line.split()[4:] for line in said.out.splitlines() if line.startswith("AUROC, clean")]
    assert heads == [["eyes", "random", "fake-score"], ["(length)"]]
    starts = [line.partition(" ")[0] for line in said.out.splitlines()]
    kinds = [name for name in starts if name in ("foreign", "broken", "cut")]
    assert kinds == ["foreign", "broken", "cut"] * len(heads)


def test_rows_without_a_score_are_told(desk):
    desk.edit('use = "fake-score"\nreads_model = true', 'use = "eyes"\nskips = ["<cut>"]')
    audit(desk, "--sample", 120)
    found = scores_of(desk)["eyes"]
    assert (found["skipped_clean"], found["skipped_damaged"]) == (0, 20)


def test_a_kind_that_seldom_fits_is_named(desk):
    left_out = ("--disable-plugin", "damage")
    said = desk.call(*left_out, "audit", "recipe.toml", "--sample", 200, "~warmup")
    assert said.code == 0, said.err
    counts = document(desk)["planted"]["damaged"]
    assert set(counts) >= {"broken", "cut", "foreign", "rare"}
    assert counts["rare"] < 14
    assert counts["broken"] == counts["cut"] == counts["foreign"] == 17
    assert "never: planted in only 0 rows" in said.out


def test_an_interrupt_that_a_library_takes_for_its_own_ends_the_audit(heard, desk):
    real = planting.plant_pool

    def interrupted(*arguments):
        with suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch, ended_by_signals():
        patch.setattr(planting, "plant_pool", interrupted)
        said = desk.call("audit", "recipe.toml", "--kinds", KINDS)
    assert said.code == 130
    assert not [call for call in desk.calls() if call.startswith("score")]


def test_the_recipe_says_what_an_audit_takes_for_granted(desk):
    with desk.recipe.open("a") as file:
        file.write('[audit]\nsample = 60\nkinds = ["cut"]\nscores = ["random"]\nfraction = 0.5\n')
    said = desk.call("audit", "recipe.toml")
    assert said.code == 0, said.err
    found = scores_of(desk)
    assert set(found) == {"fake-score", "random"}
    assert found["random"]["fraction"] == 0.5
    assert document(desk)["planted"]["damaged"] == {"cut": 30}
    # It changes no digest, and the command line goes first.
    assert desk.digests() == desk.digests("audit.sample=80")
    assert desk.call("audit", "recipe.toml", "--kinds", "broken", "--sample", 40).code == 0
    assert document(desk)["planted"]["damaged"] == {"broken": 20}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--kinds", "brokn"], "did you mean 'broken'?"),
        (["--score", "eyse"], "did you mean 'eyes'?"),
        (["audit.sampel=3"], "did you mean 'sample'?"),
        (["audit.sample=3"], "greater than or equal to 20"),
        (["~warmup.subset_ratio"], "uses the whole pool"),
        (["~score", "~select", "~train", "~evaluate", "~compare"], "no score to audit"),
    ],
)
def test_what_cannot_be_audited(desk, arguments, told):
    said = desk.call("audit", "recipe.toml", *arguments)
    assert said.code == 2
    assert told in said.err


def test_too_few_rows_are_left(desk):
    said = desk.call("audit", "recipe.toml", "--kinds", KINDS, "warmup.subset_ratio=0.97")
    assert said.code == 1
    assert "12 rows are left" in said.err


def test_the_report_of_an_audits_folder_is_the_audit(desk):
    audit(desk, "--sample", 60)
    [folder] = desk.runs()
    said = desk.call("report", folder)
    assert said.code == 1
    assert "audit.md" in said.err
