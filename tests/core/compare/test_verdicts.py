"""Sentences and figures of comparisons, from answers made by hand."""

import numpy as np
import pytest

from selectmoe_core.compare.costs import PARTS, ArmCost, more_random_data
from selectmoe_core.compare.findings import MEAN, Contender, find
from selectmoe_core.compare.notes import notes_on
from selectmoe_core.compare.results import Task, read_tasks
from selectmoe_core.compare.statistics import Estimate
from selectmoe_core.compare.verdicts import judge
from selectmoe_core.errors import StageError
from selectmoe_core.store import Artifact


def difference(value, low, high, seeds=3, p=0.01):
    return Estimate(value, low, high, p, seeds, 1000, 0.01, 0.01 if seeds > 1 else None)


def said(value, low, high, *, seeds=3, adjusted=0.01, **more):
    options = {"points": True, "higher": True, "at_chance": False, "family": 4, **more}
    found = difference(value, low, high, seeds)
    return judge("router", "random", value, found, adjusted, **options)


@pytest.mark.parametrize(
    ("verdict", "kind", "sentence"),
    [
        (
            said(0.013, 0.004, 0.022),
            "better",
            "router beats random by 1.3 points (95 % interval 0.4 to 2.2, 3 seeds)",
        ),
        (
            said(-0.02, -0.031, -0.009),
            "worse",
            "router is worse than random by 2.0 points (95 % interval 0.9 to 3.1, 3 seeds)",
        ),
        (
            said(0.004, -0.01, 0.018, adjusted=0.6),
            "no difference",
            "router: no measurable difference from random (+0.4 points, 95 % interval -1.0 to 1.8, "
            "3 seeds)",
        ),
        (
            said(0.013, 0.001, 0.025, adjusted=0.16),
            "no difference",
            "router: no measurable difference from random (+1.3 points, 95 % interval 0.1 to 2.5, "
            "3 seeds; not beyond chance among 4 comparisons, adjusted p = 0.160)",
        ),
        (
            said(0.05, 0.04, 0.06, seeds=1),
            "better",
            "router beats random by 5.0 points (95 % interval 4.0 to 6.0, 1 seed: the noise of "
            "seeds is unknown)",
        ),
        (
            said(0.05, 0.04, 0.06, at_chance=True),
            "no verdict",
            "no verdict on router: it and random are at chance",
        ),
        (
            said(-0.25, -0.3, -0.2, points=False, higher=False),
            "better",
            "router beats random by 0.25 (95 % interval 0.2 to 0.3, 3 seeds)",
        ),
        (
            said(0.25, 0.2, 0.3, points=False, higher=False),
            "worse",
            "router is worse than random by 0.25 (95 % interval 0.2 to 0.3, 3 seeds)",
        ),
    ],
)
def test_sentences(verdict, kind, sentence):
    assert verdict.sentence == sentence
    assert verdict.kind == kind


def test_without_answers_there_is_no_verdict():
    found = judge(
        "a", "random", -0.02, None, None, points=True, higher=True, at_chance=False, family=0
    )
    assert found.kind == "no verdict"
    assert found.sentence.startswith("no verdict on a: it is 2.0 points below random")


def task(answers, *, chance=0.25, name="t", higher=True, share=True):
    """A task from the answers of each arm, ``[seeds, questions]``."""
    arrays = {arm: np.array(rows, dtype=float) for arm, rows in answers.items()}
    values = {arm: tuple(rows.mean(axis=1).tolist()) for arm, rows in arrays.items()}
    return Task(name, "acc", chance, 10, higher, share, values, arrays)


def right(share, questions=400, seeds=3):
    """So many right answers of each training, always on the first questions."""
    row = np.arange(questions) < share * questions
    return np.repeat([row], seeds, axis=0)


def three(a, random, base):
    return task({"base": right(base, seeds=1), "random": right(random), "a": right(a)})


CONTENDERS = (
    Contender("base", "base", "random"),
    Contender("random", "random", ""),
    Contender("a", "strategy", "random"),
)


def test_the_difference_is_paired_question_by_question():
    """The arms differ on exactly a tenth of the questions: no other noise is in the interval."""
    findings = find(CONTENDERS, [three(0.7, 0.6, 0.5)])
    figure = findings.results[2].figures["t"]
    assert figure.value == pytest.approx(0.7)
    assert figure.difference.value == pytest.approx(0.1)
    error = np.sqrt(0.1 * 0.9 / 400)
    assert figure.difference.question_error == pytest.approx(error, rel=0.06)
    assert figure.low == pytest.approx(0.7 - 1.96 * np.sqrt(0.7 * 0.3 / 400), abs=0.006)
    assert findings.results[2].verdict.kind == "better"
    assert findings.results[0].verdict is None
    assert findings.results[1].figures["t"].difference is None


def test_the_base_model_is_compared_with_each_training():
    findings = find(CONTENDERS, [three(0.7, 0.6, 0.5)])
    base = findings.results[0].figures["t"].difference
    assert (base.value, base.seeds) == (pytest.approx(-0.1), 3)


def test_p_values_are_adjusted_for_the_number_of_arms():
    rng = np.random.default_rng(0)
    one = {"random": rng.random((3, 300)) < 0.5}
    others = {f"s{number}": rng.random((3, 300)) < 0.53 for number in range(8)}
    contenders = [Contender("random", "random", "")]
    contenders += [Contender(name, "strategy", "random") for name in others]
    findings = find(contenders, [task({**one, **others})])
    raw = [result.figures[MEAN].difference.p_value for result in findings.results[1:]]
    adjusted = [result.verdict.adjusted for result in findings.results[1:]]
    assert findings.family == 8
    assert min(adjusted) == pytest.approx(min(1.0, 8 * min(raw)))
    assert all(own <= more for own, more in zip(raw, adjusted, strict=True))


