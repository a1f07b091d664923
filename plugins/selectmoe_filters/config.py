"""Options of the filters."""

from typing import Annotated, Literal, Self

from annotated_types import Len
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from selectmoe_core import Config, suggest
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


_CODES = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs
cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr
hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc
lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa
pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg
th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
"""
CODES = frozenset(_CODES.split())
"""The languages of the detector: ISO 639-1, or the code of the Wikipedia in that language."""
UNKNOWN = "unknown"
"""The language of a row that is too short, or of which the detector is not confident."""


class LanguageConfig(Config):
    """Leave out examples by the language that they are written in.

    Code, addresses and tags do not count. Without ``keep`` and ``drop`` nothing is left out and
    languages are only counted. The counts by source, and the language of each selected row in
    ``selection.parquet``, are those of the detector, which is sometimes wrong on short texts.
    """

    keep: tuple[str, ...] = ()
    """Codes of the languages to keep, such as "en"; every other language is left out."""
    drop: tuple[str, ...] = ()
    """Codes of the languages to leave out; every other language is kept."""
    text: Text = "conversation"
    """What is read: all messages, all before the last answer, or the answers."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The least confidence of the detector; below it the language of a row is unknown."""
    min_letters: PositiveInt = 20
    """The language of a text with fewer letters is unknown; a sign of Chinese, Japanese or Korean
    counts as three."""
    unknown: Literal["keep", "drop"] = "keep"
    """What happens to a row whose language is unknown."""
    characters: PositiveInt = 300
    """How much of a text is looked at, from its beginning."""

    @field_validator("keep", "drop")
    @classmethod
    def _check_codes(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for code in codes:
            if code not in CODES:
                raise ValueError(f"there is no language '{code}': {suggest(code, sorted(CODES))}")
        return codes

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.keep and self.drop:
            raise ValueError("set 'keep' or 'drop', not both: what is not kept is left out")
        return self

    def wants(self, language: str) -> bool:
        """Return whether rows of a language stay."""
        if language == UNKNOWN:
            return self.unknown == "keep"
        return language in self.keep if self.keep else language not in self.drop


class UnrenderedConfig(Config):
    """Leave out examples that the chat format cannot render.

    A scorer that reads tokens gives them no score; this leaves them out of selections by other
    scores too. Every recipe that selects and trains has this filter as [filter.unrendered] if
    ``on_reject = "skip"`` in [pool] and the chat format is another one than "tulu", unless it says
    ``use = "none"`` there. The model is that of this table or of [train].
    """
