"""Options of the embedders."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from selectmoe_core import Config, execution_only

ON_GPU, ON_CPU = 32768, 2048
"""Default tokens of a forward pass."""


class HiddenStatesConfig(Config):
    """Embed an example as a mean of a language model's hidden states over its tokens.

    All tokens of the example count: prompt, answers, and those of the chat format.
    """

    pooling: Literal["position", "mean", "last", "router"] = "position"
    """How tokens are weighted. ``position``: token i has the weight i, divided by the sum of all,
    as in RDS+; ``mean``: all alike; ``last``: the last token alone; ``router``: 1 - the mass that a
    Select-MoE model's routers send to trash cans, a mean over the layers that run."""
    layer: NonNegativeInt | None = None
    """The states after this many layers; later layers do not run, and 0 means the embeddings. By
    default all, with the model's final norm, as in RDS+."""
    batch_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass, including padding; a longer example has its own pass. By default
    32,768 on a GPU and 2,048 on a CPU."""

    def tokens_at_once(self, device: str) -> int:
        """Return the tokens of a forward pass on a device."""
        return self.batch_tokens or (ON_CPU if device == "cpu" else ON_GPU)


class RouterProfileConfig(Config):
    """Embed an example as the mean probabilities that each router gives to its outputs.

    One number for each layer and output, experts first, then trash cans if the model has any.
    """

    first_layers: PositiveInt | None = None
    """Read only the routers of the first so many layers; later layers do not run."""
    tokens: Literal["all", "response"] = "all"
    """The tokens to average over: all, or those of the answers."""
    batch_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass, as for ``hidden-states``."""

    def tokens_at_once(self, device: str) -> int:
        """Return the tokens of a forward pass on a device."""
        return self.batch_tokens or (ON_CPU if device == "cpu" else ON_GPU)


class SentenceTransformersConfig(Config):
    """Embed the text of an example with a model of sentence-transformers."""

    text: Literal["all", "prompt", "response"] = "all"
    """Which text: all turns, or those before the first answer, or the answers."""
    prefix: str = ""
    """Text before each example, for models that expect an instruction there."""
    batch_size: PositiveInt = execution_only(64)
    """Texts of a forward pass."""
