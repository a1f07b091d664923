"""Options of ``perplexity``, ``ifd`` and ``blend``."""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from selectmoe_core import Config, execution_only

MEDIAN = 50.0
ON_GPU, ON_CPU = 16384, 1024
"""Tokens of a forward pass where the recipe says nothing: a CPU's caches hold the smaller one."""
Percentile = Annotated[float, Field(gt=0, lt=100)]


class PerplexityConfig(Config):
    """Score an example by a language model's loss on its answers.

    The mean over all response tokens of the negative log-likelihood, in nats.
    """

    prefer: Literal["low", "high", "mid"] = "low"
    """``low`` scores minus the loss, ``high`` the loss, ``mid`` minus the distance of the loss's
    percentile in the pool from ``percentile``."""
    percentile: Percentile = MEDIAN
    """With ``prefer = "mid"``: the percentile of the loss that scores highest."""
    batch_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass, padding included; a longer example goes by itself. Left out, 16,384
    on a GPU and 1,024 on a CPU, which takes half the time that it takes for 16,384."""

    @model_validator(mode="after")
    def _check_percentile(self) -> Self:
        if self.percentile != MEDIAN and self.prefer != "mid":
            raise ValueError(f"'percentile' does nothing with prefer = \"{self.prefer}\"")
        return self


class IfdConfig(Config):
    """Score an example by how little its instructions help with its answers (IFD).

    An answer after all that came before it is compared with the same answer after nothing but the
    format's tokens that open it; the mean over the answers of a conversation.
    """

    ratio: Literal["loss", "perplexity"] = "loss"
    """``loss`` divides the mean losses, as Cherry_LLM does (arXiv 2308.12032); ``perplexity``
    divides the perplexities, exp(loss - loss alone), as Superfiltering does (arXiv 2402.00530).
    Where nothing opens an answer, its first token has no loss alone: ``loss`` leaves that token
    out of both sides, ``perplexity`` out of the side alone, as published."""

    prefer: Literal["high", "low"] = "high"
    """``high`` as published in both papers: the score is the IFD. ``low``: minus the IFD, which
    favours answers that fit their instructions."""
    skip_from_one: bool = True
    """Skip examples with an IFD of 1 or more, as published: there the instruction does not help."""
    batch_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass, padding included; a longer example goes by itself. Left out, 16,384
    on a GPU and 1,024 on a CPU, which takes half the time that it takes for 16,384."""


class BlendConfig(Config):
    """Blend other scores of the recipe into one, over the examples that all of them score.

    An example that one of them skipped is skipped, with that score's reason.
    """

    scores: tuple[str, ...] = Field(min_length=1)
    """The names of the scores: ``["router", "ifd"]`` are ``[score.router]`` and ``[score.ifd]``."""
    combine: Literal["sum", "min", "product"] = "sum"
    """``sum`` (weighted), ``min`` (good by every score) or ``product``."""
    scale: Literal["rank", "percentile", "z-score"] = "rank"
    """What is combined: ranks from 1, the worst, to their number; percentiles between 0 and 100;
    or distances from the mean in standard deviations. Equal scores share their mean rank."""
    weights: tuple[PositiveFloat, ...] = ()
    """With ``combine = "sum"``: a weight for each score; left out, all weigh the same."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if twice := [name for name, times in Counter(self.scores).items() if times > 1]:
            raise ValueError(f"'scores' names {', '.join(twice)} twice: once is enough")
        if self.weights and self.combine != "sum":
            said = f"'weights' do nothing with combine = \"{self.combine}\""
            raise ValueError(f'{said}: take them out (weights = []), or combine = "sum"')
        if self.weights and len(self.weights) != len(self.scores):
            said = f"{len(self.weights)} 'weights' for {len(self.scores)} 'scores'"
            raise ValueError(f"{said}: give each score one, in the order of 'scores'")
        if self.combine == "product" and self.scale == "z-score":
            raise ValueError("a product of z-scores makes two bad scores a good one; use ranks")
        return self
