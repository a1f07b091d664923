"""Options of the baselines and of the selectors."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from selectmoe_core import Config

Per = Literal["none", "source"]


class RandomConfig(Config):
    """Score at random: a uniform number that depends on the seed and the example's content alone.

    The baseline of every comparison. Selecting the top of it is drawing at random.
    """


class LengthConfig(Config):
    """Score an example by the length of its answers.

    A baseline that many strategies turn out to be near to.
    """

    unit: Literal["characters", "words"] = "characters"
    """Count characters, or words (runs of characters between white space)."""
    direction: Literal["long", "short"] = "long"
    """Which answers score higher; for ``short`` the score is minus the length."""


class TopFractionConfig(Config):
    """Keep the best-scored share of the pool, at least one example, the best first.

    Equal scores are taken in the order of the examples' ids.
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    """The share to keep: ``fraction`` times the pool's examples, rounded up; skipped ones count."""
    per: Per = "none"
    """``source`` keeps this share, rounded up, of each source by itself."""


class TopKConfig(Config):
    """Keep a number of best-scored examples, the best first.

    Equal scores are taken in the order of the examples' ids.
    """

    k: PositiveInt = 1000
    """How many to keep; more than have a score is an error."""
    per: Per = "none"
    """``source`` splits ``k`` by the sources' scored examples, by largest remainder."""


class ThresholdConfig(Config):
    """Keep every example whose score lies within bounds, the best first.

    How many are kept depends on the scores; equal scores are ordered by the examples' ids.
    """

    min: float | None = None
    """Keep scores of at least this."""
    max: float | None = None
    """Keep scores of at most this."""
    per: Per = "none"
    """``source`` takes both bounds as distances from the mean score of the example's source."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("set 'min', 'max' or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"'min' = {self.min} is above 'max' = {self.max}")
        return self
