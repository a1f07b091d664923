"""Options of the baselines and of the selectors."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from selectmoe_core import Config, suggest
from selectmoe_core.cost import DEVICES
from selectmoe_core.selecting import NumberConfig, Per, QuotaConfig

Percentile = Annotated[float, Field(ge=0, le=100)]


class LocalConfig(Config):
    """Run the processes of stages on this host.

    Several processes are started through accelerate, or were started by another launcher.
    """


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

    tokens: PositiveInt | None = None
    """The most tokens to keep; floors and ceilings count tokens too."""
    count: Literal["all", "answers"] = "all"
    """``answers`` counts only the tokens that training learns from. Selections with equal budgets
    then teach equally much, whether their answers are long or short."""
    gpu_hours: PositiveFloat | None = None
    """In place of ``tokens``: the hours of one ``card`` that [train] may take with all its epochs,
    by the estimates of `selectmoe plan`. They are estimates: start-up is not in them, and examples
    count as if they were as long as ``chat.max_length``, which costs a few percent more a token."""
    card: str = "h100"
    """The card of ``gpu_hours``, as ``selectmoe plan --for`` names it."""
    per: Per = "none"
    """``source`` shares the tokens out among the sources, by the tokens that they have unless
    ``quota`` says otherwise."""

    @field_validator("card")
    @classmethod
    def _check_card(cls, card: str) -> str:
        cards = sorted(set(DEVICES) - {"cpu"})
        if card not in cards:
            raise ValueError(f"there is no card '{card}': {suggest(card, cards)}")
        return card

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if (self.tokens is None) == (self.gpu_hours is None):
            raise ValueError("set 'tokens', or 'gpu_hours', and not both")
        if self.gpu_hours is not None and self.count != "all":
            raise ValueError("'gpu_hours' pays for all tokens: remove 'count', or set 'tokens'")
        return self

    @property
    def most(self) -> int:
        """The most tokens; the plan has turned hours into tokens."""
        assert self.tokens is not None, "the plan resolves gpu_hours"
        return self.tokens


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


class RoundRobinConfig(NumberConfig):
    """Let the target tasks take turns: each takes its best example that no other has taken yet.

    A scorer with a score for each target task writes these as details ``task:NAME``. Every task
    has equally many turns, in the order of the names; it has no more turns once every example with
    a score for it is taken. Equal scores are taken in the order of the examples' ids.
    """

    tasks: tuple[str, ...] = ()
    """The target tasks that take turns; by default all that the score has."""
    per: Per = "none"
    """``source`` lets the tasks take turns within each source."""

    @model_validator(mode="after")
    def _check_tasks(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("'tasks' names a task twice")
        return self
