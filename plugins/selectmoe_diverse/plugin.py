"""What this plugin offers: selectors that read vectors as well as scores."""

from typing import Any

from selectmoe_core import About, Component, Cost, Need, Selector, Workload, hookimpl, load
from selectmoe_core.selecting import NumberConfig
from selectmoe_diverse.config import (
    ClusterRoundRobinConfig,
    FacilityLocationConfig,
    KCenterConfig,
)

FEATURES = frozenset({Need.FEATURES})


@hookimpl
def selectmoe_selectors() -> list[Component[Any, Selector]]:
    """Offer the selectors."""
    return [_cluster_round_robin(), _k_center(), _facility_location()]


def _cluster_round_robin() -> Component[Any, Selector]:
    return Component(
        "cluster-round-robin",
        ClusterRoundRobinConfig,
        load("selectmoe_diverse.cluster_round_robin:ClusterRoundRobin"),
        about=About(
            "the best examples of every cluster of vectors, equally many of each",
            "in the order of the turns",
            "k-means in a sample, then examples x clusters x width; a block of vectors in memory",
            "HDBSCAN: Campello et al. 2013, doi:10.1007/978-3-642-37456-2_14",
        ),
        needs=_needs,
        cost=_number_cost,
        seeded=True,
        by_rank=False,
    )


def _k_center() -> Component[Any, Selector]:
    return Component(
        "k-center",
        KCenterConfig,
        load("selectmoe_diverse.k_center:KCenter"),
        about=About(
            "the best examples that are not too similar to a better one",
            "best first",
            "examples looked at x examples kept x width; 4 bytes x kept x width of memory",
            "the Repr Filter of DEITA, Liu et al. 2023, https://arxiv.org/abs/2312.15685",
        ),
        needs=_needs,
        cost=_number_cost,
        by_rank=False,
    )


def _facility_location() -> Component[Any, Selector]:
    return Component(
        "facility-location",
        FacilityLocationConfig,
        load("selectmoe_diverse.facility_location:FacilityLocation"),
        about=About(
            "examples that together are similar to most of the pool, and good",
            "in the order in which they were taken",
            "candidates x sample x width, and for each kept example some 64 x sample x width more; "
            "for up to some 100,000 candidates and 10,000 kept examples",
            "Minoux 1978, doi:10.1007/BFb0006528; Lin and Bilmes 2011, "
            "https://aclanthology.org/P11-1052",
        ),
        needs=_needs,
        cost=_number_cost,
        seeded=True,
        by_rank=False,
    )


def _needs(_: NumberConfig) -> frozenset[Need]:
    return FEATURES


def _number_cost(config: NumberConfig, work: Workload) -> Cost:
    return Cost(examples=min(float(config.k), work.examples))
