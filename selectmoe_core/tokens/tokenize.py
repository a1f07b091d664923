"""Tokenising a whole pool over all cores: by threads, or processes where that pays."""

import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from selectmoe_core.data.pool import Pool
from selectmoe_core.runtime.processes import die_with_parent
from selectmoe_core.runtime.progress import Advance
from selectmoe_core.tokens.chat import ChatFormat, Tokenizer
from selectmoe_core.tokens.encoding import Encoded, encode, piece_of, write_pieces
from selectmoe_core.tokens.files import NOTHING, Kept, Piece

LARGE = 1_000_000
"""Examples from which it pays to start processes, which takes seconds."""
LARGE_RENDERED = 20_000
"""The same where a Jinja template renders them, in Python, one thread at a time."""
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
    """Tokenise a pool into ``folder``, in bounded memory; how many processes changes no byte.

    Where it is interrupted, ``Kept.of(folder)`` says behind what another call can go on.

    The tokenizers library spreads a batch over threads of its own and needs no other process for
    that; what it leaves to Python (rendering, borders, writing) is one thread's work.

    Args:
        pool: the examples.
        folder: where the tokens go.
        chat: how they are rendered.
        tokenizer: the tokenizer; it must be one that can be pickled.
        advance: is told the examples done by this call.
        processes: how many to start; left out, one a core where they pay, else none.
        kept: what an earlier call left of the same pool, format and tokenizer.
    """
    if processes is None:
        # Code that a checkpoint brings is known to this process alone.
        foreign = type(tokenizer).__module__.startswith("transformers_modules")
        left = len(pool) - kept.rows
        large = LARGE if chat.config.template == "tulu" else LARGE_RENDERED
        processes = _cores() if left >= large and not foreign else 1
    if processes < 2:
        return encode(pool.examples(kept.rows), folder, chat, tokenizer, advance, kept)
    pieces = _pieces(pool, kept.rows, chat, tokenizer, processes)
    return write_pieces(pieces, folder, chat, advance, kept)


def _cores() -> int:
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1)


def _pieces(
    pool: Pool, begin: int, chat: ChatFormat, tokenizer: Tokenizer, processes: int
) -> Iterator[Piece]:
    """Yield the pieces from row ``begin`` on, in order, a few a process ahead of who takes them."""
    # Forked from a server that has no threads: a fork of this process would take its locks along.
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
"""Of a process that tokenises: the open pool, the chat format and the tokenizer."""


def _begin(order: bytes) -> None:
    """Prepare a process: it ends with its parent, and is one thread of many."""
    global _at_work  # noqa: PLW0603
    die_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends this process
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    folder, chat, tokenizer = pickle.loads(order)
    _at_work = Pool.open(folder), chat, tokenizer


def _piece(start: int, stop: int) -> Piece:
    pool, chat, tokenizer = _at_work
    return piece_of(pool.examples(start, stop), chat, tokenizer)
