"""The model of a stage, and the examples as its token ids, for the scorers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from selectmoe_core import Example, Job, ModelError, Shard
from selectmoe_core.tokens import Encoded, EncodedExample
from selectmoe_lm.config import ON_CPU, ON_GPU
from selectmoe_lm.losses import TokenLosses


@dataclass(frozen=True)
class OpenedModel:
    """A loaded model and its tokenizer.

    Attributes:
        job: the stage's job, which encodes.
        tokenizer: the model's tokenizer.
        losses: the model, which returns the losses of tokens.
    """

    job: Job
    tokenizer: Any
    losses: TokenLosses

    @cached_property
    def _pool(self) -> Encoded:
        return self.job.encoded(self.tokenizer)

    def read(self, shard: Shard) -> list[EncodedExample]:
        """Return the token ids of a shard's examples, from the pool's."""
        return [self._pool[int(row)] for row in shard.rows]

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample]:
        """Return the token ids of single examples."""
        return self.job.chat.encode(examples, self.tokenizer)


def model_of(job: Job, scorer: str, batch_tokens: int | None) -> OpenedModel:
    """Load the stage's model.

    Without ``batch_tokens`` the device decides.

    Raises:
        ModelError: the stage has no model, or it is not a causal language model.
    """
    ref = job.inputs.model
    if ref is None:
        raise ModelError(f"the {scorer} scorer has no model")
    model = job.models.load(ref, dtype=job.dtype, device=job.device)
    return opened(job, model, job.models.tokenizer(ref), batch_tokens)


def opened(job: Job, model: Any, tokenizer: Any, batch_tokens: int | None) -> OpenedModel:  # noqa: ANN401
    """Return a model that is loaded already.

    Raises:
        ModelError: it is not a causal language model.
    """
    at_once = batch_tokens or (ON_CPU if job.device == "cpu" else ON_GPU)
    return OpenedModel(job, tokenizer, TokenLosses(model, job.device, at_once))
