"""Options of the baselines and of the selectors."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from selectmoe_core import Config

Per = Literal["none", "source"]


class RandomConfig(Config):
    """Score at random: a uniform number that depends only on the seed and the example's content.

    The baseline of every comparison: selecting the best of it is a random draw.
    """


class LengthConfig(Config):
    """Score an example by the length of its answers.

    A baseline: many strategies turn out to score much like it.
    """

    unit: Literal["characters", "words"] = "characters"
    """Count characters, or words (separated by white space)."""
    direction: Literal["long", "short"] = "long"
    """Which answers score higher; for ``short`` the score is minus the length."""


class TopFractionConfig(Config):
    """Keep the best-scored share of the pool, at least one example, the best first.

    Ties are broken by the examples' ids.
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    """The share of the pool's examples to keep, rounded up; skipped examples count as well."""
    per: Per = "none"
    """``source`` keeps this share, rounded up, of each source."""


class TopKConfig(Config):
    """Keep a number of best-scored examples, the best first.

    Ties are broken by the examples' ids.
    """

    k: PositiveInt = 1000
    """How many examples to keep; it is an error if fewer have a score."""
    per: Per = "none"
    """``source`` divides ``k`` in proportion to the scored examples of each source."""


class ThresholdConfig(Config):
    """Keep every example whose score lies within bounds, the best first.

    The number kept depends on the scores; ties are ordered by the examples' ids.
    """

    min: float | None = None
    """The lowest score to keep."""
    max: float | None = None
    """The highest score to keep."""
    per: Per = "none"
    """With ``source``, both bounds are distances from the mean score of the example's source."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("set 'min', 'max' or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"'min' = {self.min} is above 'max' = {self.max}")
        return self
