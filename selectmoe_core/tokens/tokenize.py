"""Tokenising a whole pool on all cores: with threads, or with processes if that is faster."""

import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selectmoe_core.data.pool import Pool
from selectmoe_core.errors import ModelError
from selectmoe_core.runtime.processes import die_with_parent
from selectmoe_core.runtime.progress import Advance
from selectmoe_core.tokens.chat import ChatFormat
from selectmoe_core.tokens.encoding import Encoded, encode, piece_of, write_pieces
from selectmoe_core.tokens.files import NOTHING, Kept, Piece
from selectmoe_core.tokens.templates import RowError
from selectmoe_core.tokens.tokenizer import Tokenizer

LARGE = 1_000_000
"""Number of examples from which processes, whose start takes seconds, are faster."""
LARGE_RENDERED = 20_000
"""The same for a Jinja template, which renders them in Python, one thread at a time."""
MOST_PROCESSES = 32
ROWS = 512


def encode_pool(
    pool: Pool,
    folder: Path,
    chat: ChatFormat,
    tokenizer: Tokenizer,
    advance: Advance = lambda _: None,
    *,
    processes: int | None = None,
    kept: Kept = NOTHING,
) -> Encoded:
    """Tokenise a pool into ``folder``, in bounded memory; the result does not depend on processes.

    After an interrupt, ``Kept.of(folder)`` says where another call can continue.

    The tokenizers library uses its own threads for a batch; the rest, in Python (rendering,
    borders, writing), is the work of one thread.

    Args:
        pool: the examples.
        folder: the folder for the tokens.
        chat: how they are rendered.
        tokenizer: the tokenizer; it must be one that can be pickled.
        advance: called with the number of examples done.
        processes: how many to start; by default one per core if that is faster, otherwise none.
        kept: what an earlier call completed for the same pool, format and tokenizer.
    """
    if processes is None:
        # Code from a checkpoint is known only to this process.
        foreign = type(tokenizer).__module__.startswith("transformers_modules")
        left = len(pool) - kept.rows
        large = LARGE if chat.config.template == "tulu" else LARGE_RENDERED
        processes = _cores() if left >= large and not foreign else 1
    with rows_named(pool):
        if processes < 2:
            return encode(pool.examples(kept.rows), folder, chat, tokenizer, advance, kept)
        pieces = _pieces(pool, kept.rows, chat, tokenizer, processes)
        return write_pieces(pieces, folder, chat, advance, kept)


@contextmanager
def rows_named(pool: Pool) -> Iterator[None]:
    """Say in an error about a row of the pool where the row was found."""
    try:
        yield
    except RowError as error:
        rows = (row for row, one in enumerate(pool.examples()) if one.id == error.example)
        row = next(rows, None)
        where = place_of(pool, row) if row is not None else error.example
        raise ModelError(f"{where}: {error}", hint=error.hint) from error


def place_of(pool: Pool, row: int) -> str:
    """Return where a row of the pool was found, as in ``data.jsonl:2``."""
    return pool.meta(row).get("where") or f"row {row + 1} of the pool"


def _cores() -> int:
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1)


def _pieces(
    pool: Pool, begin: int, chat: ChatFormat, tokenizer: Tokenizer, processes: int
) -> Iterator[Piece]:
    """Yield the pieces from row ``begin`` on, in order; a few per process are made in advance."""
    # Forked from a server without threads: a fork of this process would copy held locks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, type(tokenizer).__module__])
    order = pickle.dumps((pool.folder, chat, tokenizer))
    starts = range(begin, len(pool), ROWS)
    ahead: deque[Future[Piece]] = deque()
    with ProcessPoolExecutor(processes, context, _begin, (order,)) as workers:
        try:
            for start in starts:
                ahead.append(workers.submit(_piece, start, min(start + ROWS, len(pool))))
                if len(ahead) > 4 * processes:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


_at_work: Any = None
"""The open pool, the chat format and the tokenizer of a process that tokenises."""


def _begin(order: bytes) -> None:
    """Prepare a process: it ends with its parent and uses one thread."""
    global _at_work  # noqa: PLW0603
    die_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends this process
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    folder, chat, tokenizer = pickle.loads(order)
    _at_work = Pool.open(folder), chat, tokenizer


def _piece(start: int, stop: int) -> Piece:
    pool, chat, tokenizer = _at_work
    return piece_of(pool.examples(start, stop), chat, tokenizer)
