"""The options of ``[audit]``."""

from pydantic import Field

from selectmoe_core.config import Config


class AuditConfig(Config):
    """How ``selectmoe audit`` examines the recipe's scores; no stage reads this table."""

    sample: int = Field(default=2000, ge=20)
    """Number of rows to take from the pool; half of them are damaged."""
    kinds: tuple[str, ...] = ()
    """The kinds of damage to plant, in equal shares; by default every kind that plugins offer."""
    scores: tuple[str, ...] = ()
    """Scorers to audit besides the recipe's own, each with its default options."""
    fraction: float | None = Field(default=None, gt=0, le=1)
    """The share of best rows to examine; by default what ``[select]`` keeps, otherwise a tenth."""
