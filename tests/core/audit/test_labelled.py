"""``audit --labelled``: a user's own labels, as a user gives them."""

import json

import numpy as np
import pytest

from selectmoe_core.audit.labelled.findings import Labelled, examine, judge_labels

RECIPE = """
format = 1
name = "mine"
[pool]
use = "jsonl"
path = "pool.jsonl"
[score.longest]
use = "length"
[score.drawn]
use = "random"
"""


@pytest.fixture
def desk(tmp_path, monkeypatch):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    write(tmp_path / "pool.jsonl", [{"prompt": f"P{n}", "completion": "x" * n} for n in range(9)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture
def audit(cli):
    def run(*options, code=0):
        said = cli("audit", "recipe.toml", "--labelled", *options, "--quiet")
        assert said.code == code, said.err
        return said

    return run


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def document(desk):
    (path,) = desk.glob("outputs/mine/*/*/audit.json")
    found = json.loads(path.read_text())
    return found, {score["name"]: score for score in found["scores"]}


def pairs(count, better=9, worse=4):
    """The better answers are longer, but for one in five."""
    sizes = [(worse, better) if n % 5 == 0 else (better, worse) for n in range(count)]
    return [
        {"prompt": f"Question {n}?", "chosen": "a" * long, "rejected": "b" * short}
        for n, (long, short) in enumerate(sizes)
    ]


def test_pairs_are_compared_within_their_prompt(desk, audit):
    write(desk / "mine.jsonl", pairs(100))
    shown = audit("mine.jsonl").out
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "200 labelled rows of 100 prompts, 100 pairs" in shown
    found, scores = document(desk)
    assert found["labelled"]["kind"] == "pairs"
    long = scores["longest"]
    assert long["pairs"]["value"] == pytest.approx(0.8)
    assert long["pairs"]["low"] == pytest.approx(0.72, abs=0.02)
    assert long["pairs"]["high"] == pytest.approx(0.88, abs=0.02)
    assert (long["main"], long["level"]) == ("pairs", "partly")
    assert "not clearly more than length" in long["verdict"][0]
    assert scores["drawn"]["level"] == "no"
    assert (desk / "outputs").exists()
    page = next(desk.glob("outputs/mine/*/*/audit.md")).read_text()
    assert "**drawn**: No better than chance" in page


def test_words_and_grades_in_a_column_of_the_users_choice(desk, audit):
    graded = [
        {"prompt": f"Question {n // 4}?", "completion": "a" * (1 + n % 4), "stars": 1 + n % 4}
        for n in range(120)
    ]
    write(desk / "graded.jsonl", graded)
    audit("graded.jsonl", "--labels", "stars")
    found, scores = document(desk)
    assert found["labelled"]["kind"] == "grades"
    assert found["labelled"]["pairs"] == 30 * 6
    assert scores["longest"]["ranks"]["value"] == pytest.approx(1.0)
    assert scores["longest"]["area"] is None


def test_rows_of_good_and_bad_without_common_prompts_are_judged_over_all_rows(desk, audit):
    rows = [
        {"prompt": f"Question {n}?", "completion": "a" * (1 + n), "quality": word}
        for n, word in enumerate(["Bad"] * 40 + ["good"] * 40)
    ]
    write(desk / "rows.jsonl", rows)
    audit("rows.jsonl", "--labels", "quality")
    _, scores = document(desk)
    assert scores["longest"]["main"] == "area"
    assert scores["longest"]["area"]["value"] == 1.0
    assert scores["longest"]["pairs"]["count"] == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Q", "completion": "a"}, "rows.jsonl:3: it has no 'label'"),
        ({"prompt": "Q", "completion": "a", "label": "okay"}, "rows.jsonl:3: 'label' is"),
        ({"prompt": "Q", "completion": "a", "label": 3}, "some labels are words"),
        ({"prompt": "Q", "completion": " ", "label": "good"}, "rows.jsonl:3: every answer"),
    ],
)
def test_mistakes_name_their_row(desk, audit, row, message):
    rows = [
        {"prompt": "A", "completion": "a", "label": "good"},
        {"prompt": "A", "completion": "b", "label": "bad"},
    ]
    write(desk / "rows.jsonl", [*rows, row])
    assert message in audit("rows.jsonl", code=1).err


