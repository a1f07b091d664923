"""Clusters and their turns: blobs that must be found, plain loops, and what is written."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from vector_pools import PlainRows, best_first, blobs, table_beside

from selectmoe_core import Job, StageError
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_core.stages.select import choose
from selectmoe_diverse import clusters
from selectmoe_diverse.cluster_round_robin import ClusterRoundRobin, in_turns
from selectmoe_diverse.clusters import Centres, assign, find_clusters, k_means, sizes_to_try
from selectmoe_diverse.config import ClusterRoundRobinConfig as Config
from selectmoe_diverse.rows import unit


def same_partition(labels, truth):
    """Whether two labellings make the same groups."""
    pairs = set(zip(labels.tolist(), truth.tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize(
    "options",
    [
        {"clusters": 6},
        {"clusters": "elbow", "most_clusters": 32},
        {"clusters": "silhouette", "most_clusters": 32},
        {"method": "hdbscan", "min_cluster_size": 8},
    ],
)
def test_well_separated_blobs_are_found(options):
    random = np.random.default_rng(11)
    vectors, truth = blobs(random, 6, 40, spread=0.02)
    rows = PlainRows(vectors)
    labels = find_clusters(rows, np.arange(len(vectors)), Config(**options), seed=3)
    assert same_partition(labels, truth)


def test_every_row_goes_to_its_nearest_centre_block_by_block(monkeypatch):
    monkeypatch.setattr(clusters, "BLOCK", 7)
    random = np.random.default_rng()
    vectors = random.normal(size=(100, 5)).astype(np.float16)
    vectors[13] = 0
    centres = (random.normal(size=(4, 5)) * random.uniform(0.3, 1, size=(4, 1))).astype(np.float32)
    rows = PlainRows(vectors)
    labels = assign(rows, Centres(centres, np.full(4, -np.inf)))
    for row, label in enumerate(labels):
        one = vectors[row].astype(np.float64)
        one /= np.linalg.norm(one) or 1
        distances = ((centres - one) ** 2).sum(axis=1)
        assert distances[label] < distances.min() + 1e-6  # in fp32 two may be equally near
    assert rows.most == 7


def test_a_row_beyond_its_clusters_reach_is_in_none():
    vectors = np.array([[1, 0], [1, 0.2], [0.1, 1], [-1, 0]], dtype=np.float16)
    centres = np.array([[0.9, 0], [0, 0.5]], dtype=np.float32)
    labels = assign(PlainRows(vectors), Centres(centres, np.array([0.99, 0.5])))
    assert labels.tolist() == [0, -1, 1, -1]


def test_outliers_of_hdbscan_are_in_no_cluster_and_others_than_the_sample_too():
    random = np.random.default_rng(5)
    vectors, truth = blobs(random, 3, 60, width=30, spread=0.02)
    lone = random.normal(size=(5, 30)).astype(np.float16)
    rows = PlainRows(np.concatenate([vectors, lone]))
    config = Config(method="hdbscan", min_cluster_size=10)
    labels = find_clusters(rows, np.arange(100), config, seed=1)
    assert labels[180:].tolist() == [-1] * 5
    inside = labels[:180] >= 0
    assert inside.mean() > 0.8
    assert same_partition(labels[:180][inside], truth[inside])


def test_k_means_is_not_worse_than_scikit_learns_own():
    from sklearn.cluster import KMeans

    random = np.random.default_rng()
    ratios = []  # of one drawing 1.008, give or take 0.007
    for _ in range(4):
        points = unit(random.normal(size=(600, 8)))
        ours = k_means(points, 20, 1)[1]
        theirs = KMeans(20, n_init=3, random_state=1).fit(points).inertia_ / len(points)
        ratios.append(ours / theirs)
    assert np.mean(ratios) < 1.05


def test_turns_equal_a_plain_loop():
    random = np.random.default_rng()
    for _ in range(200):
        labels = random.integers(-1, 6, size=random.integers(1, 60))
        count = int(random.integers(1, 70))
        left = {label: [n for n, own in enumerate(labels) if own == label] for label in set(labels)}
        expected, turn = [], 0
        while any(left.values()):
            first = sorted(own.pop(0) for own in left.values() if own)
            expected += [(place, turn) for place in first]
            turn += 1
        places, turns = in_turns(labels, count)
        assert list(zip(places.tolist(), turns.tolist(), strict=True)) == expected[:count]


def test_clusters_take_turns_of_the_pool_and_of_each_source(tmp_path):
    random = np.random.default_rng(2)
    vectors, truth = blobs(random, 5, 50, spread=0.02)
    table, plain, job = table_beside(tmp_path, vectors, random)
    found = ClusterRoundRobin(Config(k=23, clusters=5)).select(table, job)
    order = [row["row"] for row in best_first(plain)]
    places, _ = in_turns(truth[order], 23)
    assert found.rows.tolist() == [order[place] for place in places]
    assert same_partition(found.cluster, truth[found.rows])
    own = [row for row in order if truth[row] == truth[found.rows[7]]]
    assert found.reason.to_pylist()[7] == f"no. {own.index(found.rows[7]) + 1} of its cluster"

    config = Config(k=30, clusters=5, per="source", quota="equal", floor=3)
    found = ClusterRoundRobin(config).select(table, job)
    for name in "abc":
        own = [row for row in order if plain[row]["source"] == name]
        kept = [row for row in found.rows if plain[row]["source"] == name]
        places, _ = in_turns(truth[own], len(kept))
        assert sorted(kept) == sorted(own[place] for place in places)
        assert len(kept) == 10


def test_the_selection_file_has_the_clusters(tmp_path):
    random = np.random.default_rng(8)
    vectors, _ = blobs(random, 4, 40, spread=0.02)
    table, _, job = table_beside(tmp_path, vectors, random)
    part = ClusterRoundRobin(Config(k=12, method="hdbscan", min_cluster_size=5))
    choose(part, table, tmp_path, job)
    written = pq.read_table(tmp_path / "selection.parquet").to_pylist()
    found = part.select(table, job)
    expected = [None if label < 0 else label for label in found.cluster.tolist()]
    assert [row["cluster"] for row in written] == expected
    assert len({row["cluster"] for row in written}) >= 4
    assert all(row["reason"].endswith("of its cluster") for row in written)


def test_clusters_come_from_the_sample_and_the_seed(tmp_path):
    random = np.random.default_rng()
    vectors = random.normal(size=(300, 6)).astype(np.float16)
    table, _, job = table_beside(tmp_path, vectors, random)
    part = ClusterRoundRobin(Config(k=40, clusters=8, sample=60))
    first, again = (part.select(table, job).rows.tolist() for _ in range(2))
    assert first == again
    assert first != part.select(table, Job(seed=5, inputs=job.inputs)).rows.tolist()


def test_what_does_not_fit_is_an_error(tmp_path):
    random = np.random.default_rng(9)  # others might have a cluster of 15 by chance
    vectors = random.normal(size=(40, 6)).astype(np.float16)
    table, _, job = table_beside(tmp_path, vectors, random)
    with pytest.raises(StageError, match="clusters = 41 for") as caught:
        ClusterRoundRobin(Config(k=5, clusters=41)).select(table, job)
    assert "lower 'clusters'" in caught.value.hint
    with pytest.raises(StageError, match="finds no cluster of 15"):
        ClusterRoundRobin(Config(k=5, method="hdbscan", min_cluster_size=15)).select(table, job)
    with pytest.raises(StageError, match="reads vectors"):
        ClusterRoundRobin(Config(k=5, clusters=3)).select(table, Job(seed=1))
    other, _, _ = table_beside(tmp_path / "other", vectors[:30], random)
    with pytest.raises(StageError, match="40 vectors for 30 scores"):
        ClusterRoundRobin(Config(k=5, clusters=3)).select(other, job)
    with pytest.raises(StageError, match="too few examples to find a number"):
        sizes_to_try(3)
    assert sizes_to_try(40) == [2, 3, 4, 6, 8, 12, 16, 24, 32]
    assert Inputs().vectors is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 1}, "greater than or equal to 2"),
        ({"method": "hdbscan", "clusters": 5}, "finds the number of clusters itself"),
        ({"min_cluster_size": 5}, "needs method"),
        ({"most_clusters": 50}, "needs clusters"),
        ({"quota": "equal"}, 'need per = "source"'),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Config(**options)
