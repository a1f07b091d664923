"""Pools with many sources: the report names the largest and combines the others."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

SOURCES_SHOWN = 40
"""The most sources in a table or a picture of the report."""


def others(count: int) -> str:
    """Return the name of the row that combines ``count`` sources."""
    return f"{count:,} other sources"


def last_if_others(name: str) -> bool:
    """Return whether a name is that of the row that combines others, which stands last."""
    return bool(re.fullmatch(r"[\d,]+ other sources", name))


def largest_groups(sizes: Mapping[str, int], most: int = SOURCES_SHOWN) -> dict[str, str]:
    """Return the name under which the report shows each group.

    The largest groups keep their names; ties are broken by name. If there are more than ``most``,
    the others share one name.

    Args:
        sizes: the number of members of each group.
        most: how many names there may be.
    """
    if len(sizes) <= most:
        return {name: name for name in sizes}
    ordered = sorted(sizes, key=lambda name: (-sizes[name], name))
    kept = set(ordered[: most - 1])
    rest = others(len(sizes) - len(kept))
    return {name: name if name in kept else rest for name in sizes}


def add_up(counts: Mapping[str, int], shown: Mapping[str, str]) -> dict[str, int]:
    """Return the counts of the groups that ``shown`` names; unknown groups keep their names."""
    found: dict[str, int] = {}
    for name, count in counts.items():
        label = shown.get(name, name)
        found[label] = found.get(label, 0) + count
    return found


def regroup(
    codes: np.ndarray, names: Sequence[str], most: int = SOURCES_SHOWN
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return codes and names in which all groups except the largest are combined.

    Args:
        codes: the group of each row, as a position in ``names``, int ``[rows]``.
        names: the names of the groups.
        most: how many names there may be.
    """
    sizes = np.bincount(codes, minlength=len(names))
    shown = largest_groups(dict(zip(names, sizes.tolist(), strict=True)), most)
    labels = tuple(dict.fromkeys(shown[name] for name in names))
    place = {label: number for number, label in enumerate(labels)}
    moved = np.array([place[shown[name]] for name in names], dtype=np.int64)
    return moved[codes] if len(codes) else codes, labels
