"""How sources share a total, against a search for the level."""

from fractions import Fraction

import numpy as np
import pytest
from pydantic import ValidationError

from selectmoe_core import StageError
from selectmoe_core.selecting import Bounds, QuotaConfig, allot

NAMES = ("ant", "bee", "cat", "dog")


def plain_allotment(total, sizes, weights, low, high):
    """The shares ``level * weight`` within bounds whose sum is the total, in whole numbers."""
    below, above = Fraction(0), Fraction(10**9)
    names = sorted(sizes)

    def shares(level):
        return {n: min(max(level * weights[n], Fraction(low[n])), Fraction(high[n])) for n in names}

    for _ in range(120):
        middle = (below + above) / 2
        if sum(shares(middle).values()) < total:
            below = middle
        else:
            above = middle
    found = {name: share.limit_denominator(10**6) for name, share in shares(above).items()}
    counts = {name: int(share) for name, share in found.items()}
    order = sorted(names, key=lambda name: (counts[name] - found[name], name))
    for name in order[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


@pytest.mark.parametrize("quota", ["proportional", "equal", "shares"])
def test_an_allotment_equals_a_search_for_the_level(quota):
    random = np.random.default_rng()
    for _ in range(150):
        sizes = dict(zip(NAMES, random.integers(1, 60, size=4).tolist(), strict=True))
        bounds = Bounds(int(random.integers(0, 5)), int(random.integers(5, 60)))
        low = {name: min(bounds.floor, size) for name, size in sizes.items()}
        high = {name: min(bounds.ceiling, size) for name, size in sizes.items()}
        total = int(random.integers(sum(low.values()), sum(high.values()) + 1))
        weights = {name: Fraction(size) for name, size in sizes.items()}
        given = quota
        if quota == "equal":
            weights = dict.fromkeys(NAMES, Fraction(1))
        if quota == "shares":
            given = {"bee": 0.5, "dog": 0.1}
            rest = sizes["ant"] + sizes["cat"]
            weights = {name: Fraction(4, 10) * sizes[name] / rest for name in ("ant", "cat")}
            weights |= {"bee": Fraction(1, 2), "dog": Fraction(1, 10)}
        found = allot(total, sizes, given, bounds)
        counts = dict(zip(sizes, found.counts, strict=True))
        assert counts == plain_allotment(total, sizes, weights, low, high)
        short = {name for name in NAMES if any(text.startswith(name) for text in found.warnings)}
        exact = {name: total * weights[name] / sum(weights.values()) for name in NAMES}
        assert {n for n in NAMES if sizes[n] < int(exact[n])} <= short
        assert short <= {n for n in NAMES if sizes[n] < exact[n] + 1}


@pytest.mark.parametrize(
    ("total", "sizes", "expected"),
    [
        (10, [100, 100], [5, 5]),
        (7, [100, 100], [4, 3]),  # equal remainders: the first by name
        (10, [53, 24, 23], [5, 3, 2]),  # 5.3, 2.4, 2.3
        (3, [1, 1, 1], [1, 1, 1]),
        (100, [1, 99], [1, 99]),
        (0, [4, 5], [0, 0]),
        (0, [0, 0], [0, 0]),
        (5, [0, 10], [0, 5]),
    ],
)
def test_proportional_is_the_largest_remainder(total, sizes, expected):
    named = dict(zip(NAMES, sizes, strict=False))
    assert allot(total, named, "proportional", Bounds()).counts == tuple(expected)


def test_the_order_of_sources_does_not_matter():
    sizes = {"b": 5, "a": 5, "c": 5}
    assert dict(zip(sizes, allot(4, sizes, "equal", Bounds()).counts, strict=True)) == {
        "b": 1, "a": 2, "c": 1
    }  # fmt: skip


def test_what_a_short_source_cannot_give_is_reported_and_goes_to_the_others():
    found = allot(100, {"ant": 300, "bee": 10, "cat": 300}, {"bee": 0.5}, Bounds())
    assert found.counts == (45, 10, 45)
    assert found.warnings == (
        "bee has 10 of the 50 examples of its quota; the other sources give the rest",
    )
    # Sources with a share of nothing give where those with one are used up.
    found = allot(100, {"ant": 300, "bee": 10, "cat": 300}, {"bee": 1.0}, Bounds())
    assert found.counts == (45, 10, 45)
    found = allot(100, {"ant": 300, "bee": 300}, "equal", Bounds(ceiling=20), "tokens")
    assert found.counts == (20, 20)
    assert found.warnings == ("the sources can give 40 of the 100 tokens to keep",)


def test_quotas_that_cannot_be_met_are_mistakes():
    with pytest.raises(StageError, match="'be', which is not in the pool") as error:
        allot(5, {"bee": 9}, {"be": 0.5}, Bounds())
    assert "bee" in error.value.hint
    with pytest.raises(StageError, match="floor = 4 asks for 8 examples of 2 sources, and 5"):
        allot(5, {"ant": 9, "bee": 9}, "equal", Bounds(floor=4))
    for options, what in (
        ({"quota": "equal"}, 'need per = "source"'),
        ({"per": "source", "quota": {"a": 0.7, "b": 0.4}}, "add up to more than 1"),
        ({"per": "source", "floor": 4, "ceiling": 3}, "above 'ceiling'"),
        ({"per": "source", "quota": "even"}, "quota"),
    ):
        with pytest.raises(ValidationError, match=what):
            QuotaConfig(**options)
    assert QuotaConfig(per="source", quota={"a": 0.1, "b": 0.2, "c": 0.7}).shared_out


def test_a_source_that_gives_less_than_it_has_keeps_its_weight():
    sizes = {"ant": 60, "bee": 40, "cat": 20}
    found = allot(30, sizes, "proportional", Bounds(), most={"ant": 3})
    # The other 27 of 30 in proportion 40 to 20.
    assert found.counts == (3, 18, 9)
    assert found.warnings == (
        "ant has 3 of the 15 examples of its quota; the other sources give the rest",
    )
    everything = allot(30, sizes, "equal", Bounds(), most={"ant": 3, "bee": 4, "cat": 5})
    assert everything.counts == (3, 4, 5)
    assert everything.warnings[-1] == "the sources can give 12 of the 30 examples to keep"


def test_of_very_many_short_sources_a_few_are_named():
    sizes = {f"source {number:05}": 1 for number in range(3000)} | {"large": 10**6}
    found = allot(9000, sizes, "equal", Bounds())
    assert sum(found.counts) == 9000
    assert len(found.warnings) == 13
    assert found.warnings[0].startswith("source 00000 has 1 of the ")
    assert found.warnings[-1] == "2,988 more sources have less than their quota"
