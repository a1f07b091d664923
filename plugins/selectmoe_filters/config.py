"""Options of the filters."""

from typing import Annotated, Literal, Self

from annotated_types import Len
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from selectmoe_core import Config
from selectmoe_filters.texts import Text

BOUNDS = ("prompt", "answer", "total", "turns")


class NearDuplicatesConfig(Config):
    """Keep the best-scored alone of examples whose texts are nearly the same.

    Two examples are alike if they share so much of their runs of words and signs (Jaccard
    similarity), or if they differ in white space and upper case alone. What is alike to one example
    belongs to one group, whichever way it is reached.
    """

    similarity: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """Of the different runs that either text has, the share that both must have."""
    ngram: Annotated[int, Field(ge=1, le=20)] = 3
    """Words and signs in a run; a text with fewer is one run."""
    text: Text = "conversation"
    """What is compared: all messages, all before the last answer, or the answers."""
    prefixes: bool = True
    """With ``text = "conversation"``: a conversation that begins as another one and stops earlier
    is alike to it, as the paths of one conversation tree are."""


class LengthConfig(Config):
    """Leave out examples that are too short or too long.

    Lengths are counted in characters, or in tokens of the target's tokenizer as training sees them:
    after ``chat.max_length`` has cut them, without the format's own tokens except in the total.
    """

    unit: Literal["characters", "tokens"] = "characters"
    """What is counted; tokens need ``model`` in this table or in [train]."""
    min_prompt: PositiveInt | None = None
    """The least length of everything but the answers."""
    max_prompt: PositiveInt | None = None
    """The greatest length of everything but the answers."""
    min_answer: PositiveInt | None = None
    """The least length of the answers that are trained on, taken together."""
    max_answer: PositiveInt | None = None
    """The greatest length of the answers that are trained on, taken together."""
    min_total: PositiveInt | None = None
    """The least length of the whole example."""
    max_total: PositiveInt | None = None
    """The greatest length of the whole example."""
    min_turns: PositiveInt | None = None
    """The least number of messages of user and assistant."""
    max_turns: PositiveInt | None = None
    """The greatest number of messages of user and assistant."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        bounds = [(name, *self.bounds(name)) for name in BOUNDS]
        if all(low is None and high is None for _, low, high in bounds):
            raise ValueError("set at least one bound, such as min_answer = 10")
        for name, low, high in bounds:
            if low is not None and high is not None and low > high:
                raise ValueError(f"'min_{name}' = {low} is above 'max_{name}' = {high}")
        return self

    def bounds(self, name: str) -> tuple[int | None, int | None]:
        """Return the least and the greatest length of a part."""
        return getattr(self, f"min_{name}"), getattr(self, f"max_{name}")


class RegexConfig(Config):
    """Leave out examples by patterns, in the syntax of RE2: time is in proportion to the text.

    RE2 has no look-ahead and no back-references; ``(?i)`` at the beginning ignores case.
    """

    patterns: Annotated[tuple[str, ...], Len(1)]
    """An example in which one of them is found is left out; the first one gives the reason."""
    text: Text = "answers"
    """Where to look: in every message, in all before the last answer, or in the answers."""
    keep: bool = False
    """Leave out instead the examples in which none of the patterns is found."""

    @field_validator("patterns")
    @classmethod
    def _check_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        from selectmoe_filters.expressions import compiled

        for pattern in patterns:
            compiled(pattern)
        return patterns


class LeakConfig(Config):
    """Leave out examples that hold a part of a question of the evaluation.

    A run of words that a question and an example share, without regard to case and punctuation
    (GPT-3, arXiv 2005.14165, appendix C: 13 words). Every recipe that selects and evaluates has
    this filter as [filter.leak], unless it says ``use = "none"`` there.
    """

    ngram: Annotated[int, Field(ge=5, le=100)] = 13
    """Words in a run."""
    shortest: PositiveInt = 8
    """A question or an answer of fewer than ``ngram`` words is looked for as a whole if it has at
    least so many; with fewer it is not looked for."""
    common: NonNegativeInt = 10
    """A run that more questions than this share is wording of the task and is not looked for."""
    answers: bool = True
    """Look for the choices and expected answers of a question too."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.shortest > self.ngram:
            raise ValueError(f"'shortest' = {self.shortest} is above 'ngram' = {self.ngram}")
        return self
