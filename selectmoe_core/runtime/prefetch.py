"""Work that other threads do in advance, with its results in order."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

GivenT = TypeVar("GivenT")
FoundT = TypeVar("FoundT")

THREADS, AHEAD = 2, 4


def ahead(work: Callable[[GivenT], FoundT], items: Sequence[GivenT]) -> Iterator[FoundT]:
    """Yield the result of ``work`` for each item, in order; at most ``AHEAD`` results are held.

    This helps if ``work`` releases Python's lock, as reading a column of a Parquet file does.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        coming = deque(pool.submit(work, item) for item in items[:AHEAD])
        for item in items[AHEAD:]:
            found = coming.popleft().result()
            coming.append(pool.submit(work, item))
            yield found
        while coming:
            yield coming.popleft().result()
