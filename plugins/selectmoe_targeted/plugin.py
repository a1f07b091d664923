"""What this plugin offers: the scorers ``similarity`` and ``bm25``."""

from typing import Any

from selectmoe_core import About, Component, Need, Scorer, hookimpl, load
from selectmoe_targeted.config import Bm25Config, SimilarityConfig

RANGE = "ranks: above 0 to 1, the row taken first has 1; {}; higher is better"


@hookimpl
def selectmoe_scorers() -> list[Component[Any, Scorer]]:
    """Offer ``similarity`` and ``bm25``."""
    return [_similarity(), _bm25()]


def _similarity() -> Component[Any, Scorer]:
    return Component(
        "similarity",
        SimilarityConfig,
        load("selectmoe_targeted.scorers:Similarity"),
        about=About(
            meaning="how close an example's vector is to those of the target examples",
            range=RANGE.format("max and mean: cosines, -1 to 1"),
            cost="reads the vectors once or a few times; a product of each row with each target",
            paper="ranks: RDS+, Ivison et al. 2025, https://arxiv.org/abs/2503.01807; mean: LESS, "
            "Xia et al. 2024, https://arxiv.org/abs/2402.04333",
        ),
        needs=lambda _: frozenset({Need.POOL, Need.TARGETS, Need.FEATURES}),
        torch=True,
        one_process=True,
    )


def _bm25() -> Component[Any, Scorer]:
    return Component(
        "bm25",
        Bm25Config,
        load("selectmoe_targeted.scorers:Bm25"),
        about=About(
            meaning="how many words, rare ones above all, an example shares with target examples",
            range=RANGE.format("max and mean: 0 to 1, a part of the largest in the pool"),
            cost="reads the text once, without a model; the index is in memory",
            paper="Robertson and Zaragoza 2009; bm25s: Lu 2024, https://arxiv.org/abs/2407.03618",
        ),
        needs=lambda _: frozenset({Need.POOL, Need.TARGETS}),
        requires=("bm25s:selectmoe[bm25]",),
        torch=True,
        one_process=True,
    )
