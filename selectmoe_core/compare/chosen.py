"""How much the selections of the arms have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selectmoe_core.compare.arms import OUTSIDE
from selectmoe_core.compare.costs import finished
from selectmoe_core.compare.planning import Comparison
from selectmoe_core.data.selection import selected_rows
from selectmoe_core.report.findings import HeatMap


@dataclass(frozen=True)
class Overlap:
    """The selections of all arms, those of the first seed.

    Attributes:
        arms: the labels.
        sizes: examples of each.
        shares: of the row's examples the share that the column has too, ``[arms, arms]``.
        chance: what two random selections would have in common, as a share.
    """

    arms: tuple[str, ...]
    sizes: tuple[int, ...]
    shares: np.ndarray
    chance: float

    def heat(self, numbers: Mapping[str, int]) -> HeatMap:
        """Return the shares as a heat map, whose columns are the numbers of the arms."""
        columns = tuple(str(numbers[arm]) for arm in self.arms)
        names = tuple(f"{numbers[arm]} {arm}" for arm in self.arms)
        return HeatMap("share in common", "arm", True, names, columns, self.shares)


def overlap_of(comparison: Comparison) -> Overlap | None:
    """Return how much the selections share, of arms that choose from the same pool.

    ``None`` with fewer than two of them, or where their selections are gone.
    """
    plan, found, of, pool = comparison.plan, {}, 0, None
    for arm in comparison.arms:
        keys = arm.trials[0].keys
        if arm.role in OUTSIDE or "select" not in keys:
            continue
        artifact = finished(plan, keys["select"])
        pool = pool or plan.nodes[keys["pool"]].digest
        if artifact is None or plan.nodes[keys["pool"]].digest != pool:
            continue
        found[arm.label] = selected_rows(artifact.folder)
        of = int(artifact.facts["of"])
    return overlap(found, of)


def overlap(rows: Mapping[str, np.ndarray], of: int) -> Overlap | None:
    """Return how much selections share.

    Args:
        rows: the chosen rows by arm, int ``[chosen]``, each only once.
        of: rows of the pool.
    """
    if len(rows) < 2 or not of:
        return None
    sizes = [len(own) for own in rows.values()]
    shares = np.array([_shares(own, list(rows.values())) for own in rows.values()])
    return Overlap(tuple(rows), tuple(sizes), shares, float(np.mean(sizes)) / of)


def _shares(own: np.ndarray, others: Sequence[np.ndarray]) -> list[float]:
    return [float(np.isin(own, other).mean()) if len(own) else float("nan") for other in others]
