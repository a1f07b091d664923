"""The losses on the answers of examples: after their conversations, and on the answers alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from selectmoe_core.tokens import EncodedExample
from selectmoe_lm.losses import TokenLosses
from selectmoe_lm.turns import Turn, alone, answered_turns, within

Ratio = Literal["loss", "perplexity"]


@dataclass(frozen=True)
class Answers:
    """The losses on the answers of one example.

    Attributes:
        given: for each answer, the loss of each token after its conversation, fp32 ``[tokens]``.
        alone: the losses without the conversation, possibly without the first token; may be empty.
    """

    given: Sequence[np.ndarray]
    alone: Sequence[np.ndarray]

    def ifd(self, ratio: Ratio) -> float:
        """Return the mean IFD of the answers that have one; NaN if none has."""
        pairs = zip(self.given, self.alone, strict=True)
        return mean_of(
            [RATIOS[ratio](mean_of(given), mean_of(by)) for given, by in pairs if len(by)]
        )


@dataclass(frozen=True)
class AnswerLosses:
    """Reads the losses of answers with a loaded model.

    Attributes:
        losses: the model.
        tokenizer: its tokenizer.
        ratio: for ``loss`` the same tokens count on both sides; for ``perplexity`` every token of
            an answer counts after its conversation.
    """

    losses: TokenLosses
    tokenizer: Any
    ratio: Ratio

    def of(self, encoded: Sequence[EncodedExample]) -> list[Answers]:
        """Return the losses of each example; all sequences of all examples are batched together."""
        bos = self.tokenizer.bos_token_id
        turns = [answered_turns(example) for example in encoded]
        apart = [
            [alone(example, turn, bos) for turn in answers]
            for example, answers in zip(encoded, turns, strict=True)
        ]
        counts = [
            [self._counted(*pair) for pair in zip(answers, sides, strict=True)]
            for answers, sides in zip(turns, apart, strict=True)
        ]
        ids = [example.ids for example in encoded] + [
            ids for sequences in apart for ids, _ in sequences
        ]
        masks = [within(*row) for row in zip(encoded, turns, counts, strict=True)]
        masks += [mask for sequences in apart for _, mask in sequences]
        losses = self.losses.of(ids, masks)
        given, by = losses[: len(encoded)], iter(losses[len(encoded) :])
        return [
            Answers(
                np.split(whole, np.cumsum(count)[:-1]) if count else [], [next(by) for _ in count]
            )
            for whole, count in zip(given, counts, strict=True)
        ]

    def _counted(self, turn: Turn, side: tuple[np.ndarray, np.ndarray]) -> int:
        """Return how many of an answer's last tokens count after its conversation."""
        if self.ratio == "perplexity":
            return turn.stop - turn.start
        return int(side[1].sum())  # the same tokens as in the answer alone


def _loss_ratio(given: float, by: float) -> float:
    """Return the ratio of two losses; if the divisor is 0, it is 1 or infinity."""
    if by > 0:
        return given / by
    return 1.0 if given == 0 else float("inf")


def _perplexity_ratio(given: float, by: float) -> float:
    """Return the ratio of the perplexities of two mean losses; infinity on overflow."""
    with np.errstate(over="ignore"):
        return float(np.exp(given - by))


RATIOS: dict[Ratio, Callable[[float, float], float]] = {
    "loss": _loss_ratio,
    "perplexity": _perplexity_ratio,
}


def mean_of(values: Sequence[float] | np.ndarray) -> float:
    """Return the mean in double precision; NaN of nothing."""
    return float(np.mean(values, dtype=np.float64)) if len(values) else float("nan")
