"""Options of the scorers by language models, and of ``blend``."""

import math
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from selectmoe_core import Config, content_path, execution_only

MEDIAN = 50.0
ON_GPU, ON_CPU = 16384, 1024
"""Default tokens of a forward pass; the smaller number fits a CPU's caches."""
Percentile = Annotated[float, Field(gt=0, lt=100)]
Share = Annotated[float, Field(gt=0, lt=1)]


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


class TokenIfdConfig(Config):
    """Score an example by IFD over the tokens whose loss its instructions change most (S-IFD).

    The change of a token is its loss after the whole conversation before it, minus its loss in the
    answer alone. Of all tokens of the pool, the ``share`` with the largest absolute changes counts;
    the score is exp(mean change) over those of an example, all its answers together. An example
    that has none of them is skipped.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The share of the pool's answer tokens that counts, those whose loss changes most. The
    threshold between them and the others lies between levels of change that are 9 % apart, and
    tokens between the two levels beside it count in part."""
    prefer: Literal["high", "low"] = "high"
    """``high`` as published. ``low``: minus the score, which favours answers that fit their
    instructions."""
    skip_from_one: bool = True
    """Skip examples whose IFD over all tokens is 1 or more, as published."""
    batch_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass, including padding; a longer example has its own pass. By default
    16,384 on a GPU and 1,024 on a CPU, where this is twice as fast as 16,384."""


class DynamicsConfig(Config):
    """Score an example by its loss, and its change, over the checkpoints of a warm-up.

    The warm-up keeps its LoRA weights now and then; at each of these points the mean loss of the
    example's response tokens is computed.
    """

    measure: Literal["drop", "mean", "last", "variability"] = "drop"
    """``drop``: the first loss minus the last, what training on the sample teaches about the
    example; ``mean`` of the losses, ``last`` of them, or ``variability``, their standard
    deviation."""
    prefer: Literal["high", "low"] = "high"
    """Which of these numbers scores highest."""
    from_base: bool = True
    """Count the model before the warm-up as the first point."""
    batch_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass, including padding; a longer example has its own pass. By default
    16,384 on a GPU and 1,024 on a CPU, where this is twice as fast as 16,384."""


class JudgeConfig(Config):
    """Score an example by what a scorer model says of it: the expected value of its score tokens.

    The template is filled with the request and the answer; the score is the mean value of the score
    tokens, weighted by how likely the model finds each as the next token, among these tokens alone.
    An example is skipped, with the reason, if the score tokens have too little of the probability,
    if it has no answer to a request, or if its prompt is too long. There is no default score.
    """

    template: str | None = Field(default=None, min_length=1)
    """The prompt, with ``{instruction}`` (the message of the user), ``{output}`` (the answer) or
    both."""
    template_file: Path | None = content_path(None)
    """A text file with the prompt; a line end at its end does not count."""
    tokens: tuple[Annotated[str, Field(min_length=1)], ...] = ("1", "2", "3", "4", "5", "6")
    """The score tokens: each is one token of the model's tokenizer."""
    values: tuple[float, ...] = ()
    """The value of each score token; by default the numbers that the tokens are."""
    min_mass: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The least probability of all score tokens together. Below it the model answers something
    else, and the example is skipped."""
    turns: Literal["mean", "sum", "first"] = "mean"
    """How the answers of a conversation are put together; each is asked about with the user's
    message right before it. DEITA adds them up; ``first`` asks about the first alone."""
    chat: bool = False
    """Ask in the model's own chat format, as a message of the user."""
    max_length: PositiveInt = 2048
    """The most tokens of a prompt; an example with a longer one is skipped."""
    batch_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass, including padding; a longer prompt has its own pass. By default
    16,384 on a GPU and 1,024 on a CPU, where this is twice as fast as 16,384."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.template is None) == (self.template_file is None):
            raise ValueError("set 'template' or 'template_file', not both")
        if self.template is not None and not re.search(r"\{(instruction|output)\}", self.template):
            raise ValueError("'template' needs a place for {instruction} or {output}")
        if len(self.tokens) < 2 or len(set(self.tokens)) < len(self.tokens):
            raise ValueError("'tokens' needs two or more different tokens")
        if self.values and len(self.values) != len(self.tokens):
            raise ValueError(f"{len(self.values)} 'values' for {len(self.tokens)} 'tokens'")
        if not self.values and not all(map(_is_number, self.tokens)):
            raise ValueError("'values' must say what 'tokens' that are not numbers are worth")
        return self

    @property
    def scores(self) -> tuple[float, ...]:
        """The value of each score token."""
        return self.values or tuple(map(float, self.tokens))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


class BlendConfig(Config):
    """Blend other scores of the recipe into one, for the examples that all of them score.

    An example that one of them skipped is skipped, with the reason of that score.
    """

    scores: tuple[str, ...] = Field(min_length=1)
    """The names of the scores: ``["router", "ifd"]`` are ``[score.router]`` and ``[score.ifd]``."""
    combine: Literal["sum", "min", "product"] = "sum"
    """``sum`` (weighted), ``min`` (good by every score) or ``product``."""
    scale: Literal["rank", "percentile", "z-score", "raw"] = "rank"
    """What is combined: ranks, where 1 is the worst; percentiles from 0 to 100; z-scores
    (distances from the mean in standard deviations); or ``raw``, the scores as they are, for
    scores on one scale. Equal scores have their mean rank."""
    weights: tuple[PositiveFloat, ...] = ()
    """With ``combine = "sum"``: a weight for each score; by default all weights are equal."""
    filter_first: dict[str, Share] = Field(default_factory=dict)
    """Scores that filter, and the share that passes: with ``{contrastive = 0.5}`` the best half by
    the score ``contrastive`` comes before all other examples, whatever their blended scores. With
    several, the examples that pass all of them come first."""

    @property
    def read(self) -> tuple[str, ...]:
        """The names of all scores that it reads, each once."""
        return tuple(dict.fromkeys((*self.scores, *self.filter_first)))

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
