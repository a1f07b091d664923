"""The judge scorer: what a scorer model says of an answer, as an expected value over its scores."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from selectmoe_core import (
    DataError,
    Example,
    Job,
    Message,
    ModelError,
    Shard,
    ShardScores,
    read_regular,
)
from selectmoe_lm.config import JudgeConfig
from selectmoe_lm.losses import TokenLosses
from selectmoe_lm.opening import model_of
from selectmoe_lm.prompts import Prompts, asked_turns

NO_TURN = "no answer to a request of the user"


@dataclass(frozen=True)
class Verdict:
    """What the model says of one prompt.

    Attributes:
        value: the expected value of the score, over the score tokens alone.
        mass: the probability of all score tokens together.
    """

    value: float
    mass: float


class JudgeScorer:
    """Opens a scorer model; see ``JudgeConfig``."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Raise for a template that cannot be used, and for score tokens that are not tokens.

        A model that is not on this machine yet is not looked at.
        """
        template_of(self.config)
        ref = job.inputs.model
        if ref is not None and job.models.local(ref) is not None:
            token_ids(self.config.tokens, job.models.tokenizer(ref))

    @contextmanager
    def open(self, job: Job) -> Iterator["JudgeShardScorer"]:
        """Load the model."""
        model = model_of(job, "judge", self.config.batch_tokens)
        ids = token_ids(self.config.tokens, model.tokenizer)
        prompts = Prompts(model.tokenizer, template_of(self.config), chat=self.config.chat)
        yield JudgeShardScorer(self.config, model.losses, prompts, ids)


class JudgeShardScorer:
    """Scores with a loaded model."""

    def __init__(
        self, config: JudgeConfig, losses: TokenLosses, prompts: Prompts, tokens: np.ndarray
    ) -> None:
        self._config = config
        self._losses = losses
        self._prompts = prompts
        self._tokens = tokens
        self._values = np.array(config.scores)

    def score(self, shard: Shard) -> ShardScores:
        """Return the expected score of each example: the mean, sum or first of its answers.

        Details: ``mass``, the smallest probability of the score tokens together, and ``turns``, how
        many answers were asked about. An example is skipped if it has no answer to a request, if a
        prompt is too long, or if the score tokens of one have too little mass.
        """
        turns = [self._asked(example) for example in shard.examples]
        made = iter(self._prompts.of([turn for own in turns for turn in own]))
        prompts = [[next(made) for _ in own] for own in turns]
        skipped = [self._unfit(own) for own in prompts]
        asked = [[] if why else own for own, why in zip(prompts, skipped, strict=True)]
        said = iter(self._verdicts([ids for own in asked for ids in own]))
        rows = [[next(said) for _ in own] for own in asked]
        mass = np.array([min((v.mass for v in own), default=np.nan) for own in rows])
        for row, least in enumerate(mass.tolist()):
            if least < self._config.min_mass:
                skipped[row] = self._too_little
        values = [self._together([verdict.value for verdict in own]) for own in rows]
        return ShardScores(
            score=np.where([why is not None for why in skipped], np.nan, values),
            skipped=skipped,
            details={"mass": mass, "turns": np.array([len(own) for own in turns], dtype=np.int32)},
        )

    @property
    def _too_little(self) -> str:
        return f"the score tokens have a probability below min_mass = {self._config.min_mass:g}"

    def _asked(self, example: Example) -> list[tuple[Message, Message]]:
        turns = asked_turns(example.messages)
        return turns[:1] if self._config.turns == "first" else turns

    def _unfit(self, prompts: Sequence[np.ndarray]) -> str | None:
        if not prompts:
            return NO_TURN
        if max(map(len, prompts)) > self._config.max_length:
            return f"a prompt of more than max_length = {self._config.max_length:,} tokens"
        return None

    def _verdicts(self, prompts: Sequence[np.ndarray]) -> list[Verdict]:
        logs = self._losses.after(prompts, self._tokens).astype(np.float64)
        chances = np.exp(logs)
        mass = chances.sum(axis=1)
        # Not chances / mass: with a mass that underflows, the largest logarithm decides.
        shares = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
        values = (shares / shares.sum(axis=1, keepdims=True)) @ self._values
        return [Verdict(*pair) for pair in zip(values.tolist(), mass.tolist(), strict=True)]

    def _together(self, values: Sequence[float]) -> float:
        if not values:
            return float("nan")
        total = float(np.sum(values))
        return total if self._config.turns == "sum" else total / len(values)


def template_of(config: JudgeConfig) -> str:
    """Return the prompt template, from the recipe or from its file.

    Raises:
        DataError: the file is not text, or has no place for the row's text.
    """
    if config.template is not None:
        return config.template
    assert config.template_file is not None
    try:
        text = read_regular(config.template_file, error=DataError).decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{config.template_file} is not UTF-8 text") from None
    if not any(place in text for place in ("{instruction}", "{output}")):
        raise DataError(
            f"{config.template_file} has no place for the row's text",
            hint="write {instruction}, {output} or both where they belong",
        )
    # Editors end a file with a line end; a template such as "Complexity: " ends before it.
    return text.removesuffix("\n").removesuffix("\r")


def token_ids(texts: Sequence[str], tokenizer: Any) -> np.ndarray:  # noqa: ANN401
    """Return the id of each score token, int64 ``[tokens]``.

    Raises:
        ModelError: a text is not one token of this tokenizer, or two texts are the same token.
    """
    vocabulary = tokenizer.get_vocab()
    found: list[int] = []
    for text in texts:
        ids = [vocabulary[text]] if text in vocabulary else _encoded(text, tokenizer)
        if len(ids) != 1:
            raise ModelError(
                f"tokens: '{text}' is {len(ids)} tokens of this model's tokenizer, not one",
                hint="name a token as the vocabulary writes it, or with the space before it: ' 1'",
            )
        found += ids
    if len(set(found)) < len(found):
        raise ModelError("tokens: two of the texts are the same token of this model's tokenizer")
    return np.array(found, dtype=np.int64)


def _encoded(text: str, tokenizer: Any) -> list[int]:  # noqa: ANN401
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
