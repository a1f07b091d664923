"""The report: figures against hand-made numbers, escaping, missing stages, the run's record."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_runs import Run, accuracy, example, full_run
from scipy.stats import spearmanr

from selectmoe_core.data.examples import Message, RawExample, Reject
from selectmoe_core.data.shown import TokenDetail, ends
from selectmoe_core.errors import StageError
from selectmoe_core.report import Report, RunRecord, write_report
from selectmoe_core.report.charts import ridges
from selectmoe_core.report.distribution import spearman
from selectmoe_core.report.evaluation import compare, paired_stderr, summarise_evaluation
from selectmoe_core.report.gather import gather
from selectmoe_core.report.markdown import escape, fence, table
from selectmoe_core.report.sections.composition import shares
from selectmoe_core.report.summary import Result
from selectmoe_core.report.wording import duration, number

HOSTILE = '<script>alert(1)</script> $x^2$ & "quoted" | `code` {{ 7 * 7 }} ]]> --> 🚀'


class Page(HTMLParser):
    """Collects the tags, the text and the open elements of a page."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.said: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        named = dict(attrs)
        self.ids += [named["id"]] if "id" in named else []
        self.links += [named[key] for key in ("href", "xlink:href", "src") if key in named]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Run, Report]:
    run = full_run(tmp_path_factory.mktemp("whole"), rows=60)
    return run, write_report(run.record(), run.folder)


def small_run(tmp_path: Path) -> tuple[Run, list[RawExample | Reject]]:
    run = Run(tmp_path)
    rows = [
        example("a" if number % 3 else "b", f"question {number}", "x" * (number + 1))
        for number in range(30)
    ]
    return run, rows


def test_page_stands_alone_and_is_well_formed(whole):
    _, report = whole
    text = report.page.read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.links
    # To its sections, and to files of the run beside it.
    assert all(link.startswith(("#", "artifacts/")) for link in page.links)
    inner = {link[1:] for link in page.links if link.startswith("#")}
    assert inner <= set(page.ids)
    assert not {"link", "iframe", "img", "object"} & set(page.tags)
    assert page.tags.count("script") == 1  # our own
    assert "@import" not in text
    assert headings(text) == [
        "Result", "Pool and selection", "Scores", "Examples", "Compare selections", "Training",
        "Reproduce",
    ]  # fmt: skip
    assert page.tags.count("caption") == page.tags.count("table")
    assert all('scope="' in tag for tag in re.findall(r"<th\b[^>]*>", text))
    assert all("tabindex" in tag for tag in re.findall(r'<div class="scroll"[^>]*>', text))


def headings(text: str) -> list[str]:
    return re.findall(r'<h2 id="[a-z]+-head">(.*?)</h2>', text)


def test_written_files_are_the_report(whole):
    run, report = whole
    assert (run.folder / "report.md").read_text("utf-8") == report.markdown
    document = json.loads((run.folder / "report.json").read_text("utf-8"))
    assert document["format"] == 2
    assert document["verdicts"] == list(report.verdicts)
    assert {path.name for path in run.folder.iterdir()} == {
        "report.html", "report.json", "report.md",
    }  # fmt: skip


