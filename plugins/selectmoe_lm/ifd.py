"""The IFD scorer: what the instructions take off the loss on the answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from selectmoe_core import Example, Finish, Job, ScoreTable, Shard, ShardScores, TokenDetail
from selectmoe_core.tokens import Encoded, EncodedExample
from selectmoe_lm.config import IfdConfig
from selectmoe_lm.losses import TokenLosses
from selectmoe_lm.opening import model_of, texts
from selectmoe_lm.turns import alone, answered_turns, within

NO_TURN = "no answer to an instruction (empty, cut off, or the template hides the instruction)"
FROM_ONE = "IFD of 1 or more: the instruction does not help"
MOST = 0.5
"""Above this share of examples at 1 or more it is the template that speaks, not the data."""
FEW = 0.01
"""Above this share of examples without an IFD the user is told."""


@dataclass(frozen=True)
class Answers:
    """The losses on the answers of one example.

    Attributes:
        given: of each answer, loss a token after its conversation, fp32 ``[tokens]``.
        alone: the same tokens' losses without it.
    """

    given: Sequence[np.ndarray]
    alone: Sequence[np.ndarray]

    @property
    def ifd(self) -> float:
        """The mean over answers of loss given over loss alone; NaN where there is no answer."""
        pairs = zip(self.given, self.alone, strict=True)
        return _mean([_ratio(_mean(given), _mean(by)) for given, by in pairs])


class IfdScorer:
    """Opens a causal language model; see ``IfdConfig``."""

    def __init__(self, config: IfdConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job) -> Iterator["IfdShardScorer"]:
        """Load the model."""
        losses, tokenizer = model_of(job, "ifd", self.config.batch_tokens)
        yield IfdShardScorer(self.config, job, tokenizer, losses)

    def finish(self, table: ScoreTable) -> Finish:
        """Leave the scores; warn where the pool as a whole says that something is off."""
        ifd = table.detail("ifd")
        above, without = float((ifd >= 1).mean()), float(np.isnan(ifd).mean())
        warnings = []
        if above > MOST:
            warnings.append(
                f"{above:.0%} of the examples have an IFD of 1 or more: the chat format puts this "
                "model off more than the instructions help; try its own template "
                '([chat] template = "model") or another model'
            )
        if without > FEW:
            warnings.append(f"{without:.1%} of the examples have no IFD: {NO_TURN}")
        return Finish(warnings=tuple(warnings))


class IfdShardScorer:
    """Scores with a loaded model."""

    def __init__(
        self,
        config: IfdConfig,
        job: Job,
        tokenizer: Any,  # noqa: ANN401
        losses: TokenLosses,
    ) -> None:
        self._config = config
        self._job = job
        self._tokenizer = tokenizer
        self._losses = losses

    @cached_property
    def _encoded(self) -> Encoded:
        return self._job.encoded(self._tokenizer)

    def score(self, shard: Shard) -> ShardScores:
        """Return the IFD, negated where low is preferred.

        Details: ``ifd`` (also of examples skipped for it), ``loss`` and ``loss_alone`` (means over
        the answers, nats a token) and ``turns``, how many answers there are. Examples without an
        answered instruction are skipped, and those from 1 on if so configured.
        """
        found = self._answers([self._encoded[int(row)] for row in shard.rows])
        ifd = np.array([one.ifd for one in found])
        skipped = [self._reason(value) for value in ifd]
        score = ifd if self._config.prefer == "high" else -ifd
        return ShardScores(
            score=np.where([reason is not None for reason in skipped], np.nan, score),
            skipped=skipped,
            details={
                "ifd": ifd,
                "loss": np.array([_mean([_mean(of) for of in one.given]) for one in found]),
                "loss_alone": np.array([_mean([_mean(of) for of in one.alone]) for one in found]),
                "turns": np.array([len(one.given) for one in found], dtype=np.int32),
            },
        )

    def tokens(self, examples: Sequence[Example]) -> list[TokenDetail]:
        """Return the loss on each answer token given the conversation, in nats."""
        encoded = self._job.chat.encode(examples, self._tokenizer)
        return [
            TokenDetail(
                [
                    text
                    for turn, of in zip(answered_turns(one), answers.given, strict=True)
                    for text in texts(self._tokenizer, one.ids[turn.stop - len(of) : turn.stop])
                ],
                [float(loss) for of in answers.given for loss in of],
            )
            for one, answers in zip(encoded, self._answers(encoded), strict=True)
        ]

    def _reason(self, ifd: float) -> str | None:
        if np.isnan(ifd):
            return NO_TURN
        if ifd == np.inf or (self._config.skip_from_one and ifd >= 1):
            return FROM_ONE
        return None

    def _answers(self, encoded: Sequence[EncodedExample]) -> list[Answers]:
        """Return the losses of each example, all sequences of all of them batched together."""
        bos = self._tokenizer.bos_token_id
        turns = [answered_turns(one) for one in encoded]
        apart = [
            [alone(one, turn, bos) for turn in of] for one, of in zip(encoded, turns, strict=True)
        ]
        counts = [[int(mask.sum()) for _, mask in of] for of in apart]
        ids = [one.ids for one in encoded] + [ids for of in apart for ids, _ in of]
        masks = [within(*row) for row in zip(encoded, turns, counts, strict=True)]
        masks += [mask for of in apart for _, mask in of]
        losses = self._losses.of(ids, masks)
        given, by = losses[: len(encoded)], iter(losses[len(encoded) :])
        return [
            Answers(np.split(of, np.cumsum(count)[:-1]) if count else [], [next(by) for _ in count])
            for of, count in zip(given, counts, strict=True)
        ]


def _ratio(given: float, by: float) -> float:
    """Return their ratio; where no loss is left to help with, 1, or infinity if it grew."""
    if by > 0:
        return given / by
    return 1.0 if given == 0 else float("inf")


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64)) if len(values) else float("nan")
