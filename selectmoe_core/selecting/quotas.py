"""How many each source may give: shares of a total within bounds. Pure functions on numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from selectmoe_core.config import suggest
from selectmoe_core.errors import StageError
from selectmoe_core.selecting.config import Quota, QuotaConfig

SAID = 12
"""Sources with less than their quota that a selection names."""


@dataclass(frozen=True)
class Bounds:
    """The least and the most that each source gives, as far as it has so many."""

    floor: int = 0
    ceiling: int | None = None


@dataclass(frozen=True)
class Allotment:
    """What each source gives.

    Attributes:
        counts: for each source, in the order in which they were given.
        warnings: which sources could not give what their quota asks for.
    """

    counts: tuple[int, ...]
    warnings: tuple[str, ...] = ()


def allotted(
    total: int,
    sizes: Mapping[str, int],
    config: QuotaConfig,
    unit: str = "examples",
    most: Mapping[str, int] | None = None,
) -> Allotment:
    """Share a total out among sources as the options say; see ``allot``."""
    bounds = Bounds(config.floor, config.ceiling)
    return allot(total, sizes, config.quota or "proportional", bounds, unit, most)


def allot(
    total: int,
    sizes: Mapping[str, int],
    quota: Quota,
    bounds: Bounds,
    unit: str = "examples",
    most: Mapping[str, int] | None = None,
) -> Allotment:
    """Share a total out among sources.

    Each source gets its quota of the total. What a source cannot give, for it has no more or its
    bounds say so, falls to the others in proportion to their quotas, and when these are full, to
    the rest in proportion to their sizes. Fractions are settled by largest remainder, equal ones
    in the order of the sources' names.

    Args:
        total: what all sources give together.
        sizes: what each source has.
        quota: ``proportional`` to sizes, ``equal``, or shares of the total by source; sources
            without a share divide what is left in proportion to their sizes.
        bounds: the least and the most of each source.
        unit: what is counted, for messages.
        most: what a source can give, where that is less than what it has.

    Raises:
        StageError: a share for a source that is not there, or floors above the total.
    """
    names = sorted(sizes)
    weights = dict(zip(names, _weights(names, sizes, quota), strict=True))
    able = {name: min((most or {}).get(name, size), size) for name, size in sizes.items()}
    low = {name: min(bounds.floor, able[name]) for name in names}
    high = {name: min(bounds.ceiling or able[name], able[name]) for name in names}
    if sum(low.values()) > total:
        raise StageError(
            f"floor = {bounds.floor:,} asks for {sum(low.values()):,} {unit} of {len(names)} "
            f"sources, and {total:,} are to be kept",
            hint="lower the floor, or keep more",
        )
    if any(low[name] > high[name] for name in names):
        raise StageError(f"floor = {bounds.floor} is above ceiling = {bounds.ceiling}")
    warnings = list(_short(total, able, weights, unit))
    together = sum(high.values())
    if together < total:
        warnings.append(f"the sources can give {together:,} of the {total:,} {unit} to keep")
    counts = _whole(_fill(min(total, together), weights, low, high, sizes))
    return Allotment(tuple(counts[name] for name in sizes), tuple(warnings))


def _weights(names: Sequence[str], sizes: Mapping[str, int], quota: Quota) -> list[Fraction]:
    if quota == "proportional":
        return [Fraction(sizes[name]) for name in names]
    if quota == "equal":
        return [Fraction(1)] * len(names)
    assert not isinstance(quota, str)
    for name in quota:
        if name not in sizes:
            hint = suggest(name, names, otherwise="the sources")
            raise StageError(
                f"quota names the source '{name}', which is not in the pool", hint=hint
            )
    shares = {name: Fraction(repr(share)) for name, share in quota.items()}
    others = sum(sizes[name] for name in names if name not in shares)
    rest = 1 - sum(shares.values(), Fraction(0))
    return [
        shares[name] if name in shares else rest * Fraction(sizes[name], max(others, 1))
        for name in names
    ]


def _short(
    total: int, sizes: Mapping[str, int], weights: Mapping[str, Fraction], unit: str
) -> list[str]:
    """Return a sentence for each of the first sources that have less than their quota."""
    whole = sum(weights.values()) or 1
    asked = _whole({name: total * weight / whole for name, weight in weights.items()})
    short = [name for name in asked if sizes[name] < asked[name]]
    said = [
        f"{name} has {sizes[name]:,} of the {asked[name]:,} {unit} of its quota; "
        "the other sources give the rest"
        for name in short[:SAID]
    ]
    if len(short) > SAID:
        said.append(f"{len(short) - SAID:,} more sources have less than their quota")
    return said


def _fill(
    total: int,
    weights: Mapping[str, Fraction],
    low: Mapping[str, int],
    high: Mapping[str, int],
    sizes: Mapping[str, int],
) -> dict[str, Fraction]:
    """Return shares in proportion to the weights, none below its low or above its high bound."""
    settled: dict[str, Fraction] = {}
    while open_names := [name for name in weights if name not in settled]:
        left = total - sum(settled.values())
        own = {name: weights[name] for name in open_names}
        if not any(own.values()):  # only sources without a share are left
            own = {name: Fraction(sizes[name]) for name in open_names}
        whole = sum(own.values()) or Fraction(1)
        share = {name: left * weight / whole for name, weight in own.items()}
        over = {name: part - high[name] for name, part in share.items() if part > high[name]}
        under = {name: low[name] - part for name, part in share.items() if part < low[name]}
        if not over and not under:
            return settled | share
        # The side that is further out decides; the other one's bounds may not bind then.
        if sum(over.values()) >= sum(under.values()):
            settled |= {name: Fraction(high[name]) for name in over}
        else:
            settled |= {name: Fraction(low[name]) for name in under}
    return settled


def _whole(shares: Mapping[str, Fraction]) -> dict[str, int]:
    """Return whole numbers of the same sum: the largest remainders are rounded up."""
    counts = {name: int(share // 1) for name, share in shares.items()}
    missing = round(sum(shares.values())) - sum(counts.values())
    order = sorted(shares, key=lambda name: (counts[name] - shares[name], name))
    for name in order[:missing]:
        counts[name] += 1
    return counts