def test_report_repeats_byte_for_byte(whole, tmp_path):
    run, report = whole
    write_report(run.record(), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == report.page.read_bytes()


def test_data_is_escaped_everywhere(tmp_path):
    run = Run(tmp_path)
    rows = [example(HOSTILE, f"{HOSTILE} {n}", HOSTILE * 2, HOSTILE, HOSTILE) for n in range(5)]
    pool = run.pool([*rows, Reject(HOSTILE, HOSTILE, HOSTILE)])
    skipped = [None, None, None, None, HOSTILE]
    texts = (HOSTILE, "</script><script>alert(2)</script>")
    detail = TokenDetail(HOSTILE, texts, np.array([0.5, -1.0]), np.ones(2, dtype=bool))
    meaning = {HOSTILE: {"title": HOSTILE, "each": HOSTILE}}
    layers = {HOSTILE: np.arange(10.0).reshape(5, 2)}
    how = {"details": layers, "meanings": meaning, "shading": {0: detail, 3: detail}}
    run.score(pool, [0.1, 0.2, 0.3, 0.4, math.nan], skipped, **how)
    run.select(pool, [3], reasons=[HOSTILE])
    run.select(pool, [0], "select@random", ("random",))
    run.train("train", [{"step": n, "loss": 1.0 / n, HOSTILE: 1.0} for n in (1, 2, 3)])
    run.evaluate("selected", {HOSTILE: accuracy(0.5, 0.1)})
    command = f"selectmoe run '{HOSTILE}' '{HOSTILE}=1'"
    report = write_report(run.record(command), run.folder)
    page = Page(report.page.read_text("utf-8"))
    assert page.tags.count("script") == 1
    assert page.open == []
    said = "".join(page.said)
    assert HOSTILE in said
    assert "49" not in said.split()
    shown = [text for text in page.said if "<script>" in text and "$x^2$" in text]
    assert len(shown) > 20
    outside_fences = re.sub(r"(?m)^(`{3,})text\n.*?^\1$", "", report.markdown, flags=re.DOTALL)
    assert "<script>" not in outside_fences.replace("\\<", "")


@pytest.mark.parametrize("until", ["pool", "score", "select", "train", "evaluate"])
def test_missing_stages_leave_their_sections_out(tmp_path, until):
    run, rows = small_run(tmp_path)
    order = ["pool", "score", "select", "train", "evaluate"]
    wanted = order[: order.index(until) + 1]
    pool = run.pool(rows)
    if "score" in wanted:
        run.score(pool, np.arange(len(pool)).tolist())
    if "select" in wanted:
        run.select(pool, [29, 28])
    if "train" in wanted:
        run.train("train", [{"step": 1, "loss": 2.0}])
    if "evaluate" in wanted:
        run.evaluate("selected", {"t": accuracy(0.5, 0.02)})
    report = write_report(run.record(), run.folder)
    text = report.page.read_text("utf-8")
    heads = {"pool": ["Pool and selection"], "score": ["Scores", "Examples"], "select": []}
    heads |= {"train": ["Training"], "evaluate": ["Result"]}
    assert sorted(headings(text)) == sorted(
        [head for stage in wanted for head in heads[stage]] + ["Reproduce"]
    )
    assert ("chosen by router" in text) == ("select" in wanted)
    assert bool(report.table) == (until == "evaluate")
    if until == "evaluate":
        assert report.verdicts == ()
        assert "cannot say whether the selection helped" in text


def test_run_without_nodes_and_artifact_that_is_gone(tmp_path):
    run, rows = small_run(tmp_path)
    assert "## Reproduce" in write_report(run.record(), run.folder).markdown
    run.pool(rows)
    (run.nodes[0].folder / "artifact.json").unlink()
    report = write_report(run.record(), run.folder)
    assert "is missing" in report.markdown
    assert "## Pool and selection" not in report.markdown


def test_best_and_worst_in_order_with_ties_by_id():
    rng = np.random.default_rng()
    score = rng.integers(0, 6, 200).astype(float)
    score[rng.random(200) < 0.1] = math.nan
    ids = rng.integers(0, 3, (200, 2)).astype(np.uint64)
    ids[:, 1] = rng.permutation(200)
    order = sorted(
        np.flatnonzero(np.isfinite(score)), key=lambda r: (-score[r], ids[r, 0], ids[r, 1])
    )
    best, worst = ends(score, ids)
    assert best == order[:10]
    assert worst == order[::-1][:10]
    assert ends(np.array([math.nan, 2.0]), ids[:2]) == ([1], [1])
    assert ends(np.array([math.nan]), ids[:1]) == ([], [])


def test_what_a_scorer_warns_of_stands_in_every_report(tmp_path):
    run, rows = small_run(tmp_path)
    pool = run.pool(rows)
    warnings = ["30 % of the examples have no IFD", f"{HOSTILE}\n\x1b[2Jafter"]
    run.score(pool, np.arange(30.0), warnings=warnings)
    run.score(pool, np.arange(30.0), key="score:plain")
    report = write_report(run.record(), run.folder)
    page = Page(report.page.read_text("utf-8"))
    said = [text for text in page.said if text.startswith("The scorer warns: ")]
    assert said == [f"The scorer warns: {text}." for text in warnings]
    assert page.tags.count("script") == 1
    assert "> score: 30 % of the examples have no IFD" in report.markdown
    assert f"score: {warnings[0]}." in page.said
    assert "\\<script\\>alert(1)" in report.markdown
    assert "<script>" not in report.markdown
    document = json.loads((run.folder / "report.json").read_text("utf-8"))
    assert {of["key"]: of["warnings"] for of in document["scores"]} == {
        "score": warnings, "score:plain": [],
    }  # fmt: skip
    # A terminal gets each on one line, and no control characters.
    assert report.warnings == (f"score: {warnings[0]}", f"score: {HOSTILE} [2Jafter")


def test_shown_examples_are_the_right_rows(tmp_path):
    run, rows = small_run(tmp_path)
    pool = run.pool(rows)
    values = np.random.default_rng().permutation(30).astype(float)
    details = {"layers": np.stack([values, -values], axis=1)}
    run.score(pool, values.tolist(), details=details, parts=4)
    scores = gather(run.record()).scores[0]
    asked = [f"question {row}" for row in np.argsort(-values)]
    best = [shown for shown in scores.shown if "best" in shown.kinds]
    worst = [shown for shown in scores.shown if "worst" in shown.kinds]
    assert [shown.turns[0].content for shown in best] == asked[:10]
    assert {shown.turns[0].content for shown in worst} == set(asked[::-1][:10])
    assert [shown.score for shown in best] == list(range(29, 19, -1))
    assert best[0].details == (("layers", "29.00 -29.00"),)


def test_giant_message_is_cut_and_says_so(tmp_path):
    run = Run(tmp_path)
    pool = run.pool([example("a", f"q{n}", f"{n}" * 60_000) for n in range(3)])
    run.score(pool, [1, 2, 3])
    shown = gather(run.record()).scores[0].shown[0].turns[1]
    assert (len(shown.content), shown.hidden) == (12_000, 48_000)
    text = write_report(run.record(), run.folder).page.read_text("utf-8")
    assert "48,000 more characters" in text
    assert len(text) < 300_000


def test_source_scores_and_skipped(tmp_path):
    run = Run(tmp_path)
    pool = run.pool([example("ab"[n % 2], f"q{n}", f"answer {n}") for n in range(8)])
    values = [0, 10, 1, 20, 2, 30, math.nan, math.nan]
    run.score(pool, values, [None] * 6 + ["too long", "empty"], parts=3)
    run.select(pool, [5, 3])
    scores = gather(run.record()).scores[0]
    b, a = scores.sources
    assert (b.name, b.scored, b.skipped, b.median, b.minimum, b.maximum) == ("b", 3, 1, 20, 10, 30)
    assert (a.name, a.scored, a.skipped, a.mean) == ("a", 3, 1, 1.0)
    assert a.std == pytest.approx(math.sqrt(2 / 3))
    assert scores.skipped == (("a", "too long", 1), ("b", "empty", 1))
    assert (scores.scored, scores.examples, scores.mean) == (6, 8, 10.5)
    assert scores.histograms.pool.sum(axis=1).tolist() == [3, 3]
    assert scores.histograms.kept.sum(axis=1).tolist() == [2, 0]


def test_histogram_leaves_far_outliers_out_and_counts_them(tmp_path):
    run = Run(tmp_path)
    pool = run.pool([example("a", f"q{n}", f"answer {n}") for n in range(3000)])
    values = np.random.default_rng().normal(size=3000)
    values[7] = 1e6
    run.score(pool, values.tolist())
    found = gather(run.record()).scores[0].histograms
    assert found.edges[-1] < 1e5
    assert 1 <= found.outside <= 6
    assert found.pool.sum() + found.outside == 3000


def test_spearman_equals_scipy():
    rng = np.random.default_rng()
    first, second = rng.integers(0, 20, 300), rng.normal(size=300) + rng.integers(0, 3, 300)
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert math.isnan(spearman(np.ones(5), np.arange(5)))


def test_length_correlation_sees_text_and_answers(tmp_path):
    run = Run(tmp_path)
    rows = []
    rng = np.random.default_rng()
    for n in range(40):
        turns = (
            Message("user", "é" * int(rng.integers(1, 500))),
            Message("assistant", "a" * (n + 1)),
            Message("user", "and?"),
            Message("assistant", f"{n:02d}"),
        )
        rows.append(RawExample("s", turns))
    pool = run.pool(rows)
    run.score(pool, list(range(40)))
    length = gather(run.record()).scores[0].length
    text = [sum(len(m.content) for m in row.messages) for row in rows]
    assert length.answer == pytest.approx(1.0)
    assert length.text == pytest.approx(spearmanr(text, range(40)).statistic)
    assert length.strong
    assert "the score follows length" in write_report(run.record(), run.folder).markdown


def test_length_sample_is_stated(tmp_path, monkeypatch):
    monkeypatch.setattr("selectmoe_core.report.distribution.LENGTH_SAMPLE", 10)
    run, rows = small_run(tmp_path)
    run.score(run.pool(rows), list(range(30)))
    length = gather(run.record()).scores[0].length
    assert (length.rows, length.of, length.answer) == (10, 30, pytest.approx(1.0))
    write_report(run.record(), run.folder)
    assert "a sample of 10 of 30 rows" in (run.folder / "report.html").read_text("utf-8")


def test_pool_counts_rejects_and_tokens(tmp_path):
    run = Run(tmp_path)
    rows = [example("a", f"q{n}", "yes") for n in range(4)]
    rejects = [Reject("a", f"a.jsonl:{n}", "no messages" if n else "not JSON") for n in range(30)]
    pool = run.pool([*rows, rows[0], example("b", "q", "no"), *rejects])
    counts = {"examples": 4, "tokens": 50, "counted_tokens": 9, "cut": 1, "nothing_counts": 2}
    tokens = {"tokenizer": "tiny", "sources": {"a": counts}}
    run.score(pool, [1, 2, 3, 4, 5], tokens=tokens)
    found = gather(run.record()).pool
    a, b = found.sources
    assert (a.examples, a.duplicates, a.rejected, a.turns) == (4, 1, 30, 2.0)
    assert (a.tokens, a.cut, a.empty) == (12.5, 1, 2)
    assert (b.examples, b.tokens, b.cut) == (1, None, None)
    assert found.reasons == (("no messages", 29), ("not JSON", 1))
    assert [row.where for row in found.rejects] == [f"a.jsonl:{n}" for n in range(20)]
    assert found.tokenizer == "tiny"
    assert (found.duplicates, found.rejected, found.examples) == (1, 30, 5)


def test_selection_shares_labels_and_random_arm(tmp_path):
    run = Run(tmp_path)
    sources = ["a"] * 6 + ["b"] * 4
    rows = [
        example(source, f"q{n}", "yes", "damaged" if n % 2 else "")
        for n, source in enumerate(sources)
    ]
    pool = run.pool(rows)
    run.score(pool, list(range(10)))
    run.select(pool, [9, 7, 1, 2])
    run.select(pool, [0, 2, 6, 8], "select@random", ("random",))
    found = gather(run.record()).selection
    a, b = found.sources
    assert (a.pool, a.kept, a.pool_share, a.kept_share, a.baseline_share) == (6, 2, 0.6, 0.5, 0.5)
    assert (b.pool, b.kept, b.factor) == (4, 2, pytest.approx(1.25))
    named = {share.name: share for share in found.labels}
    assert (named["damaged"].pool, named["damaged"].kept) == (5, 3)
    assert named["damaged"].baseline_share == 0.0
    assert (named["none"].pool, named["none"].kept) == (5, 1)


def test_shares_of_an_empty_selection():
    (only,) = shares({"a": 3}, {})
    assert (only.kept, only.kept_share, only.factor) == (0, 0.0, 0.0)


def test_main_score_comes_first_and_random_arm_is_left_out(tmp_path):
    run, rows = small_run(tmp_path)
    pool = run.pool(rows)
    run.score(pool, list(range(30)), key="score:ifd")
    run.score(pool, list(range(30)), key="score")
    run.score(pool, list(range(30)), key="score@random", arms=("random",))
    scores = gather(run.record()).scores
    assert [one.key for one in scores] == ["score", "score:ifd"]
    assert len([one for one in scores[0].shown if "best" in one.kinds]) == 10
    assert scores[1].shown == ()


def test_score_named_by_select_is_the_main_one(tmp_path):
    run, rows = small_run(tmp_path)
    pool = run.pool(rows)
    for name in ("ifd", "router", "length"):
        run.score(pool, list(range(30)), key=f"score:{name}")
    recipe = '[score.ifd]\n[score.router]\n[score.length]\n[select]\nscore = "router"\n'
    scores = gather(replace(run.record(), recipe=recipe)).scores
    assert [one.key for one in scores] == ["score:router", "score:ifd", "score:length"]
    assert [bool(one.shown) for one in scores] == [True, False, False]


def test_task_without_a_value_in_one_arm(tmp_path):
    run = Run(tmp_path)
    run.evaluate("base", {"t": accuracy(0.5, 0.1)})
    run.evaluate("selected", {"t": accuracy(0.5, 0.1) | {"value": None}})
    report = write_report(run.record(), run.folder)
    assert report.table[1][1:3] == ("0.5000 ± 0.1000", "\N{EN DASH}")
    assert report.verdicts == ()


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (0.0, "within one standard error: no verdict"),
        (0.04, "within one standard error: no verdict"),
        (-0.09, "within two standard errors: no verdict"),
        (0.11, "selected beats random by 0.1100"),
        (-0.11, "selected loses to random by 0.1100"),
    ],
)
def test_verdicts(difference, said):
    own = Result("selected", 0.6 + difference, 0.03, 100, at_chance=False)
    other = Result("random", 0.6, 0.04, 100, at_chance=False)
    found = compare(own, other, None, "arc")
    assert found.stderr == pytest.approx(0.05)
    assert found.value == pytest.approx(difference)
    assert said in found.verdict
    assert ("no verdict" in found.verdict) == (abs(difference) <= 0.1)


