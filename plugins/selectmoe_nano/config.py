"""Options of the reader."""

from typing import Annotated

from annotated_types import Interval
from pydantic import PositiveInt

from selectmoe_core import Config


class NanoConfig(Config):
    """Generate short questions of 48 families with answers; a share is damaged and labelled.

    The stage's ``seed`` decides which questions are generated; the questions of the evaluation
    are never among them.
    """

    examples: PositiveInt = 4000
    """How many different questions."""
    damaged: Annotated[float, Interval(ge=0, le=1)] = 0.45
    """The share that is damaged; the kind of damage is the row's label, which scorers never see."""
