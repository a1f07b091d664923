"""Options of the selectors that read vectors."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from selectmoe_core.selecting import NumberConfig, Per


class ClusterRoundRobinConfig(NumberConfig):
    """Find clusters of vectors and let them take turns: in each turn every cluster's next best.

    Within a turn, and within a cluster, the best-scored come first; equal scores are taken in the
    order of the examples' ids. Vectors are compared by direction. Clusters are found in a sample
    drawn by the seed, then every example goes to its nearest cluster.
    """

    method: Literal["k-means", "hdbscan"] = "k-means"
    """``k-means`` with ``clusters``; ``hdbscan`` finds the number itself and leaves outliers in
    no cluster. Outliers take turns as one more cluster."""
    clusters: Annotated[int, Field(ge=2)] | Literal["elbow", "silhouette"] = 100
    """With ``k-means``: how many; or ``elbow``, where more clusters begin to help less;
    or ``silhouette``, where clusters are the most separate."""
    most_clusters: Annotated[int, Field(ge=4)] = 256
    """With ``elbow`` or ``silhouette``: the largest number that is tried."""
    min_cluster_size: Annotated[int, Field(ge=2)] = 10
    """With ``hdbscan``: the smallest group of the sample that counts as a cluster."""
    sample: PositiveInt | None = None
    """Examples in which clusters are found. By default 50,000, and 5,000 for ``hdbscan``, whose
    time grows with the square."""
    per: Per = "none"
    """``source`` lets the clusters take turns within each source; the clusters are those of the
    whole pool."""

    @model_validator(mode="after")
    def _check_clusters(self) -> Self:
        fields = type(self).model_fields
        # All options are written down when a node is planned, so that only values can be compared.
        given = {name for name, field in fields.items() if getattr(self, name) != field.default}
        if self.method == "hdbscan" and "clusters" in given:
            raise ValueError("hdbscan finds the number of clusters itself: remove 'clusters'")
        if self.method == "k-means" and "min_cluster_size" in given:
            raise ValueError("'min_cluster_size' needs method = \"hdbscan\"")
        searched = self.method == "k-means" and isinstance(self.clusters, str)
        if "most_clusters" in given and not searched:
            raise ValueError('\'most_clusters\' needs clusters = "elbow" or "silhouette"')
        return self

    @property
    def sampled(self) -> int:
        """The number of examples in which clusters are found."""
        return self.sample or (5_000 if self.method == "hdbscan" else 50_000)


class KCenterConfig(NumberConfig):
    """Keep the best examples that are not too similar to a better one that is kept.

    Goes through the examples from the best score down and keeps one if its largest cosine
    similarity to those that are kept is below the threshold, until there are ``k``. Equal scores
    are taken in the order of the examples' ids.
    """

    threshold: Annotated[float, Field(gt=-1, le=1)] = 0.9
    """An example is left out if its cosine similarity to a kept one reaches this."""
    per: Per = "none"
    """``source`` compares examples within each source."""


class FacilityLocationConfig(NumberConfig):
    """Keep examples that together are similar to as much of the pool as possible, and good.

    Takes in each step the example that adds most (greedy): the gain in coverage, plus its score.
    Coverage is the mean, over the examples of the pool or a sample of them, of the largest cosine
    similarity to a kept example, at least 0. Of gains that are equal to 0.0001 of an example's
    similarity, the better score is taken.
    """

    quality: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """The weight of the score beside coverage: what is maximised is (1 - quality) times coverage
    plus quality times the mean percentile of the kept scores, from 0 to 1."""
    sample: PositiveInt = 5_000
    """Examples whose coverage counts, drawn by the seed; all of them if the pool has no more. Time
    and memory grow in proportion to it."""
    candidates: NonNegativeInt = 50_000
    """Only so many best-scored examples can be kept; 0 for all. Time grows in proportion to it."""
    per: Per = "none"
    """``source`` covers each source on its own."""