def test_no_verdict_at_chance_or_without_stderr_and_lower_may_be_better():
    low, high = (
        Result(arm, v, 0.01, 9, at_chance=True) for arm, v in (("selected", 0.2), ("random", 0.3))
    )
    assert "both are at chance: no verdict" in compare(low, high, None, "t").verdict
    blind = Result("selected", 0.9, None, 9, at_chance=False)
    assert "without a standard error: no verdict" in compare(blind, high, None, "t").verdict
    own, other = (
        Result(arm, v, 0.1, 9, at_chance=False) for arm, v in (("selected", 8.0), ("random", 9.0))
    )
    assert "selected beats random" in compare(own, other, None, "ppl", higher=False).verdict


def test_evaluation_table_pairs_questions_and_flags_chance(tmp_path):
    run = Run(tmp_path)
    rng = np.random.default_rng()
    answers = {arm: (rng.random(200) < 0.6).astype(float) for arm in ("random", "selected")}
    arms = {}
    for arm, values in answers.items():
        stderr = values.std(ddof=1) / math.sqrt(200)
        tasks = {"arc": accuracy(values.mean(), stderr), "sciq": accuracy(0.26, 0.02)}
        arms[arm] = run.evaluate(arm, tasks, {"arc": values.tolist()})
    found = summarise_evaluation(arms, "selected")
    arc, sciq, mean = found.tasks
    (difference,) = arc.differences
    gaps = answers["selected"] - answers["random"]
    assert found.arms == ("random", "selected")
    assert difference.paired
    assert difference.value == pytest.approx(gaps.mean())
    assert difference.stderr == pytest.approx(gaps.std(ddof=1) / math.sqrt(200))
    assert not sciq.differences[0].paired
    assert sciq.differences[0].stderr == pytest.approx(0.02 * math.sqrt(2))
    assert all(result.at_chance for result in sciq.results.values())
    assert not arc.results["selected"].at_chance
    assert mean.results["random"].value == pytest.approx((answers["random"].mean() + 0.26) / 2)
    errors = [row.results["random"].stderr for row in (arc, sciq)]
    assert mean.results["random"].stderr == pytest.approx(math.hypot(*errors) / 2)
    report = write_report(run.record(), run.folder)
    assert report.table[0] == ("task", "random", "selected", "vs random", "chance", "questions")
    shown = report.table[2]
    assert shown[:3] == ("sciq", *["0.2600 ± 0.0200 (at chance)"] * 2)
    assert shown[3] == "+0.0000 ± 0.0283"


