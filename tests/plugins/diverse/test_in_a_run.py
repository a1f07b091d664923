"""Selectors that read vectors, in a run: [embed] is made for them, and random draws need none."""

import pyarrow.parquet as pq
import pytest

EMBED = '\n[embed]\nuse = "fake-embed"\nshard_examples = 7\n'


@pytest.mark.parametrize(
    ("use", "more"),
    [
        ("cluster-round-robin", ["select.clusters=4"]),
        ("k-center", ["select.threshold=1.0"]),
        ("facility-location", []),
    ],
)
def test_a_selector_that_reads_vectors(project, use, more):
    project.recipe.write_text(project.recipe.read_text() + EMBED)
    said = project.run(f"select.use={use}", "select.k=6", *more, "select.per=source")
    assert said.code == 0, said.err
    folder = project.runs()[-1] / "artifacts"
    rows = pq.read_table((folder / "select").resolve() / "selection.parquet").to_pylist()
    assert 0 < len(rows) <= 6
    assert all(row["reason"] for row in rows)
    assert all((row["cluster"] is not None) == (use == "cluster-round-robin") for row in rows)
    assert {row["group"] for row in rows} == {row["source"] for row in rows}
    drawn = pq.read_table((folder / "select@random").resolve() / "selection.parquet")
    assert len(drawn) == 6
    assert set(drawn.column("cluster").to_pylist()) == {None}


def test_without_an_embedder_the_plan_says_what_is_missing(project):
    said = project.call("plan", "recipe.toml", "select.use=k-center", "select.k=5")
    assert said.code == 2
    assert "[embed]" in said.err
