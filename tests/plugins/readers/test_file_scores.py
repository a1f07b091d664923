"""Scores made elsewhere, in the layouts that are about, against plain dictionaries."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import rows_of, write_rows

from selectmoe_core import DataError, Job, RawExample, Shard
from selectmoe_core.data import Pool
from selectmoe_core.data.examples import Message
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_core.testing import check_scorer, generated_examples
from selectmoe_readers.config import FileScoresConfig
from selectmoe_readers.file_scores import NO_NUMBER, NOT_THERE, FileScorer
from selectmoe_readers.plugin import selectmoe_scorers

(FILE,) = selectmoe_scorers()
ROWS = 40


@pytest.fixture
def pool(tmp_path) -> Pool:
    rows = [
        RawExample("s", (Message("user", f"q {n}"), Message("assistant", f"a {n}")), "", f"own-{n}")
        for n in range(ROWS)
    ]
    (tmp_path / "pool").mkdir()
    return build_pool(rows, tmp_path / "pool")


def scored(pool, **options):
    part = FileScorer(FileScoresConfig(**options))
    job = Job(seed=1, inputs=Inputs(pool=pool.folder))
    part.check(job)
    examples = list(pool.examples())
    with part.open(job) as opened:
        half = ROWS // 2
        shards = [Shard(0, np.arange(half), examples[:half]),
                  Shard(1, np.arange(half, ROWS), examples[half:])]  # fmt: skip
        found = [opened.score(shard) for shard in shards]
    scores = np.concatenate([one.score for one in found])
    return scores, [reason for one in found for reason in one.skipped]


def ids(pool):
    return [example.id for example in pool.examples()]


def values_of(random, rows=ROWS):
    return random.normal(size=rows).round(6).tolist()


@pytest.mark.parametrize("kind", ["jsonl", "array", "parquet", "binary", "folder"])
def test_by_the_pools_ids_in_any_order(pool, tmp_path, kind):
    values = values_of(np.random.default_rng())
    rows = [{"id": i, "score": v} for i, v in zip(ids(pool), values, strict=True)][::-1]
    path = tmp_path / "scores.jsonl"
    if kind == "jsonl":
        write_rows(path, [*rows, rows[3]])  # the same twice changes nothing
    elif kind == "array":
        path = tmp_path / "scores.json"
        path.write_text(json.dumps(rows))
    elif kind == "folder":
        path = tmp_path / "scores"
        path.mkdir()
        write_rows(path / "a.jsonl", rows[:7])
        pq.write_table(pa.Table.from_pylist(rows[7:]), path / "b.parquet")
    else:
        if kind == "binary":  # as our own tables have them
            rows = [{**row, "id": bytes.fromhex(row["id"])} for row in rows]
        path = tmp_path / "scores.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
    found, skipped = scored(pool, path=path)
    assert found.tolist() == values
    assert skipped == [None] * ROWS
    low, _ = scored(pool, path=path, direction="low")
    assert low.tolist() == [-value for value in values]


def test_by_the_rows_own_ids_in_the_layout_of_a_scoring_tool(pool, tmp_path):
    values = values_of(np.random.default_rng())
    write_rows(
        tmp_path / "pointwise.jsonl",
        [
            {"id": f"own-{n}", "scores": {"Deita.Q": {"score": value}, "Other": {"score": 1}}}
            for n, value in enumerate(values)
        ],
    )
    column = "scores.Deita.Q.score"
    with pytest.raises(DataError, match="there is no column"):
        scored(pool, path=tmp_path / "pointwise.jsonl", column=column, match="original")
    write_rows(
        tmp_path / "pointwise.jsonl",
        [
            {"id": f"own-{n}", "scores": {"DeitaQScorer": {"score": value}}}
            for n, value in enumerate(values)
        ],
    )
    column = "scores.DeitaQScorer.score"
    found, _ = scored(pool, path=tmp_path / "pointwise.jsonl", column=column, match="original")
    assert found.tolist() == values


def test_by_content_in_the_layout_of_published_scored_data(pool, tmp_path):
    values = values_of(np.random.default_rng())
    rows = [
        {
            "instruction": f"q {n}",
            "output": f"a {n}",
            "Q_scores": {"Clarity": value, "Complexity": None},
            "QA_scores": {"Correctness": n},
        }
        for n, value in enumerate(values)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "scored.parquet")
    options = {"path": tmp_path / "scored.parquet", "match": "content"}
    found, _ = scored(pool, column="Q_scores.Clarity", **options)
    assert found.tolist() == values
    found, _ = scored(pool, column="QA_scores.Correctness", **options)
    assert found.tolist() == list(range(ROWS))


def test_examples_without_a_score_stop_the_stage_or_are_skipped_with_the_reason(pool, tmp_path):
    rows = [{"id": i, "score": n} for n, i in enumerate(ids(pool))]
    rows[4]["score"] = None
    rows[5]["score"] = float("nan")
    del rows[9]
    write_rows(tmp_path / "s.jsonl", rows)
    path = tmp_path / "s.jsonl"
    with pytest.raises(DataError, match=rf"3 of {ROWS} examples have no score, the first") as error:
        scored(pool, path=path)
    assert ids(pool)[4] in str(error.value)
    assert 'missing = "skip"' in error.value.hint
    found, skipped = scored(pool, path=path, missing="skip")
    assert {n: why for n, why in enumerate(skipped) if why} == {
        4: NO_NUMBER, 5: NO_NUMBER, 9: NOT_THERE
    }  # fmt: skip
    assert np.flatnonzero(np.isnan(found)).tolist() == [4, 5, 9]
    write_rows(path, [{"id": "0" * 32, "score": 1}])
    with pytest.raises(DataError, match=f"{ROWS} of {ROWS}") as error:
        scored(pool, path=path)
    assert "do the ids name these examples?" in error.value.hint


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"id": "own-1", "score": 1}], {}, "'own-1' is not an id of a pool"),
        ([{"id": "own-1"}], {"match": "original"}, "there is no column 'score'"),
        ([{"score": 1}], {"match": "original"}, "there is no column 'id'"),
        ([{"id": "x", "score": "0.5"}], {"match": "original"}, "'score' is '0.5', not a number"),
        ([{"id": "x", "score": True}], {"match": "original"}, "not a number"),
        ([{"id": "x", "score": 10**400}], {"match": "original"}, "not a number"),
        (["x"], {}, "must be an object"),
        ([{"text": "x", "score": 1}], {"match": "content"}, "s.jsonl:1: "),
        (
            [{"id": "own-1", "score": 1}, {"id": "own-1", "score": 2}],
            {"match": "original"},
            r"two scores for 'own-1' \(1 and 2\)",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named(pool, tmp_path, rows, options, message):
    write_rows(tmp_path / "s.jsonl", rows)
    with pytest.raises(DataError, match=message):
        scored(pool, path=tmp_path / "s.jsonl", **options)


def test_files_that_are_not_there_or_are_something_else(pool, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        scored(pool, path=tmp_path / "nowhere.jsonl")
    (tmp_path / "s.parquet").write_text('{"id": 1}')
    with pytest.raises(DataError, match=r"s\.parquet: reading stopped"):
        scored(pool, path=tmp_path / "s.parquet")
    (tmp_path / "s.jsonl").write_text('{"id": \n')
    with pytest.raises(DataError, match=r"s\.jsonl:1: not usable JSON"):
        scored(pool, path=tmp_path / "s.jsonl")


def test_it_passes_the_conformance_kit(tmp_path):
    examples = generated_examples(30)
    rows = [{"id": e.id, "score": len(e.response)} for e in examples[1:]]
    write_rows(tmp_path / "s.jsonl", rows)
    options = {"path": str(tmp_path / "s.jsonl"), "missing": "skip"}
    check_scorer(FILE, options=options, examples=examples)


def test_other_content_is_another_digest(project):
    rows = [{"id": row["id"], "score": n} for n, row in enumerate(rows_of(40))]
    write_rows(project.folder / "a.jsonl", rows)
    options = ["score.use=file", "score.match=original", "score.path=a.jsonl"]
    first = project.digests(*options)["score"]
    said = project.run(*options, "select.fraction=0.1", "--until", "select")
    assert said.code == 0, said.err
    write_rows(project.folder / "a.jsonl", rows[::-1])
    assert project.digests(*options)["score"] != first
    write_rows(project.folder / "a.jsonl", rows)
    assert project.digests(*options)["score"] == first