def test_samples_that_do_not_fit_are_not_paired(tmp_path):
    run = Run(tmp_path)
    same = {"t": [1.0, 0.0, 1.0, 1.0]}
    folders = {}
    for arm, samples in (("selected", same), ("random", {"t": [1.0, 1.0, 1.0]}), ("base", same)):
        folders[arm] = run.evaluate(arm, {"t": accuracy(0.75, 0.2)}, samples).folder
    how = {"task": "t", "metric": "acc,none"}
    pair = (folders["selected"], folders["base"])
    assert paired_stderr(*pair, **how, values=(0.75, 0.75)) == 0.0
    assert paired_stderr(*pair, **how, values=(0.5, 0.75)) is None
    assert paired_stderr(*pair, task="t", metric="acc_norm,none", values=(0.75, 0.75)) is None
    assert paired_stderr(folders["selected"], folders["random"], **how, values=(0.75, 1.0)) is None


def test_stderr_that_is_text_counts_as_none(tmp_path):
    run = Run(tmp_path)
    arms = {
        arm: run.evaluate(arm, {"t": accuracy(0.5, None) | {"stderr": "N/A"}})
        for arm in ("selected", "base")
    }
    (row,) = summarise_evaluation(arms, "selected").tasks
    assert row.results["base"].stderr is None
    assert not row.results["base"].at_chance


