"""Which part of a conversation each token belongs to, from the positions of the tokens."""

from __future__ import annotations

import json
from bisect import bisect_left
from itertools import chain
from typing import TYPE_CHECKING, Any

from selectmoe_core.data.examples import Part, Rendered

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Encoding


def token_parts(offsets: np.ndarray, added: np.ndarray, rendered: Rendered) -> np.ndarray:
    """Return what each token is part of, uint8 ``[tokens]``.

    Args:
        offsets: first character of each token and the one after its last, int64 ``[tokens, 2]``.
        added: which tokens the tokenizer added itself, such as begin-of-sequence, bool
            ``[tokens]``: they belong to the format.
        rendered: the text and its spans.

    A token that crosses a border belongs to the part of its last character, as far as the offsets
    show it. A token without characters is either a space whose offsets the tokenizer trimmed away
    (the characters before it then belong to no other token, and it belongs to them), or a word
    mark before a character (and it belongs to that character).
    """
    import numpy as np

    characters = np.zeros(len(rendered.text) + 1, dtype=np.uint8)
    for span in rendered.spans:
        characters[span.start : span.stop] = span.part
    starts, stops = offsets[:, 0], offsets[:, 1]
    reached = np.maximum.accumulate(np.concatenate([[0], stops[:-1]])) if len(stops) else stops
    mark = (starts == stops) & (reached >= stops)
    parts = characters[np.where(mark, starts, np.maximum(stops - 1, 0))]
    parts[added] = Part.FORMAT
    return parts


def keeps_order(backend: Any) -> bool:  # noqa: ANN401
    """Return whether the offsets of a backend tokenizer are known never to decrease.

    They decrease if it trims spaces that it added itself, or if it repeats text. Of the
    normalizers only NFC is known to add none.
    """
    after, before, normalizer = (
        b"" if step is None else step.__getstate__()
        for step in (backend.post_processor, backend.pre_tokenizer, backend.normalizer)
    )
    steps = json.loads(after or b"{}")
    steps = steps.get("processors", [steps])
    repeats = any(
        sum("Sequence" in piece for piece in step.get("single", [])) > 1 for step in steps
    )
    trims = any(step.get("trim_offsets") for step in steps)
    puts_in = (
        normalizer not in (b"", b'{"type":"NFC"}')
        or b'"add_prefix_space":true' in before
        or b"Metaspace" in before
    )
    return not repeats and not (trims and puts_in)


def parts_of_all(encoding: Encoding, rendered: Rendered) -> np.ndarray:
    """Return ``token_parts`` of an encoding, using the offsets of all tokens."""
    import numpy as np

    flat = chain.from_iterable(encoding.offsets)
    offsets = np.fromiter(flat, dtype=np.int64, count=2 * len(encoding))
    return token_parts(
        offsets.reshape(-1, 2), np.array(encoding.special_tokens_mask, dtype=bool), rendered
    )


def parts_at_borders(encoding: Encoding, added: int, rendered: Rendered) -> np.ndarray:
    """Return the same as ``token_parts``, using only the tokens at the borders of the spans.

    The tokens follow the order of the text, so that those of a span are neighbours: neither the
    first nor the last character of a token comes before those of the previous token.

    Args:
        encoding: the tokens of the text.
        added: how many tokens the tokenizer added itself.
        rendered: the text and its spans.
    """
    import numpy as np

    first, last = 0, len(encoding)
    if added:
        while first < last and encoding.token_to_chars(first) is None:
            first += 1
        while last > first and encoding.token_to_chars(last - 1) is None:
            last -= 1
        if first + len(encoding) - last != added:  # added tokens are also between the others
            return parts_of_all(encoding, rendered)
    parts = np.zeros(len(encoding), dtype=np.uint8)
    if first < last:
        for span in rendered.spans:
            if span.start < span.stop:
                begin = _token_from(span.start, encoding, first, last)
                parts[begin : _token_from(span.stop, encoding, first, last)] = span.part
    return parts


def _token_from(character: int, encoding: Encoding, first: int, last: int) -> int:
    """Return the first of the tokens ``first`` to ``last`` that belongs to a character or later."""
    token = encoding.char_to_token(character)
    if token is None:  # trimmed away, or the end of the text
        token = bisect_left(
            range(first, last), character + 1, key=lambda place: _stop(encoding, place)
        )
        token += first
    # Tokens without characters before it are word marks, unless one is a space trimmed away.
    while token > first and encoding.token_to_chars(token - 1) == (character, character):
        token -= 1
        before = _stop(encoding, token - 1) if token > first else 0
        if before < character:
            return token + 1
    return token


def _stop(encoding: Encoding, token: int) -> int:
    place = encoding.token_to_chars(token)
    if place is None:
        raise RuntimeError(f"token {token} has no position in the text")
    return place[1]
