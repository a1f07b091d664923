"""What the instruction saves at each token of the answers, for the shading in the report."""

from collections.abc import Sequence

import numpy as np

from selectmoe_core import TokenDetail
from selectmoe_core.tokens import EncodedExample, token_texts
from selectmoe_lm.answers import AnswerLosses
from selectmoe_lm.turns import answered_turns

DIFFERENCE = "loss with the instruction minus loss without it, in nats"


def details_of_tokens(reader: AnswerLosses, encoded: Sequence[EncodedExample]) -> list[TokenDetail]:
    """Return for each token of the answers its loss after the conversation less that alone.

    Below 0 the conversation helps to predict the token. Tokens without a loss alone have no number.
    """
    found = []
    for example, answers in zip(encoded, reader.of(encoded), strict=True):
        values = np.full(len(example.ids), np.nan)
        pairs = zip(answered_turns(example), answers.given, answers.alone, strict=True)
        for turn, given, by in pairs:
            size = min(len(given), len(by))
            last = given[len(given) - size :] - by[len(by) - size :]
            values[turn.stop - size : turn.stop] = last
        texts = tuple(token_texts(reader.tokenizer, example.ids.tolist()))
        found.append(TokenDetail(DIFFERENCE, texts, values, np.isfinite(values)))
    return found