def test_training_curve_of_a_resumed_run(tmp_path):
    run = Run(tmp_path)
    run.train(
        "train",
        [{"step": s, "loss": v} for s, v in ((1, 5.0), (2, 4.0), (3, 3.0), (2, 4.5), (3, 2.5))],
    )
    (training,) = gather(run.record()).training
    assert training.curves["loss"].steps.tolist() == [1, 2, 3]
    assert training.curves["loss"].values.tolist() == [5.0, 4.5, 2.5]
    assert (training.first_loss, training.last_loss, training.steps) == (5.0, 2.5, 3)


def test_long_training_log_is_thinned(tmp_path):
    run = Run(tmp_path)
    run.train("train", [{"step": s, "loss": float(s)} for s in range(1, 4001)])
    (training,) = gather(run.record()).training
    assert len(training.curves["loss"].steps) == 400
    assert training.curves["loss"].values[0] == pytest.approx(5.5)
    assert training.steps == 4000


@pytest.mark.parametrize("sources", [1, 12, 13, 40])
def test_distributions_of_few_and_many_sources(tmp_path, sources):
    run = Run(tmp_path)
    pool = run.pool([example(f"s{n % sources}", f"q{n}", "yes") for n in range(sources * 3)])
    run.score(pool, np.random.default_rng().normal(size=len(pool)).tolist())
    scores = gather(run.record()).scores[0]
    drawn = ridges(scores)
    names = [row.name for row in (*drawn.shown, *drawn.folded) if row.name != "all sources"]
    assert sorted(names) == sorted(f"s{n}" for n in range(sources))
    assert len(drawn.shown) == {1: 1, 12: 13, 13: 9, 40: 9}[sources]
    assert [row.name for row in drawn.shown[1:5]] == [one.name for one in scores.sources[:4]][
        : len(drawn.shown) - 1
    ]


