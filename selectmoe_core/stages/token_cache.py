"""The tokens of the whole pool for a tokenizer: made once, and readable while they are made."""

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from selectmoe_core.data.pool import Pool
from selectmoe_core.errors import StageError
from selectmoe_core.plugin.protocols import Job, Need
from selectmoe_core.remote.cache import store_at
from selectmoe_core.runtime.distributed import barrier, on_one_host
from selectmoe_core.runtime.progress import Advance, Progress
from selectmoe_core.stages.code import Code
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.store import Artifact, Facts
from selectmoe_core.tokens.chat import ChatFormat
from selectmoe_core.tokens.encoding import Encoded
from selectmoe_core.tokens.files import Kept, rows_written
from selectmoe_core.tokens.partial import LOOK, PartialEncoded
from selectmoe_core.tokens.tokenize import encode_pool
from selectmoe_core.tokens.tokenizer import Tokenizer
from selectmoe_core.tokens.unrendered import note

log = logging.getLogger("selectmoe.encoded")

STAGE = "encoded"
LAST_WORDS = 10.0
"""Seconds that the tokenising thread has to finish and record a piece."""


def tokenizer_digest(tokenizer: Any) -> str:  # noqa: ANN401
    """Return what identifies a tokenizer: its whole definition, independent of its location."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise StageError("a slow tokenizer cannot be used", hint="use one with a tokenizer.json")
    definition = json.dumps(
        [backend.to_str(), tokenizer.eos_token, tokenizer.bos_token, tokenizer.chat_template],
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(definition.encode()).hexdigest()


def tokens_digest(spec: NodeSpec, chat: ChatFormat, tokenizer: str) -> str:
    """Return the digest of a pool's tokens: it covers pool, chat format, tokenizer and our code."""
    content = [spec.input_digests[spec.rows_of], chat.digest, tokenizer, _code()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@cache
def _code() -> str:
    """Return the digest of the code that tokenises."""
    roots = ("tokenize", "encode_pool"), ("chat", "ChatFormat")
    modules = ((f"selectmoe_core.tokens.{name}", root) for name, root in roots)
    return Code.installed(()).digest(modules)


def encoded_pool(
    spec: NodeSpec, chat: ChatFormat, tokenizer: Tokenizer, progress: Progress
) -> Encoded:
    """Return the tokens of the pool that a node reads; tokenise if that has not been done yet."""
    return TokenCache(spec, chat, tokenizer).make(progress)


class TokenCache:
    """A pool's tokens for one tokenizer: an artifact that all readers share.

    There are two sources. Either this process makes the tokens, in a thread if they are read
    meanwhile; or another process on this host makes them, and this one reads what it writes.

    Args:
        spec: a node that reads the pool.
        chat: how the examples are rendered.
        tokenizer: the tokenizer.
    """

    def __init__(self, spec: NodeSpec, chat: ChatFormat, tokenizer: Tokenizer) -> None:
        self.spec, self.chat, self.tokenizer = spec, chat, tokenizer
        self.tokenizer_digest = tokenizer_digest(tokenizer)
        self.digest = tokens_digest(spec, chat, self.tokenizer_digest)
        self.store = store_at(spec.store)
        self.folder = self.store.folder(STAGE, self.digest)

    def find(self) -> Encoded | None:
        """Return the tokens, or ``None`` if they are not complete yet.

        Raises:
            StageError: a file is missing or shorter than when the tokens were written.
        """
        artifact = self.store.find(STAGE, self.digest)
        if artifact is None:
            return None
        self.store.fetch(STAGE, self.digest)
        encoded = Encoded.open(self.folder, self.chat)
        if not encoded.holds(int(artifact.facts["examples"]), int(artifact.facts["tokens"])):
            raise StageError(
                f"the tokens in {self.folder} are damaged",
                hint=f"remove the folder {self.folder}; the next run makes them again",
            )
        return encoded

    def make(self, progress: Progress, written: Advance = lambda _: None) -> Encoded:
        """Return the tokens; tokenise if that has not been done yet.

        Args:
            progress: shows the progress.
            written: called with the number of new rows that can be read; the first call reports
                those that existed before, or 0.
        """
        found = self.find()
        if found is None:
            with self.store.lock(STAGE, self.digest, lambda text: print(text, file=sys.stderr)):  # noqa: T201
                if damage := self.store.clear_damage(STAGE, self.digest):
                    print(f"  warning: {damage}; tokens are made again", file=sys.stderr)  # noqa: T201
                # Another run may have made them meanwhile.
                if self.store.find(STAGE, self.digest) is None:
                    facts = self._tokenise(progress, written)
                    Artifact(STAGE, "tokenizer", self.digest, self.folder, facts).save()
                    self.store.publish(STAGE, self.digest)
            found = self.find()
        assert found is not None
        return found

    def _tokenise(self, progress: Progress, written: Advance) -> Facts:
        """Tokenise the pool, starting where an earlier run stopped."""
        pool, begin = Pool.open(self.spec.inputs[self.spec.rows_of]), time.monotonic()
        kept = Kept.of(self.folder)
        if kept.rows:
            log.info("%d examples had been tokenised before", kept.rows)
        kept.cut(self.folder)  # before rows are announced, so that no reader is past the cut
        written(kept.rows)
        with progress.task("tokenise", len(pool), done=kept.rows) as advance:

            def made(rows: float) -> None:
                written(rows)
                advance(rows)

            encoded = encode_pool(pool, self.folder, self.chat, self.tokenizer, made, kept=kept)
        seconds = time.monotonic() - begin
        log.info("%d examples, %d tokens made in %.2f s", len(encoded), encoded.tokens, seconds)
        truncated = int(encoded.cut.sum())
        if truncated and self.spec.progress != "none":
            what = f"{truncated:,} of {len(encoded):,} examples"
            limit = f"{self.chat.config.max_length:,} tokens"
            print(f"  truncated: {what} at {limit}", file=sys.stderr)  # noqa: T201
        left_out = self._left_out(pool, encoded) if self.chat.skips else {}
        return {"examples": len(encoded), "tokens": encoded.tokens, **left_out}

    def _left_out(self, pool: Pool, encoded: Encoded) -> Facts:
        """Note and report the rows that the chat format cannot render."""
        found = note(self.folder, pool, encoded, self.chat, self.tokenizer)
        if found and self.spec.progress != "none":
            what = f"{len(found):,} rows that cannot be rendered, the first at {found[0].where}"
            print(f"  left out: {what}: {found[0].reason}", file=sys.stderr)  # noqa: T201
        return {"left_out": len(found)} if found else {}

    @contextmanager
    def made_meanwhile(self, job: Job) -> Iterator[PartialEncoded]:
        """Let a thread make the tokens, and yield before it has finished.

        If the block ends with an error or an interrupt, the thread stops at its next rows; what it
        has made is kept.
        """
        rows: int | None = None  # not known until the files of an earlier run have been checked
        stopped = False

        def add(further: float) -> None:
            nonlocal rows
            if stopped:
                raise CancelledError
            rows = (rows or 0) + int(further)

        thread = ThreadPoolExecutor(1, "selectmoe-tokenise")
        made = thread.submit(self.make, job.progress, add)
        try:
            if job.world.size > 1:  # here, because only this thread may wait for other processes
                while rows is None and not made.done():
                    time.sleep(LOOK)
                barrier()
            yield PartialEncoded(
                self.folder,
                self.chat,
                whole=lambda: made.result() if made.done() else None,
                rows_written=lambda: rows or 0,
            )
        except BaseException:
            stopped = True
            if rows:  # the process may end next: let the thread record how far it came
                wait([made], LAST_WORDS)
            raise
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    def followed(self) -> PartialEncoded:
        """Return the tokens that another process on this host makes or has made."""
        barrier()  # until here, files of an earlier run may be cut
        return PartialEncoded(
            self.folder,
            self.chat,
            whole=self.find,
            rows_written=partial(rows_written, self.folder),
        )


@contextmanager
def tokens_meanwhile(context: Context) -> Iterator[tuple[Job, Encoded | None]]:
    """Yield a job whose ``encoded`` is readable while the pool is tokenised, and the tokens.

    One of several processes makes them for all; processes on one host read them meanwhile. With
    several hosts, files that one writes may be visible late on another, so the tokens are made
    before anything else; so they are where an executor has shards made. If the scorer reads no
    tokens, there are none.
    """
    job = context.job
    needs = context.component.needs(context.config)
    if not {Need.TOKENS, Need.MODEL} <= needs or job.inputs.model is None:
        yield job, None
        return
    tokenizer = job.models.tokenizer(job.inputs.model)
    cache = TokenCache(context.spec, job.chat, tokenizer)
    if not on_one_host(job.world) or context.spec.maker is not None:
        whole = job.encoded(tokenizer)
        yield _sharing(job, cache, lambda: whole), whole
    elif job.world.main:
        with cache.made_meanwhile(job) as tokens:
            yield _sharing(job, cache, tokens.now), tokens
    else:
        tokens = cache.followed()
        yield _sharing(job, cache, tokens.now), tokens


def _sharing(job: Job, cache: TokenCache, tokens: Callable[[], Encoded]) -> Job:
    """Return the job with ``tokens`` for a part that uses the cache's tokenizer."""

    def encoded(asked: Tokenizer) -> Encoded:
        own = tokenizer_digest(asked) == cache.tokenizer_digest
        return tokens() if own else job.encoded(asked)

    return job.changed(encoded=encoded)
