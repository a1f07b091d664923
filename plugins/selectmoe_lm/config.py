"""Options of ``perplexity``, ``ifd`` and ``blend``."""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from selectmoe_core import Config, execution_only

MEDIAN = 50.0
ON_GPU, ON_CPU = 16384, 1024
"""Default tokens of a forward pass; the smaller number fits a CPU's caches."""
Percentile = Annotated[float, Field(gt=0, lt=100)]


class PerplexityConfig(Config):
    """Score an example by a language model's loss on its answers.

    The mean over all response tokens of the negative log-likelihood, in nats.
    """

    prefer: Literal["low", "high", "mid"] = "low"
    """Which loss scores highest. The score is minus the loss for ``low``, the loss for ``high``,
    and for ``mid`` minus the distance of the loss's percentile in the pool from ``percentile``."""
    percentile: Percentile = MEDIAN
    """With ``prefer = "mid"``: the percentile of the loss that scores highest."""
    batch_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass, including padding; a longer example has its own pass. By default
    16,384 on a GPU and 1,024 on a CPU, where this is twice as fast as 16,384."""

    @model_validator(mode="after")
    def _check_percentile(self) -> Self:
        if self.percentile != MEDIAN and self.prefer != "mid":
            raise ValueError(f"'percentile' has no effect with prefer = \"{self.prefer}\"")
        return self


class IfdConfig(Config):
    """Score an example by how little its instructions help to predict its answers (IFD).

    The loss of an answer after the whole conversation before it is compared with the loss of the
    answer alone (after only the format's tokens that open it); the mean over all answers.
    """

    ratio: Literal["loss", "perplexity"] = "loss"
    """``loss`` divides the mean losses, as Cherry_LLM does (arXiv 2308.12032); ``perplexity``
    divides the perplexities, exp(loss - loss alone), as Superfiltering does (arXiv 2402.00530).
    If the format has no tokens that open an answer, the first token of the answer alone has no
    loss: ``loss`` leaves that token out of both sides, ``perplexity`` only out of the answer
    alone, as published. Superfiltering's code has no such tokens: with a format that has them,
    as ``tulu`` does, all tokens of an answer alone count and its scores are not the published."""

    prefer: Literal["high", "low"] = "high"
    """``high`` as published in both papers: the score is the IFD. ``low``: minus the IFD, which
    favours answers that fit their instructions."""
    skip_from_one: bool = True
    """Skip examples with an IFD of 1 or more, as published: their instructions do not help."""
    batch_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass, including padding; a longer example has its own pass. By default
    16,384 on a GPU and 1,024 on a CPU, where this is twice as fast as 16,384."""


class BlendConfig(Config):
    """Blend other scores of the recipe into one, for the examples that all of them score.

    An example that one of them skipped is skipped, with the reason of that score.
    """

    scores: tuple[str, ...] = Field(min_length=1)
    """The names of the scores: ``["router", "ifd"]`` are ``[score.router]`` and ``[score.ifd]``."""
    combine: Literal["sum", "min", "product"] = "sum"
    """``sum`` (weighted), ``min`` (good by every score) or ``product``."""
    scale: Literal["rank", "percentile", "z-score"] = "rank"
    """What is combined: ranks, where 1 is the worst; percentiles from 0 to 100; or z-scores
    (distances from the mean in standard deviations). Equal scores have their mean rank."""
    weights: tuple[PositiveFloat, ...] = ()
    """With ``combine = "sum"``: a weight for each score; by default all weights are equal."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if twice := [name for name, times in Counter(self.scores).items() if times > 1]:
            raise ValueError(f"'scores' names {', '.join(twice)} twice; name each score once")
        if self.weights and self.combine != "sum":
            what = f"'weights' have no effect with combine = \"{self.combine}\""
            raise ValueError(f'{what}: remove them (weights = []), or set combine = "sum"')
        if self.weights and len(self.weights) != len(self.scores):
            what = f"{len(self.weights)} 'weights' for {len(self.scores)} 'scores'"
            raise ValueError(f"{what}: give one weight per score, in the order of 'scores'")
        if self.combine == "product" and self.scale == "z-score":
            raise ValueError("the product of two bad z-scores is a good one; use ranks")
        return self