def test_all_scores_equal_or_none_at_all(tmp_path):
    for name, values, reasons in (
        ("equal", [1.0] * 4, None),
        ("none", [math.nan] * 4, ["too long"] * 4),
    ):
        run = Run(tmp_path / name)
        pool = run.pool([example("a", f"q{n}", "yes") for n in range(4)])
        run.score(pool, values, reasons)
        assert "## Scores" in write_report(run.record(), run.folder).markdown


def test_markdown_tables_and_fences():
    assert table([("a|b", "n"), ("x\ny", "1")]) == [
        "| a\\|b | n |",
        "| --- | ---: |",
        "| x y | 1 |",
    ]
    assert escape("<b>*_`") == "\\<b\\>\\*\\_\\`"
    assert fence("has ```` four") == ["`````text", "has ```` four", "`````"]


def test_markdown_holds_the_evaluation_table(whole):
    _, report = whole
    rows = [line for line in report.markdown.splitlines() if line.startswith("| nano\\_world")]
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    shown = next(row for row in report.table if row[0] == "nano_world")
    assert cells[1:] == [escape(cell) for cell in shown[1:]]


def test_wording():
    assert [number(v) for v in (None, math.nan, 0.5, 1234.5, 12345678.0)] == [
        "\N{EN DASH}", "\N{EN DASH}", "0.5000", "1,234", "12,345,678",
    ]  # fmt: skip
    assert [duration(s) for s in (0.04, 59.9, 61, 3599.9, 7260)] == [
        "0.0 s", "59.9 s", "1 min 01 s", "1 h 00 min", "2 h 01 min",
    ]  # fmt: skip