def test_equal_labels_and_broken_pairs_are_errors(desk, audit):
    row = {"prompt": "A", "completion": "a", "label": "good"}
    write(desk / "rows.jsonl", [row, {**row, "prompt": "B"}])
    assert "there is nothing to compare" in audit("rows.jsonl", code=1).err
    write(desk / "mine.jsonl", [*pairs(3), {"prompt": "Q", "chosen": "x"}])
    assert "mine.jsonl:4: 'rejected' is missing" in audit("mine.jsonl", code=1).err


WARMED = """
[convert]
use = "olmoe-trashcan"
model = "bundled:nano-olmoe"
[warmup]
use = "select-moe-contrastive"
subset_ratio = 0.5
[warmup.pairs]
use = "jsonl"
path = "learned.jsonl"
share = 1
[score.router]
use = "router"
"""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("learned.jsonl", "the warm-up has seen the prompts of the others"),
        ("broken.jsonl", "broken.jsonl:31: 'rejected' is missing"),
    ],
)
def test_mistakes_come_to_light_before_the_warm_up(desk, audit, rows, message):
    with (desk / "recipe.toml").open("a") as file:
        file.write(WARMED)
    rows_of_pool = [{"prompt": f"P{n}", "completion": "x" * (n + 1)} for n in range(9)]
    write(desk / "pool.jsonl", rows_of_pool)
    write(desk / "learned.jsonl", pairs(30))
    write(desk / "broken.jsonl", [*pairs(30), {"prompt": "Q", "chosen": "x"}])
    for _ in range(2):  # also where the labels have been read before
        assert message in audit(rows, code=1).err
        made = {path.parent.name.partition("-")[0] for path in desk.glob("outputs/store/*/*.json")}
        assert "pairs" in made
        assert "warmup" not in made


def test_too_few_are_not_judged(desk, audit):
    write(desk / "mine.jsonl", pairs(19))
    audit("mine.jsonl")
    _, scores = document(desk)
    assert all(score["level"] == "unknown" for score in scores.values())


def labelled(agreement, count=300, seed=1):
    """Return pairs of equal length, and a score that ranks this share of them right."""
    random = np.random.default_rng(seed)
    value = np.tile([1.0, 0.0], count)
    right = random.random(count) < agreement
    score = np.column_stack([right, ~right]).astype(float).ravel()
    length = random.permutation(2 * count).astype(float)
    prompts = np.repeat(np.arange(count), 2)
    return score, Labelled.of(value, prompts, length, paired=True)


@pytest.mark.parametrize(
    ("agreement", "level", "words"),
    [
        (0.85, "yes", "It agrees with your labels."),
        (0.62, "partly", "a little"),
        (0.5, "no", "No better than chance"),
        (0.2, "no", "Worse than chance"),
    ],
)
def test_the_verdict_follows_the_interval(agreement, level, words):
    score, rows = labelled(agreement)
    verdict = judge_labels(examine("s", "s", score, rows), rows)
    assert verdict.level == level
    assert words in verdict.sentences[0]


def test_a_score_that_prefers_short_answers_is_compared_with_shortness():
    _, rows = labelled(0.5)
    short = -rows.length
    good = Labelled.of(rows.value, rows.prompts, np.where(rows.value > 0, 1.0, 9.0), paired=True)
    finding = examine("short", "short", -good.length, good)
    assert finding.beyond.value == pytest.approx(0.0)
    assert judge_labels(finding, good).level == "partly"
    assert examine("short", "short", short, rows).beyond.high < 0.1
