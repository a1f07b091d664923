"""Options that selectors share: how much each source gives."""

from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from selectmoe_core.config import Config

Per = Literal["none", "source"]
Share = Annotated[float, Field(gt=0, le=1)]
Quota = Literal["proportional", "equal"] | dict[str, Share]


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


class NumberConfig(QuotaConfig):
    """Options of selectors that keep ``k`` examples."""

    k: PositiveInt = 1000
    """How many examples to keep."""