def test_record_round_trip(tmp_path):
    run, rows = small_run(tmp_path)
    run.score(run.pool(rows), list(range(30)))
    record = run.record()
    record.save(run.folder)
    assert RunRecord.load(run.folder) == record
    stored = json.loads((run.folder / "run.json").read_text("utf-8"))
    assert [node["folder"] for node in stored["nodes"]] == ["../store/pool", "../store/score"]


def test_record_survives_a_move_of_the_outputs(tmp_path):
    run, rows = small_run(tmp_path / "before")
    run.pool(rows)
    run.record().save(run.folder)
    (tmp_path / "before").rename(tmp_path / "after")
    loaded = RunRecord.load(tmp_path / "after" / "run")
    assert loaded.nodes[0].folder == tmp_path / "after" / "store" / "pool"
    assert gather(loaded).pool.examples == 30


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"nodes": []}', '{"nodes": 3}', '{"nodes": [{"key": "a"}]}']
)
def test_damaged_record_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content, "utf-8")
    with pytest.raises(StageError, match=r"run\.json is damaged") as caught:
        RunRecord.load(tmp_path)
    assert caught.value.hint


def test_a_record_whose_recipe_cannot_be_read_is_damaged(tmp_path):
    run, _ = small_run(tmp_path)
    run.record().save(run.folder)
    stored = json.loads((run.folder / "run.json").read_text("utf-8"))
    for recipe in ("= broken", None, 3):
        (run.folder / "run.json").write_text(json.dumps(stored | {"recipe": recipe}), "utf-8")
        with pytest.raises(StageError, match=r"run\.json is damaged"):
            RunRecord.load(run.folder)


def test_damaged_bytes_and_missing_record(tmp_path):
    with pytest.raises(StageError, match=r"run\.json is missing"):
        RunRecord.load(tmp_path / "nowhere")
    (tmp_path / "run.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(StageError, match=r"run\.json is damaged"):
        RunRecord.load(tmp_path)


def test_importing_the_report_draws_nothing_in():
    code = (
        "import sys, selectmoe_core.report;"
        "print([m for m in ('matplotlib', 'jinja2', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
