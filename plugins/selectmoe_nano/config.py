"""Options of the reader."""

from typing import Annotated

from annotated_types import Interval
from pydantic import PositiveInt

from selectmoe_core import Config


class NanoConfig(Config):
    """Generate short questions of 48 families with answers, a share of them damaged and labelled.

    The stage's ``seed`` decides which questions come; the evaluation's questions never do.
    """

    examples: PositiveInt = 4000
    """How many different questions."""
    damaged: Annotated[float, Interval(ge=0, le=1)] = 0.45
    """The share that is damaged; the kind of damage is each row's label, unseen by scorers."""
