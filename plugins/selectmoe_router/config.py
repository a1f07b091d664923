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

    One forward pass, no language-model head; the same for every example whatever stands beside it.
    """

    statistic: StatisticName = Field("trash_mass", description=_about_statistics())
    tokens: Literal["response", "end", "all"] | None = None
    """Tokens to average over: the answers', the last one of each answer, or all (without the
    format's if ``mask_format``). By default those at which a contrastive warm-up taught the model
    to tell damage (its ``contrast_tokens``), else the answers'."""
    layers: str | tuple[NonNegativeInt, ...] = "all"
    """``all``, ``first:N``, ``last:N`` or a list of layers, from 0; none behind the last is run."""
    features: bool = False
    """Also keep each example's mean router probabilities, layer by layer, as a feature vector."""
    batch_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass, padding included; a longer example goes by itself. Left out, 32,768
    on a GPU, which small models need to be kept busy, and 4,096 on a CPU, whose caches hold them.
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
    """Return the sorted layer numbers that an option names in a model of ``count`` layers.

    Raises:
        ValueError: a layer is named that the model does not have.
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
