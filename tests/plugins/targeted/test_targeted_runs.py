"""The scorers of target tasks in a run: columns, stops and starts, mistakes."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import write_rows

from selectmoe_core.data import Vectors
from selectmoe_core.testing import check_plugin

TABLES = """
[targets]
use = "jsonl"
path = "targets.jsonl"

[embed]
use = "fake-embed"
"""
TOPICS = {
    "fruit": "apple pear plum cherry",
    "metal": "iron copper zinc lead",
    "town": "street bridge market square",
}


def row(source, number, words):
    return {
        "dataset": source,
        "messages": [
            {"role": "user", "content": f"Say something, please ({number})."},
            {"role": "assistant", "content": f"{words} {'.' * (number % 7)}"},
        ],
    }


@pytest.fixture
def aimed(project):
    """A pool about three topics, and targets about two of them."""
    draw = np.random.default_rng(2)
    rows, targets = [], []
    for number in range(60):
        name = sorted(TOPICS)[number % 3]
        words = " ".join(draw.choice(TOPICS[name].split(), 4))
        rows.append(row(name, number, words))
    for number, name in enumerate(("fruit", "town", "fruit", "town")):
        targets.append(row(f"about-{name}", 100 + number, TOPICS[name]))
    write_rows(project.folder / "pool.jsonl", rows)
    write_rows(project.folder / "targets.jsonl", targets)
    text = project.recipe.read_text()
    score = text.partition("[score]")[2].partition("[select]")[0]
    project.recipe.write_text(text.replace(score, '\nuse = "similarity"\n\n') + TABLES)
    return project


def table(project, stage="score"):
    [folder] = [run / "artifacts" / stage for run in project.runs()[-1:]]
    return pq.read_table(folder / "scores").to_pydict()


def test_scores_of_each_task_are_columns(aimed):
    said = aimed.run("score.per_task=max", "--until", "score")
    assert said.code == 0, said.err
    found = table(aimed)
    assert {"task:about-fruit", "task:about-town", "nearest", "similarity"} <= set(found)
    folders = [aimed.runs()[-1] / "artifacts" / name for name in ("embed", "embed-targets")]
    pool, targets = (
        vectors.take(range(len(vectors))).astype(np.float64) for vectors in map(Vectors, folders)
    )
    unit = [own / np.linalg.norm(own, axis=1, keepdims=True) for own in (pool, targets)]
    whole = unit[0] @ unit[1].T
    np.testing.assert_allclose(found["task:about-fruit"], whole[:, [0, 2]].max(1), atol=1e-6)
    np.testing.assert_allclose(found["task:about-town"], whole[:, [1, 3]].max(1), atol=1e-6)
    np.testing.assert_allclose(found["score"], whole.max(1), atol=1e-6)
    assert found["nearest"] == whole.argmax(1).tolist()


def test_words_without_a_model(aimed):
    pytest.importorskip("bm25s")
    said = aimed.run("score.use=bm25", "score.text=response", "select.fraction=0.5")
    assert said.code == 0, said.err
    rows = pq.read_table(aimed.runs()[-1] / "artifacts" / "select" / "selection.parquet")
    assert set(rows.column("source").to_pylist()) == {"fruit", "town"}
    assert "embed" not in {path.name for path in (aimed.runs()[-1] / "artifacts").iterdir()}


@pytest.mark.parametrize("per_task", ["max", "mean"])
def test_words_equal_the_library_itself(aimed, per_task):
    bm25s = pytest.importorskip("bm25s")
    said = aimed.run("score.use=bm25", f"score.per_task={per_task}", "--until", "score")
    assert said.code == 0, said.err
    texts, queries = (
        ["\n".join(turn["content"] for turn in json.loads(line)["messages"]) for line in lines]
        for lines in (
            (aimed.folder / name).read_text().splitlines()
            for name in ("pool.jsonl", "targets.jsonl")
        )
    )
    index = bm25s.BM25(k1=1.5, b=0.75)
    index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    words = bm25s.tokenize(queries, return_ids=False, show_progress=False)
    whole = np.stack(
        [index.get_scores([w for w in own if w in index.vocab_dict]) for own in words], axis=1
    )
    whole = whole / whole.max(axis=0)
    found = table(aimed)
    for name, own in (("fruit", [0, 2]), ("town", [1, 3])):
        expected = whole[:, own].max(1) if per_task == "max" else whole[:, own].mean(1)
        np.testing.assert_allclose(found[f"task:about-{name}"], expected, atol=1e-5)


def test_a_score_that_was_stopped_ends_alike(aimed):
    """Shards that a stopped run lost are made again from the same comparison."""
    options = ("--until", "score", "score.shard_examples=7")
    assert aimed.run(*options).code == 0
    folder = (aimed.runs()[-1] / "artifacts" / "score").resolve()
    before = table(aimed)
    (folder / "artifact.json").unlink()
    for part in sorted((folder / "scores").glob("*.parquet"))[3:5]:
        part.unlink()
    said = aimed.run(*options)
    assert said.code == 0, said.err
    assert table(aimed) == before


def test_the_plugin_is_light():
    check_plugin("selectmoe_targeted.plugin")
