"""Options of the baselines and of the selectors."""

from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from selectmoe_core import Config

Per = Literal["none", "source"]
Share = Annotated[float, Field(gt=0, le=1)]
Quota = Literal["proportional", "equal"] | dict[str, Share]
Percentile = Annotated[float, Field(ge=0, le=100)]


class QuotaConfig(Config):
    """Options of selectors that keep a number: how much of it each source gives."""

    per: Per = "none"
    """``source`` selects within each source."""
    quota: Quota | None = None
    """With ``per = "source"``: ``proportional`` to what the sources have, ``equal``, or shares of
    the whole, as ``{ dolly = 0.2 }``; sources without a share divide the rest by what they have.
    What a source cannot give is reported and falls to the others."""
    floor: NonNegativeInt = 0
    """With ``per = "source"``: the least of each source, or all that it has."""
    ceiling: PositiveInt | None = None
    """With ``per = "source"``: the most of each source."""

    @model_validator(mode="after")
    def _check_quota(self) -> Self:
        if self.per == "none" and self.shared_out:
            raise ValueError("'quota', 'floor' and 'ceiling' need per = \"source\"")
        if isinstance(self.quota, dict) and sum(Fraction(repr(s)) for s in self.quota.values()) > 1:
            raise ValueError("the shares in 'quota' add up to more than 1")
        if self.ceiling is not None and self.floor > self.ceiling:
            raise ValueError(f"'floor' = {self.floor} is above 'ceiling' = {self.ceiling}")
        return self

    @property
    def shared_out(self) -> bool:
        """Whether the recipe says how the sources share the whole."""
        return self.quota is not None or self.floor > 0 or self.ceiling is not None


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


class TopFractionConfig(QuotaConfig):
    """Keep the best-scored share of the pool, at least one example, the best first.

    Ties are broken by the examples' ids.
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    """The share of the pool's examples to keep, rounded up; skipped examples count as well."""
    per: Per = "none"
    """``source`` keeps this share, rounded up, of each source, unless ``quota``, ``floor`` or
    ``ceiling`` say how the sources share what is kept."""


class TopKConfig(QuotaConfig):
    """Keep a number of best-scored examples, the best first.

    Ties are broken by the examples' ids.
    """

    k: PositiveInt = 1000
    """How many examples to keep; it is an error if fewer have a score."""
    per: Per = "none"
    """``source`` divides ``k`` in proportion to the scored examples of each source, unless
    ``quota`` says otherwise."""


class BandConfig(Config):
    """Keep the examples whose scores lie between two percentiles, the best first.

    The worst scored example is at 0, the best below 100: ``low = 0, high = 50`` and ``low = 50,
    high = 100`` share the pool out without overlap. Equal scores are ordered by the examples' ids.
    """

    low: Percentile = 25.0
    """The percentile from which on examples are kept."""
    high: Percentile = 75.0
    """The percentile up to which examples are kept; itself it belongs to the next band."""
    per: Per = "none"
    """``source`` takes percentiles within each source."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"'low' = {self.low} is not below 'high' = {self.high}")
        return self


class TokenBudgetConfig(QuotaConfig):
    """Keep as many of the best examples as fit a number of training tokens, the best first.

    Tokens are those of one epoch, under the tokenizer of ``model`` or of the model of [train],
    after ``chat.max_length`` has cut them. The first example that does not fit ends the selection,
    or that of its source: nothing that is worse is kept for being shorter. Equal scores are taken
    in the order of the examples' ids.
    """

    tokens: PositiveInt
    """The most tokens to keep; floors and ceilings count tokens too."""
    per: Per = "none"
    """``source`` shares the tokens out among the sources, by the tokens that they have unless
    ``quota`` says otherwise."""


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
