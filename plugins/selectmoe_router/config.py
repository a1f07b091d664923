"""Options of the router scorer."""

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from selectmoe_core import Config, execution_only
from selectmoe_router.statistics import STATISTICS

if TYPE_CHECKING:
    StatisticName = str
else:
    StatisticName = Literal[tuple(entry.name for entry in STATISTICS)]
NEEDS_TRASH = frozenset(entry.name for entry in STATISTICS if entry.needs_trash)
WITHOUT_TRASH = next(entry.name for entry in STATISTICS if not entry.needs_trash)
ON_GPU, ON_CPU = 32768, 4096
_RANGE = re.compile(r"(first|last):([1-9][0-9]*)")


def _about_statistics() -> str:
    entries = "; ".join(f"``{entry.name}`` is {entry.about}" for entry in STATISTICS)
    return f"The score of a token: {entries}."


class RouterConfig(Config):
    """Score an example by how much of it the router sends to real experts, not to trash cans.

    It takes one forward pass without the language-model head. The score of an example does not
    depend on the other examples of its batch.
    """

    statistic: StatisticName = Field("trash_mass", description=_about_statistics())
    tokens: Literal["response", "end", "all"] | None = None
    """The tokens to average over: those of the answers, the last one of each answer, or all
    (without the format's if ``mask_format``). By default the ``contrast_tokens`` of a contrastive
    warm-up, otherwise the answers."""
    layers: str | tuple[NonNegativeInt, ...] = "all"
    """``all``, ``first:N``, ``last:N`` or a list of numbers from 0; later layers do not run."""
    features: bool = False
    """Also store each example's mean router probabilities of all layers as a feature vector."""
    batch_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass, including padding; a longer example has its own pass. By default
    32,768 on a GPU, which small models need to use it fully, and 4,096 on a CPU.
    """

    @field_validator("layers", mode="before")
    @classmethod
    def _check_layers(cls, value: object) -> object:
        if isinstance(value, str) and (value == "all" or _RANGE.fullmatch(value)):
            return value
        if isinstance(value, list | tuple) and value:
            numbers = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value)
            if numbers and len(set(value)) == len(value):
                return tuple(value)
        raise ValueError('must be "all", "first:N", "last:N" or a list of different layer numbers')

    def tokens_at_once(self, device: str) -> int:
        """Return the tokens of a forward pass on a device."""
        return self.batch_tokens or (ON_CPU if device == "cpu" else ON_GPU)


def chosen_layers(layers: str | tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return the sorted layer numbers that an option names in a model with ``count`` layers.

    Raises:
        ValueError: the model does not have a layer that the option names.
    """
    if layers == "all":
        return tuple(range(count))
    if isinstance(layers, str):
        end, _, number = layers.partition(":")
        wanted = int(number)
        if wanted > count:
            raise ValueError(f"layers = '{layers}', but the model has {count} layers with a router")
        return tuple(range(wanted) if end == "first" else range(count - wanted, count))
    if max(layers) >= count:
        raise ValueError(
            f"layers names {max(layers)}, but the model has {count} layers with a router, from 0"
        )
    return tuple(sorted(layers))
