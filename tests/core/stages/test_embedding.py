"""Vectors in a run: made once for the pool and once for the targets, resumed, read by scores."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROWS, rows_of, tree, write_rows
from fake_chain import letters

from selectmoe_core.data import Pool, Vectors

TABLES = """
[targets]
use = "jsonl"
path = "targets.jsonl"

[embed]
use = "fake-embed"
shard_examples = 7
"""
TARGETS = 9
CHILD = ("embed.use=fake-child-embed", "--device", "cpu", "--until", "embed")


@pytest.fixture
def aimed(project):
    """A recipe whose score reads the vectors of pool and targets."""
    text = project.recipe.read_text()
    score = text.partition("[score]")[2].partition("[select]")[0]
    text = text.replace(score, '\nuse = "fake-near"\n\n')
    project.recipe.write_text(text + TABLES)
    write_rows(project.folder / "targets.jsonl", rows_of(TARGETS, start=100))
    return project


def folder_of(project, key):
    return (project.runs()[-1] / "artifacts" / key.replace(":", "-")).resolve()


def embedded(project, key):
    """The vectors of a run, and what they should be."""
    vectors = Vectors(folder_of(project, key))
    pool = Pool.open(folder_of(project, "targets" if "targets" in key else "pool"))
    expected = np.array([letters(example.response) for example in pool.examples()])
    return vectors.take(range(len(vectors))), expected


def test_pool_and_targets_are_embedded_and_scored_by(aimed):
    said = aimed.run()
    assert said.code == 0, said.err
    found, expected = embedded(aimed, "embed")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, expected)
    near, those = embedded(aimed, "embed:targets")
    np.testing.assert_array_equal(near, those)
    assert (len(found), len(near)) == (ROWS, TARGETS)
    [path] = (folder_of(aimed, "score") / "scores").glob("*.parquet")
    scores = pq.read_table(path).column("score").to_numpy()
    np.testing.assert_allclose(scores, (expected @ those.T).max(axis=1))
    calls = aimed.calls()
    assert [call for call in calls if call in ("embed pool", "embed target")] == [
        "embed pool",
        "embed target",
    ]
    assert "tasks ['cot', 'dolly', 'oasst1']" in calls
    assert f"vectors {ROWS:,}, width 15" in said.err
    assert f"vectors {TARGETS:,}, width 15" in said.err


def test_nothing_is_made_that_nobody_reads(aimed):
    keys = {node["key"] for node in aimed.plan()["nodes"]}
    assert {"targets", "embed", "embed:targets"} <= keys
    assert not {"convert", "warmup"} & keys
    without = aimed.plan("score.targets=false")
    keys = {node["key"] for node in without["nodes"]}
    assert "embed" in keys
    assert not {"targets", "embed:targets"} & keys
    assert {"targets", "embed:targets"} <= set(without["not_needed"])
    other = aimed.plan("score.use=length")
    assert {"targets", "embed", "embed:targets"} <= set(other["not_needed"])


def test_a_recipe_that_ends_with_vectors_makes_both(aimed):
    assert aimed.run("--until", "embed").code == 0
    assert {len(Vectors(folder_of(aimed, key))) for key in ("embed", "embed:targets")} == {
        ROWS,
        TARGETS,
    }
    assert aimed.run("--until", "targets").code == 0
    assert len(Pool.open(folder_of(aimed, "targets"))) == TARGETS


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ("embed.what=equal", {"embed", "embed:targets"}),
        ("embed.batch=2", set()),
        ("embed.shard_examples=3", set()),
        ("targets.subset_ratio=0.5", {"targets", "embed:targets"}),
        ("score.targets=false", set()),
    ],
)
def test_vectors_are_made_again_only_when_they_must(aimed, change, changed):
    keys = ("pool", "targets", "embed", "embed:targets")
    before, after = aimed.digests(), aimed.digests(change)
    assert {key for key in keys if key in after and before[key] != after[key]} == changed


def test_the_same_rows_as_pool_and_as_targets_are_two_artifacts(aimed):
    digests = aimed.digests("targets.path=pool.jsonl")
    assert digests["embed"] != digests["embed:targets"]


def test_a_stopped_stage_goes_on_where_it_was(aimed):
    aimed.tell("fail-embed-3")
    assert aimed.run("--until", "embed").code == 1
    aimed.untell("fail-embed-3")
    first = [call for call in aimed.calls() if call.startswith("embed ") and call[-1].isdigit()]
    assert first == ["embed 0", "embed 1", "embed 2", "embed 3"]
    [unfinished] = aimed.store.glob("embed-*/vectors")
    path = unfinished / "part-00001.npy"
    path.write_bytes(path.read_bytes()[:-20])
    said = aimed.run("--until", "embed")
    assert said.code == 0, said.err
    assert "cannot be read" in said.err
    assert "embedded again" in said.err
    calls = aimed.calls()
    again = calls[: calls.index("embed target")]
    assert [call for call in again if call[-1].isdigit()] == [
        "embed 1",
        "embed 3",
        "embed 4",
        "embed 5",
    ]
    np.testing.assert_array_equal(*embedded(aimed, "embed"))


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(aimed):
    def files(outputs, *arguments):
        said = aimed.run(*CHILD, "--outputs", outputs, *arguments)
        assert said.code == 0, said.err
        store = aimed.folder / outputs / "store"
        return {folder.name: tree(folder / "vectors") for folder in store.glob("embed-*/")}

    one = files("one")
    assert sorted(len(parts) for parts in one.values()) == [2, 6]
    aimed.tell("slow", "0.2")
    assert files("two", "--num-processes", "2") == one


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("equal", "made the same vector for all 40 examples"),
        ("zeros", "made a vector of zeros for each of 40 examples"),
        ("infinite", "the vectors of 1 of 7 examples are not finite in float16"),
        ("short", "returned an array of shape (6, 15) for 7 examples"),
    ],
)
def test_vectors_that_say_nothing_end_the_stage(aimed, what, says):
    said = aimed.run(f"embed.what={what}")
    assert said.code == 1
    assert says in " ".join(said.err.split())
    assert "Traceback" not in said.err


def test_an_embedder_that_gives_no_array_is_named(aimed):
    said = aimed.run("embed.what=list")
    assert said.code == 3
    assert "[embed] fake-embed: embed() returned list" in said.err
    assert "expected a numpy array" in said.err


@pytest.mark.parametrize(
    ("removed", "says"),
    [
        ("targets", "[score]: fake-near needs targets: examples of what the model should learn"),
        ("embed", "[score]: fake-near needs vectors"),
    ],
)
def test_what_is_missing_is_named_with_the_table_to_add(aimed, removed, says):
    said = aimed.run(f"~{removed}")
    assert said.code == 2
    assert says in said.err
    assert f"add a table [{removed}]" in said.err


def test_checkpoints_of_the_warm_up(aimed):
    said = aimed.run("embed.reads_checkpoints=true")
    assert said.code == 1
    assert "the checkpoints of the warm-up in" in said.err
    assert "--fresh warmup" in said.err
    [warmup] = aimed.store.glob("warmup-*/")
    (warmup / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    assert aimed.run("embed.reads_checkpoints=true").code == 0
    assert aimed.calls().count("checkpoints ['checkpoint-2']") == 2


def test_checkpoints_take_a_warm_up(aimed):
    said = aimed.run("~warmup", "embed.reads_checkpoints=true")
    assert said.code == 2
    assert "[embed]: fake-embed needs the checkpoints of a warm-up" in said.err


def test_an_audit_embeds_the_damaged_pool(aimed):
    said = aimed.call("audit", "recipe.toml", "audit.sample=20", "--device", "cpu")
    assert said.code == 0, said.err
    assert aimed.calls().count("embed pool") == 1
    sizes = sorted(len(Vectors(folder)) for folder in aimed.store.glob("embed-*/"))
    assert sizes == [TARGETS, 20]
