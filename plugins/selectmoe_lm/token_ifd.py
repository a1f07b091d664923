"""The token-ifd scorer: IFD over the tokens whose loss the instructions change most."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from selectmoe_core import Example, Finish, Job, ScoreTable, Shard, ShardScores, TokenDetail
from selectmoe_lm.answers import AnswerLosses, Answers, mean_of
from selectmoe_lm.config import TokenIfdConfig
from selectmoe_lm.ifd import FROM_ONE, NO_TURN, NOT_ALONE
from selectmoe_lm.opening import OpenedModel, model_of
from selectmoe_lm.shading import details_of_tokens

OCTAVE = 8
"""Levels for each doubling of a change: neighbours are 9 % apart."""
LOWEST, HIGHEST = 2.0**-8, 2.0**5
"""Changes of the loss, in nats, at the lowest and the highest level; others count there."""
LEVELS = OCTAVE * 13 + 1
TOO_FEW = 0.5
"""With less than so many tokens above the threshold an example has no score."""
NO_TOKEN = "no token whose loss the instructions change enough"
OVERFLOW = "the IFD has no finite value"
FEW = 0.01
"""Above this share of examples without such a token there is a warning."""


class TokenIfdScorer:
    """Opens a causal language model; see ``TokenIfdConfig``."""

    def __init__(self, config: TokenIfdConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job) -> Iterator["TokenIfdShardScorer"]:
        """Load the model."""
        model = model_of(job, "token-ifd", self.config.batch_tokens)
        yield TokenIfdShardScorer(self.config, model)

    def finish(self, table: ScoreTable) -> Finish:
        """Find the threshold that the share of all tokens lies above, and score by it."""
        parts = [ScoreTable((path,)) for path in table.parts]
        totals = sum((part.detail("counts").sum(axis=0, dtype=np.float64) for part in parts), 0.0)
        level = threshold_level(np.asarray(totals), self.config.share)
        found = [self._finished(part, level) for part in parts]
        reasons = [reason for _, own in found for reason in own]
        missing = sum(reason == NO_TOKEN for reason in reasons)
        warnings = []
        if missing > FEW * len(reasons):
            change = LOWEST * 2 ** (level / OCTAVE)
            warnings.append(
                f"{missing / len(reasons):.1%} of the examples have no token whose loss the "
                f"instructions change by {change:.2g} nats or more"
            )
        return Finish(np.concatenate([score for score, _ in found]), tuple(warnings), reasons)

    def _finished(self, part: ScoreTable, level: float) -> tuple[np.ndarray, list[str | None]]:
        ifd, counts = above(part.detail("counts"), part.detail("changes"), level)
        scored = np.isfinite(part.detail("ifd"))
        if self.config.skip_from_one:
            scored &= part.detail("ifd") < 1
        few = counts < TOO_FEW
        score = np.where(scored & ~few, ifd if self.config.prefer == "high" else -ifd, np.nan)
        reasons = [NO_TOKEN if own else None for own in (few & scored).tolist()]
        return score, reasons


class TokenIfdShardScorer:
    """Scores with a loaded model."""

    def __init__(self, config: TokenIfdConfig, model: OpenedModel) -> None:
        self._config = config
        self._model = model
        self._answers = AnswerLosses(model.losses, model.tokenizer, "loss")

    def score(self, shard: Shard) -> ShardScores:
        """Return the IFD over all tokens, a provisional score.

        Details: ``ifd``, over all tokens of all answers; ``tokens``, their number; and for each
        level of change, ``[examples, levels]``, ``counts`` of tokens and the sums of their
        ``changes``: the threshold is found from them when every example is scored.
        """
        found = self._answers.of(self._model.read(shard))
        changes = [changes_of(answers) for answers in found]
        with np.errstate(over="ignore"):
            ifd = np.array([np.exp(mean_of(change)) for change in changes])
        skipped = [self._reason(*pair) for pair in zip(ifd, found, strict=True)]
        counts, sums = zip(*map(by_level, changes), strict=True)
        return ShardScores(
            score=np.where([reason is not None for reason in skipped], np.nan, ifd),
            skipped=skipped,
            details={
                "ifd": np.where(np.isfinite(ifd), ifd, np.nan),
                "tokens": np.array([len(change) for change in changes], dtype=np.int32),
                "counts": np.stack(counts),
                "changes": np.stack(sums),
            },
        )

    def tokens(self, examples: Sequence[Example]) -> list[TokenDetail]:
        """Return for each token of the answers its loss after the conversation less that alone."""
        return details_of_tokens(self._answers, self._model.encode(examples))

    def _reason(self, ifd: float, answers: Answers) -> str | None:
        if np.isnan(ifd):
            return NOT_ALONE if answers.given else NO_TURN
        if ifd == np.inf:
            return OVERFLOW
        return FROM_ONE if self._config.skip_from_one and ifd >= 1 else None


def changes_of(answers: Answers) -> np.ndarray:
    """Return how much the conversation changes the loss of each token, nats ``[tokens]``.

    Below 0 the conversation helps.
    """
    pairs = zip(answers.given, answers.alone, strict=True)
    changes = [given.astype(np.float64) - by for given, by in pairs]
    return np.concatenate(changes) if changes else np.empty(0)


def by_level(changes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and sums of changes for each level of absolute change, fp32 ``[levels]``.

    Levels are evenly spaced in the logarithm. A token counts at the two levels beside it, in
    proportion to its distance from the other one, so that a small difference of a loss makes a
    small difference here.
    """
    size = np.clip(np.abs(changes), LOWEST, HIGHEST)
    place = np.clip(OCTAVE * np.log2(size / LOWEST), 0, LEVELS - 1)
    low = np.minimum(place.astype(np.int64), LEVELS - 2)
    part = place - low
    counts, sums = np.zeros(LEVELS), np.zeros(LEVELS)
    for level, weight in ((low, 1 - part), (low + 1, part)):
        counts += np.bincount(level, weights=weight, minlength=LEVELS)
        sums += np.bincount(level, weights=weight * changes, minlength=LEVELS)
    return counts.astype(np.float32), sums.astype(np.float32)


def threshold_level(counts: np.ndarray, share: float) -> float:
    """Return the level, between two levels if need be, that a share of all tokens lies above.

    Args:
        counts: tokens at each level, ``[levels]``.
        share: of the tokens, within (0, 1].
    """
    wanted = share * counts.sum()
    from_above = np.concatenate([[0.0], np.cumsum(counts[::-1])])
    place = int(np.searchsorted(from_above, wanted, side="left"))
    if place == 0:
        return float(LEVELS)
    missing = wanted - from_above[place - 1]
    return LEVELS - place + 1 - float(missing / counts[LEVELS - place])


def above(counts: np.ndarray, changes: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return each example's IFD over its tokens above a level, and how many these are, ``[rows]``.

    A level counts in proportion to how much of it lies above.
    """
    weight = np.clip(np.arange(1, LEVELS + 1) - level, 0, 1)
    tokens = counts.astype(np.float64) @ weight
    sums = changes.astype(np.float64) @ weight
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return np.minimum(np.exp(sums / tokens), np.finfo(np.float64).max), tokens
