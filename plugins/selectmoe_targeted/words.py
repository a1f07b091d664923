"""BM25 of target examples over the pool, as a sparse product of blocks."""

from collections.abc import Iterator

import bm25s
import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from selectmoe_core import Example, StageError
from selectmoe_core.data import Pool
from selectmoe_targeted.config import Bm25Config
from selectmoe_targeted.sources import NOTHING


class Words:
    """BM25 of the pool's rows for each target as a query, over the largest that it gives.

    Args:
        pool: the pool.
        targets: the target examples.
        config: the options.

    Raises:
        StageError: no text of the pool has a word.
    """

    def __init__(self, pool: Pool, targets: Pool, config: Bm25Config) -> None:
        self._block = config.block_rows
        self.rows = len(pool)
        texts = (_text(example, config.text) for example in pool.examples())
        tokens = bm25s.tokenize(list(texts), show_progress=False)
        if not tokens.vocab:
            raise StageError("no text of the pool has a word", hint="check the option 'text'")
        index = bm25s.BM25(k1=config.k1, b=config.b)
        index.index(tokens, show_progress=False)
        scores = index.scores
        shape = self.rows, len(scores["indptr"]) - 1
        columns = sparse.csc_matrix((scores["data"], scores["indices"], scores["indptr"]), shape)
        # In the order of the alphabet: sums are then rounded alike whatever the pool's order is.
        # The vocabulary has an empty word too, without a column.
        known = sorted((word, at) for word, at in index.vocab_dict.items() if at < shape[1])
        columns = columns[:, [at for _, at in known]]
        self._weights = columns.tocsr().astype(np.float32)
        self._known = np.diff(self._weights.indptr) > 0
        places = {word: place for place, (word, _) in enumerate(known)}
        self._queries = _queries(targets, places, config.text)
        largest = self._largest()
        self.empty = largest <= 0
        self._queries = self._queries @ sparse.diags(1 / np.where(self.empty, 1, largest))

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the scores block by block."""
        for first in range(0, self.rows, self._block):
            yield first, self.some(np.arange(first, min(self.rows, first + self._block)))

    def some(self, rows: np.ndarray) -> Tensor:
        """Return the scores of some rows."""
        found = (self._weights[rows] @ self._queries).toarray().astype(np.float32)
        found[~self._known[rows]] = NOTHING
        return torch.from_numpy(found)

    def _largest(self) -> np.ndarray:
        largest = np.zeros(self._queries.shape[1])
        for first in range(0, self.rows, self._block):
            some = (self._weights[first : first + self._block] @ self._queries).max(axis=0)
            largest = np.maximum(largest, some.toarray()[0])
        return largest


def _queries(targets: Pool, vocabulary: dict[str, int], text: str) -> sparse.csc_matrix:
    """Return how often each word of the pool comes in each target, ``[words, targets]``."""
    texts = [_text(example, text) for example in targets.examples()]
    words = bm25s.tokenize(texts, return_ids=False, show_progress=False)
    columns = [
        (vocabulary[word], column)
        for column, own in enumerate(words)
        for word in own
        if word in vocabulary
    ]
    places = np.array(columns, dtype=np.int64).reshape(-1, 2)
    ones = np.ones(len(places), dtype=np.float32)
    return sparse.coo_matrix((ones, places.T), shape=(len(vocabulary), len(texts))).tocsc()


def _text(example: Example, which: str) -> str:
    if which == "prompt":
        return example.prompt
    if which == "response":
        return example.response
    return "\n".join(message.content for message in example.messages)
