"""Filters in a run: what they mark is not selected, in no arm; and only they run when they must."""

import pyarrow.parquet as pq
import pytest
from conftest import ROWS, rows_of, write_rows

FILTERED = '[filter.short]\nuse = "fake-filter"\nanswer = "Answer 1"\n'


@pytest.fixture
def filtered(project):
    project.recipe.write_text(project.recipe.read_text() + FILTERED)
    return project


def table_of(project, name, arm="select"):
    [folder] = [run / "artifacts" / arm for run in project.runs()[-1:]]
    return pq.read_table(folder / name).to_pylist()


def test_what_a_filter_marks_is_selected_in_no_arm(filtered):
    said = filtered.run("select.fraction=1")
    assert said.code == 0, said.err
    expected = [n for n in range(ROWS) if f"{n}".startswith("1")]
    for arm in ("select", "select@random"):
        out = table_of(filtered, "left_out.parquet", arm)
        assert [row["row"] for row in out] == expected
        assert {(row["filter"], row["reason"], row["group"]) for row in out} == {
            ("short", "it is unwanted", None)
        }
        kept = {row["row"] for row in table_of(filtered, "selection.parquet", arm)}
        assert kept == set(range(ROWS)) - set(expected)
    assert f"left out by filters {len(expected)}" in said.err
    assert "short: it is unwanted" in said.err
    report = (filtered.runs()[-1] / "report.md").read_text()
    assert f"filters left out {len(expected)} rows" in report
    assert "short: it is unwanted" in (filtered.runs()[-1] / "report.html").read_text()
    assert filtered.calls().count("filter") == 1


def test_of_a_group_the_best_alone_is_kept_and_it_says_so(filtered):
    said = filtered.run("filter.short.answer=''", "filter.short.alike=6", "select.fraction=1")
    assert said.code == 0, said.err
    lengths = {n: n * 7 % 53 + len(f"Answer {n}") for n in range(6)}
    best = max(lengths, key=lengths.get)
    kept = {row["row"]: row["reason"] for row in table_of(filtered, "selection.parquet")}
    assert set(kept) == {best, *range(6, ROWS)}
    assert kept[best] == "the best of 6 rows that are alike"
    assert {kept[row] for row in range(6, ROWS)} == {None}
    out = table_of(filtered, "left_out.parquet")
    assert {row["row"] for row in out} == set(range(6)) - {best}
    assert {row["reason"] for row in out} == {"another row of its group is kept"}
    assert len({row["group"] for row in out}) == 1


def test_a_filter_runs_again_for_its_own_sake_alone(filtered):
    before = filtered.digests()
    changed = filtered.digests("score.factor=2")
    assert changed["filter:short"] == before["filter:short"]
    assert changed["select"] != before["select"]
    changed = filtered.digests("filter.short.answer=other")
    assert {key for key in before if before[key] != changed[key]} == {
        "filter:short", "select", "train", "evaluate",
        "select@random", "train@random", "evaluate@random",
    }  # fmt: skip
    assert "filter:short" not in filtered.digests("~filter.short")
    assert "filter:short" not in filtered.digests("--until", "score")
    assert set(filtered.digests("--until", "filter")) == {"pool", "filter:short"}


def test_questions_come_from_the_evaluation_and_from_nothing_else_of_it(filtered):
    reading = ("filter.short.answer=''", "filter.short.questions=true")
    before = filtered.digests(*reading)
    same = filtered.digests(*reading, "evaluate.resamplings=99")
    assert same["evaluate"] != before["evaluate"]
    assert {key for key in before if before[key] != same[key]} == {
        "evaluate", "evaluate@base", "evaluate@random"
    }  # fmt: skip
    other = filtered.digests(*reading, 'evaluate.tasks=["letters", "more"]')
    assert other["questions"] != before["questions"]
    assert other["filter:short"] != before["filter:short"]
    said = filtered.run(*reading, 'evaluate.tasks=["letters", "more"]', "--until", "select")
    assert said.code == 0, said.err
    out = {row["row"] for row in table_of(filtered, "left_out.parquet")}
    assert out == {n for n in range(ROWS) if f"{n}"[0] in "01"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("filter.short.questions=true", "~evaluate", "~compare"), "needs the questions"),
        (("filter.short.questions=true", "evaluate.use=fake-silent-eval"), "does not give them"),
        (("filter.short.use=fake-filtre",), "there is no filter named 'fake-filtre'"),
        (("filter.short=3",), "each filter has a table with a name of its own"),
        (("filter.short.subset_ratio=0.5",), "'subset_ratio' has no effect here"),
        (("filter.short.anwser=x",), "did you mean 'answer'?"),
    ],
)
def test_mistakes_are_found_before_anything_runs(filtered, change, what):
    said = filtered.call("plan", "recipe.toml", *change)
    assert said.code == 2
    assert what in said.err


def test_marks_that_cannot_be_used_end_the_stage(filtered):
    said = filtered.run("filter.short.outside=true")
    assert said.code == 1
    assert "fake-filter returned marks that cannot be used: a row lies outside" in said.err


def test_filters_that_leave_nothing_say_so(filtered):
    said = filtered.run("filter.short.answer=Answer")
    assert said.code == 1
    assert "the filters leave out every example that has a score" in said.err
    assert f"short: it is unwanted {ROWS}" in said.err


def test_a_pool_without_rows_to_leave_out_is_no_special_case(filtered):
    write_rows(filtered.folder / "pool.jsonl", rows_of(9, start=20))
    assert filtered.run().code == 0
    assert table_of(filtered, "left_out.parquet") == []
