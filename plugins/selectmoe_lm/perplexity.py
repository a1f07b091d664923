"""The perplexity scorer: the loss on the answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from selectmoe_core import Example, Finish, Job, ScoreTable, Shard, ShardScores, TokenDetail
from selectmoe_core.data import Part
from selectmoe_core.tokens import token_texts
from selectmoe_lm.config import PerplexityConfig
from selectmoe_lm.opening import OpenedModel, model_of
from selectmoe_lm.ranks import percentiles

NOTHING_COUNTS = "no response token (the answer is empty or was truncated)"


class PerplexityScorer:
    """Opens a causal language model; see ``PerplexityConfig``."""

    def __init__(self, config: PerplexityConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job) -> Iterator["PerplexityShardScorer"]:
        """Load the model."""
        model = model_of(job, "perplexity", self.config.batch_tokens)
        yield PerplexityShardScorer(self.config, model)

    def finish(self, table: ScoreTable) -> Finish:
        """Turn losses into distances from a percentile if ``prefer = "mid"``."""
        if self.config.prefer != "mid":
            return Finish()
        loss = table.detail("loss")
        scored = np.isfinite(loss)
        score = np.full(len(loss), np.nan)
        score[scored] = -np.abs(percentiles(loss[scored]) - self.config.percentile)
        return Finish(score)


class PerplexityShardScorer:
    """Scores with a loaded model."""

    def __init__(self, config: PerplexityConfig, model: OpenedModel) -> None:
        self._config = config
        self._model = model

    def score(self, shard: Shard) -> ShardScores:
        """Return the mean loss on response tokens, negated unless high loss is preferred.

        Details: ``loss``, in nats per token, and ``tokens``, their number. An example
        without a response token is skipped. With ``prefer = "mid"`` the score is provisional.
        """
        encoded = self._model.read(shard)
        masks = [after_the_first(example.parts == Part.RESPONSE) for example in encoded]
        losses = self._model.losses.of([example.ids for example in encoded], masks)
        counts = np.array([len(token_losses) for token_losses in losses], dtype=np.int32)
        sums = np.array([token_losses.sum(dtype=np.float64) for token_losses in losses])
        loss = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
        return ShardScores(
            score=loss if self._config.prefer == "high" else -loss,
            skipped=[None if count else NOTHING_COUNTS for count in counts],
            details={"loss": loss, "tokens": counts},
        )

    def tokens(self, examples: Sequence[Example]) -> list[TokenDetail]:
        """Return the loss on each token of the answers, in nats."""
        encoded = self._model.encode(examples)
        masks = [after_the_first(example.parts == Part.RESPONSE) for example in encoded]
        losses = self._model.losses.of([example.ids for example in encoded], masks)
        found = []
        for example, mask, own in zip(encoded, masks, losses, strict=True):
            values = np.full(len(example.ids), np.nan)
            values[mask] = own
            texts = tuple(token_texts(self._model.tokenizer, example.ids.tolist()))
            found.append(TokenDetail("loss in nats", texts, values, mask))
        return found


def after_the_first(mask: np.ndarray) -> np.ndarray:
    """Return the mask without the first token, which is not predicted."""
    return np.asarray(mask & (np.arange(len(mask)) > 0))
