"""Clusters of vectors: found in a sample, then every row goes to its nearest one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selectmoe_core import StageError
from selectmoe_diverse.config import ClusterRoundRobinConfig
from selectmoe_diverse.rows import Rows, unit

BLOCK = 4096
"""Rows assigned together."""
ROUNDS = 20
"""Rounds of k-means; more change little."""
SEEDED = 16
"""Rows for each cluster among which k-means++ looks for the first centres."""
JUDGED = 2_000
"""Rows whose silhouettes are computed, which takes the square of their number."""
NONE = -1
"""The number of no cluster."""


@dataclass(frozen=True)
class Centres:
    """The centres of clusters.

    Attributes:
        vectors: fp32 ``[clusters, width]``; means, so that they are shorter than 1.
        reach: the lowest cosine similarity of a row that belongs to each, ``[clusters]``; rows
            that are further from their nearest centre are in no cluster.
    """

    vectors: np.ndarray
    reach: np.ndarray


def find_clusters(
    vectors: Rows, sample: np.ndarray, config: ClusterRoundRobinConfig, seed: int
) -> np.ndarray:
    """Return the cluster of every row, int64 ``[rows]``, below 0 for none.

    Args:
        vectors: the vectors of all rows.
        sample: the rows in which clusters are found, in an order that depends on nothing else.
        config: how.
        seed: of k-means.

    Raises:
        StageError: there are fewer rows than clusters, or no cluster is found.
    """
    points = unit(vectors.take(sample))
    if config.method == "hdbscan":
        centres, own = _dense(points, config.min_cluster_size)
    else:
        centres, own = _means(points, config, seed), None
    labels = assign(vectors, centres)
    if own is not None:
        labels[sample] = own
    return labels


def assign(vectors: Rows, centres: Centres) -> np.ndarray:
    """Return each row's nearest centre, int64 ``[rows]``; one block at a time is in memory."""
    labels = np.empty(len(vectors), dtype=np.int64)
    half = 0.5 * np.einsum("ij,ij->i", centres.vectors, centres.vectors)
    length = np.maximum(np.sqrt(2 * half), np.finfo(np.float32).tiny)
    for start, block in vectors.blocks(BLOCK):
        similar = unit(block) @ centres.vectors.T
        nearest = np.argmax(similar - half, axis=1)
        cosine = similar[np.arange(len(block)), nearest] / length[nearest]
        labels[start : start + len(block)] = np.where(
            cosine >= centres.reach[nearest], nearest, NONE
        )
    return labels


def _means(points: np.ndarray, config: ClusterRoundRobinConfig, seed: int) -> Centres:
    if isinstance(config.clusters, int):
        count = config.clusters
        if count > len(points):
            raise StageError(
                f"clusters = {count:,} for {len(points):,} examples",
                hint="lower 'clusters', or raise 'sample'",
            )
        found = k_means(points, count, seed)[0]
    else:
        tried = sizes_to_try(min(config.most_clusters, len(points) // 2))
        search = elbow if config.clusters == "elbow" else silhouette
        found = search(points, tried, seed)
    return Centres(found, np.full(len(found), -np.inf))


def k_means(points: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, float]:
    """Return centres, fp32 ``[count, width]``, and the mean squared distance from them.

    The first centres are found by k-means++ in some of the points. scikit-learn's own, in all of
    them, takes four times as long as the rounds that follow.
    """
    from sklearn.cluster import KMeans, kmeans_plusplus

    some = np.random.default_rng(seed).permutation(len(points))[: max(SEEDED * count, 1000)]
    first, _ = kmeans_plusplus(points[np.sort(some)], count, random_state=seed)
    fit = KMeans(count, init=first, n_init=1, max_iter=ROUNDS, random_state=seed).fit(points)
    return fit.cluster_centers_.astype(np.float32), float(fit.inertia_) / len(points)


def sizes_to_try(most: int) -> list[int]:
    """Return 2, 3, 4, 6, 8, 12 and so on, up to ``most``.

    Raises:
        StageError: there are too few examples to choose a number.
    """
    sizes = sorted({size for power in range(1, 32) for size in (2**power, 3 * 2 ** (power - 1))})
    found = [size for size in sizes if size <= most]
    if len(found) < 3:
        raise StageError(
            "there are too few examples to find a number of clusters",
            hint="give 'clusters' as a number",
        )
    return found


def elbow(points: np.ndarray, tried: Sequence[int], seed: int) -> np.ndarray:
    """Return the centres at the elbow: the point furthest below the line from first to last.

    The curve is the mean squared distance over the logarithm of the number of clusters, both from
    0 to 1 (Satopaa et al. 2011, "Finding a kneedle in a haystack").
    """
    found = [k_means(points, count, seed) for count in tried]
    distance = np.array([error for _, error in found])
    across = np.log(np.array(tried) / tried[0]) / np.log(tried[-1] / tried[0])
    spread = max(float(distance[0] - distance[-1]), np.finfo(np.float64).tiny)
    down = (distance - distance[-1]) / spread
    return found[int(np.argmax((1 - across) - down))][0]


def silhouette(points: np.ndarray, tried: Sequence[int], seed: int) -> np.ndarray:
    """Return the centres of the number with the largest mean silhouette of some points."""
    from sklearn.metrics import silhouette_score

    some = points[np.sort(np.random.default_rng(seed).permutation(len(points))[:JUDGED])]
    best, found = -np.inf, np.empty(0, dtype=np.float32)
    for count in tried:
        centres, _ = k_means(points, count, seed)
        half = 0.5 * np.einsum("ij,ij->i", centres, centres)
        labels = np.argmax(some @ centres.T - half, axis=1)
        if 1 < len(np.unique(labels)) < len(some):
            score = float(silhouette_score(some, labels))
            if score > best:
                best, found = score, centres
    return found


def _dense(points: np.ndarray, smallest: int) -> tuple[Centres, np.ndarray]:
    """Return the centres of dense clusters, and the cluster of each point."""
    from sklearn.cluster import HDBSCAN

    if len(points) <= smallest:
        raise StageError(f"hdbscan with min_cluster_size = {smallest} for {len(points)} examples")
    labels = HDBSCAN(min_cluster_size=smallest, copy=True).fit(points).labels_.astype(np.int64)
    count = int(labels.max()) + 1
    if not count:
        raise StageError(
            f"hdbscan finds no cluster of {smallest} or more of {len(points):,} examples",
            hint="lower 'min_cluster_size', raise 'sample', or use method = \"k-means\"",
        )
    means = np.stack([points[labels == number].mean(axis=0) for number in range(count)])
    along = unit(means)
    reach = [float((points[labels == number] @ along[number]).min()) for number in range(count)]
    return Centres(means.astype(np.float32), np.array(reach)), labels
