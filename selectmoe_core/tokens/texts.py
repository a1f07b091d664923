"""The text of each token, so that the texts of all tokens are the text of the sequence."""

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer writes for bytes that are no whole character yet."""


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:  # noqa: ANN401
    """Return the text that each token adds to the text of the tokens before it.

    A tokenizer may write a token differently at the beginning of a text (a space is missing), and
    a character may need several tokens: the last of these gets the whole character, and those
    before it an empty text. Only a few tokens are decoded at a time, as streaming does.
    """
    found: list[str] = []
    start = read = 0
    before = ""
    for end in range(1, len(ids) + 1):
        now = _decode(tokenizer, ids[start:end])
        if now.endswith(UNFINISHED) and end < len(ids):
            found.append("")
            continue
        found.append(now[len(before) :])
        start, read = read, end
        before = _decode(tokenizer, ids[start:read])
    return found


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:  # noqa: ANN401
    text: str = tokenizer.decode(
        [int(one) for one in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text