def test_the_mean_leaves_out_what_is_no_share_of_right_answers():
    first, second = three(0.7, 0.6, 0.5), three(0.5, 0.6, 0.5)
    loss = task(
        {name: rows * 3.0 for name, rows in first.answers.items()}, name="loss", chance=None,
        higher=False, share=False,
    )  # fmt: skip
    findings = find(CONTENDERS, [first, second, loss])
    assert len(findings.judged) == 2
    assert findings.results[2].figures[MEAN].value == pytest.approx(0.6)
    assert findings.results[2].figures[MEAN].difference.value == pytest.approx(0.0)


def notes(one, **evaluations):
    found = {
        name: [Artifact("evaluate", "e", f"{name}{seed}", None) for seed in range(len(rows))]
        for name, rows in one.answers.items()
    }
    return " ".join(notes_on(find(CONTENDERS, [one]), {}, {**found, **evaluations}))


def test_a_base_above_every_arm_is_said():
    assert "base is better than every trained arm" in notes(three(0.5, 0.5, 0.6))
    assert "every trained arm" not in notes(three(0.7, 0.5, 0.6))


def test_chance_is_said_and_ends_in_no_verdict():
    one = three(0.26, 0.24, 0.5)
    assert "at chance on t: random, a; where two arms" in notes(one)
    verdict = find(CONTENDERS, [one]).results[2].verdict
    assert verdict.kind == "no verdict"


def test_seeds_that_change_nothing_are_said():
    same = {"a": [Artifact("evaluate", "e", "one", None)] * 3}
    assert "the seed changes nothing in the training of a" in notes(three(0.7, 0.6, 0.5), **same)


def test_what_every_evaluation_warns_of_is_said_once():
    facts = {"warnings": ["3 requests were truncated"]}
    one = three(0.7, 0.6, 0.5)
    found = {
        name: [Artifact("evaluate", "e", f"{name}{n}", None, facts) for n in range(len(rows))]
        for name, rows in one.answers.items()
    }
    assert notes(one, **found).count("3 requests were truncated") == 1


def cost(choosing, training, kept=100.0):
    parts = {**dict.fromkeys(PARTS, 0.0), "warm-up": choosing, "training": training}
    return ArmCost(parts, dict.fromkeys(PARTS), kept, None)


def test_what_choosing_would_have_bought_as_random_data():
    """60 seconds more than a draw, at 20 seconds for 100 examples: 300 further examples."""
    assert more_random_data(cost(61.0, 5.0), cost(1.0, 20.0)) == pytest.approx(300)
    assert more_random_data(cost(0.5, 5.0), cost(1.0, 20.0)) == 0
    assert more_random_data(cost(61.0, 5.0), cost(1.0, 0.0)) is None


def evaluation(folder, answers, value=None):
    """An artifact as lm-eval's evaluations are: a group of two tasks with their samples."""
    folder.mkdir()
    (folder / "results_now.json").write_text('{"group_subtasks": {"g": ["x", "y"], "x": []}}')
    tasks = {}
    for name, rows in answers.items():
        lines = [f'{{"doc_id": {n}, "doc_hash": "h", "acc": {row}}}' for n, row in enumerate(rows)]
        (folder / f"samples_{name}_2026-01-01T00-00.jsonl").write_text("\n".join(lines))
        tasks[name] = {"metric": "acc", "value": sum(rows) / len(rows)}
    every = [row for rows in answers.values() for row in rows]
    mean = sum(every) / len(every) if value is None else value
    facts = {"g": {"metric": "acc", "value": mean, "chance": 0.25, "questions": 5}, **tasks}
    return Artifact("evaluate", "lm-eval", folder.name, folder, {"tasks": facts})


def test_a_group_is_one_task_with_the_answers_of_its_parts(tmp_path):
    arms = {
        "random": [evaluation(tmp_path / "r", {"x": [1, 0, 0], "y": [0, 1]})],
        "a": [evaluation(tmp_path / "a", {"x": [1, 1, 0], "y": [1, 1]})],
    }
    [group] = read_tasks(arms)
    assert (group.name, group.chance, group.share) == ("g", 0.25, True)
    assert group.answers["random"].sum() == 2
    assert (group.answers["a"] - group.answers["random"]).tolist() == [[0, 1, 0, 1, 0]]


@pytest.mark.parametrize("name", ["results_now.json", "samples_x_2026-01-01T00-00.jsonl"])
@pytest.mark.parametrize("content", ["{", "3", "[]", '{"group_subtasks": 3, "acc": "much"}'])
def test_a_damaged_file_of_an_evaluation_is_named(tmp_path, name, content):
    arms = {"random": [evaluation(tmp_path / "r", {"x": [1, 0], "y": [0, 1]})]}
    (tmp_path / "r" / name).write_text(content)
    if (name[0], content) == ("s", "[]"):
        return  # no metric there, as in a file of other results
    with pytest.raises(StageError, match=f"{name} is damaged") as caught:
        read_tasks(arms)
    assert "--fresh evaluate" in caught.value.hint


def test_answers_that_are_not_those_of_the_result_are_not_used(tmp_path):
    arms = {
        "random": [evaluation(tmp_path / "r", {"x": [1, 0, 0], "y": [0, 1]})],
        "a": [evaluation(tmp_path / "a", {"x": [1, 1, 0], "y": [1, 1]}, value=0.3)],
        "b": [evaluation(tmp_path / "b", {"x": [1, 1, 0], "y": [1]})],
    }
    [group] = read_tasks(arms)
    assert set(group.answers) == {"random"}
