"""The IFD scorer: how much the instructions lower the loss on the answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from selectmoe_core import Example, Finish, Job, ScoreTable, Shard, ShardScores, TokenDetail
from selectmoe_lm.answers import AnswerLosses, Answers, mean_of
from selectmoe_lm.config import IfdConfig
from selectmoe_lm.opening import OpenedModel, model_of
from selectmoe_lm.shading import details_of_tokens

NO_TURN = "no answer to an instruction (empty, truncated, or the template hides the instruction)"
NOT_ALONE = "an answer of one token without an opening token has no loss alone, so it has no IFD"
INFINITE = "no loss on the answer alone: the IFD has no finite value"
FROM_ONE = "IFD of 1 or more: the instruction does not help"
MOST = 0.5
"""Above this share of examples at 1 or more the cause is the template, not the data."""
FEW = 0.01
"""Above this share of examples without an IFD there is a warning."""


class IfdScorer:
    """Opens a causal language model; see ``IfdConfig``."""

    def __init__(self, config: IfdConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job) -> Iterator["IfdShardScorer"]:
        """Load the model."""
        yield IfdShardScorer(self.config, model_of(job, "ifd", self.config.batch_tokens))

    def finish(self, table: ScoreTable) -> Finish:
        """Keep the scores; warn if the whole pool shows that something is wrong."""
        ifd = table.detail("ifd")
        above, without = float((ifd >= 1).mean()), float(np.isnan(ifd).mean())
        warnings = []
        if above > MOST:
            warnings.append(
                f"{above:.0%} of the examples have an IFD of 1 or more: for this model, the chat "
                "format does more harm than the instructions help; try its own template "
                '([chat] template = "model") or another model'
            )
        if without > FEW:
            warnings.append(
                f"{without:.1%} of the examples have no IFD: no answer that can be compared"
            )
        return Finish(warnings=tuple(warnings))


class IfdShardScorer:
    """Scores with a loaded model."""

    def __init__(self, config: IfdConfig, model: OpenedModel) -> None:
        self._config = config
        self._model = model
        self._answers = AnswerLosses(model.losses, model.tokenizer, config.ratio)

    def score(self, shard: Shard) -> ShardScores:
        """Return the IFD, negated if low is preferred.

        Details: ``ifd`` (also of examples skipped for it), ``loss`` and ``loss_alone`` (means over
        the answers, nats a token) and ``turns``, how many answers there are. Examples without an
        answered instruction are skipped, and with ``skip_from_one`` those with an IFD of 1 or more.
        """
        found = self._answers.of(self._model.read(shard))
        ifd = np.array([answers.ifd(self._config.ratio) for answers in found])
        skipped = [self._reason(*pair) for pair in zip(ifd, found, strict=True)]
        score = ifd if self._config.prefer == "high" else -ifd
        return ShardScores(
            score=np.where([reason is not None for reason in skipped], np.nan, score),
            skipped=skipped,
            details={
                "ifd": ifd,
                "loss": np.array(
                    [mean_of([mean_of(losses) for losses in answers.given]) for answers in found]
                ),
                "loss_alone": np.array(
                    [
                        mean_of([mean_of(losses) for losses in answers.alone if len(losses)])
                        for answers in found
                    ]
                ),
                "turns": np.array([len(answers.given) for answers in found], dtype=np.int32),
            },
        )

    def tokens(self, examples: Sequence[Example]) -> list[TokenDetail]:
        """Return for each token of the answers its loss after the conversation less that alone."""
        return details_of_tokens(self._answers, self._model.encode(examples))

    def _reason(self, ifd: float, answers: Answers) -> str | None:
        if np.isnan(ifd):
            return NOT_ALONE if answers.given else NO_TURN
        if self._config.skip_from_one and ifd >= 1:
            return FROM_ONE
        return INFINITE if ifd == np.inf else None
