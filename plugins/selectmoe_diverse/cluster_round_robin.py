"""Clusters take turns, each with its best row that is left."""

import numpy as np

from selectmoe_core import Job, ScoreTable, Selection
from selectmoe_core.selecting import Chosen, choose_divided
from selectmoe_diverse.clusters import find_clusters
from selectmoe_diverse.config import ClusterRoundRobinConfig
from selectmoe_diverse.opening import vectors_of
from selectmoe_diverse.rows import drawn


class ClusterRoundRobin:
    """Lets clusters take turns; see ``ClusterRoundRobinConfig``."""

    def __init__(self, config: ClusterRoundRobinConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:
        """Return the rows turn by turn, with their clusters.

        Reason: the row's rank by score in its cluster (with ``per = "source"``, in that source).
        """
        vectors = vectors_of(job, scores)
        scored = np.flatnonzero(np.isfinite(scores.score()))
        sample = drawn(scores, scored, self.config.sampled, job.seed)
        labels = find_clusters(vectors, sample, self.config, job.seed)

        def choose(rows: np.ndarray, count: int) -> Chosen:
            places, turns = in_turns(labels[rows], count)
            reasons = [f"no. {turn + 1:,} of its cluster" for turn in turns.tolist()]
            kept = rows[places]
            return Chosen(kept, turns, {"reason": reasons}, labels[kept])

        return choose_divided(scores, self.config, choose)


def in_turns(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the first ``count`` rows if clusters take turns, and their turns.

    In each turn every cluster gives its first row that is left; rows of one turn stay in order.

    Args:
        labels: the cluster of each row, the best row first.
        count: how many rows are taken.
    """
    by_cluster = np.argsort(labels, kind="stable")
    ordered = labels[by_cluster]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    sizes = np.diff(np.append(begins, len(labels)))
    turns = np.empty(len(labels), dtype=np.int64)
    turns[by_cluster] = np.arange(len(labels)) - np.repeat(begins, sizes)
    places = np.argsort(turns, kind="stable")[:count]
    return places, turns[places]
