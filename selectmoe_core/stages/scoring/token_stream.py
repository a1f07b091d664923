"""The pool's tokens while they are being made: a scorer reads the first ones meanwhile."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from selectmoe_core.plugin.protocols import Job, Need
from selectmoe_core.runtime.distributed import barrier, on_one_host
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.token_cache import (
    encoded_pool,
    found_tokens,
    tokenizer_digest,
    tokens_folder,
)
from selectmoe_core.tokens.chat import Tokenizer
from selectmoe_core.tokens.encoding import Encoded
from selectmoe_core.tokens.streaming import Followed, Growth

LAST_WORDS = 10.0
"""Seconds that a thread gets to end a piece and to note it."""


@dataclass(frozen=True)
class Coming:
    """A job whose ``encoded`` gives what is being made, and the tokens once they are whole.

    Attributes:
        job: the job to score with.
        tokens: the pool's tokens under the job's model; ``None`` where the scorer reads none, or
            another process makes them.
    """

    job: Job
    tokens: Future[Encoded] | None = None


@contextmanager
def coming_tokens(context: Context) -> Iterator[Coming]:
    """Have the pool tokenised, where the scorer reads tokens, and yield before that is done.

    One of several processes makes them for all, and those of one host read meanwhile. A host that
    shares files with others may be told late what one of these has written: there the tokens are
    made before anything else.
    """
    job = context.job
    needs = context.component.needs(context.config)
    if not {Need.TOKENS, Need.MODEL} <= needs or job.inputs.model is None:
        yield Coming(job)
        return
    tokenizer = job.models.tokenizer(job.inputs.model)
    own = tokenizer_digest(tokenizer)
    if not on_one_host(job.world):
        whole: Future[Encoded] = Future()
        whole.set_result(job.encoded(tokenizer))
        yield Coming(_sharing(job, own, whole.result), whole)
    elif job.world.main:
        with _made_meanwhile(context, tokenizer, own) as coming:
            yield coming
    else:
        barrier()  # what an earlier run left may be cut off until here
        folder = tokens_folder(context.spec, job.chat, own)
        find = partial(found_tokens, context.spec, job.chat, own)
        followed = Followed(folder, job.chat, find)
        yield Coming(_sharing(job, own, followed.tokens))


@contextmanager
def _made_meanwhile(context: Context, tokenizer: Tokenizer, own: str) -> Iterator[Coming]:
    """Have a thread make the tokens under the tokenizer of the digest ``own``."""
    job = context.job
    growth = Growth(tokens_folder(context.spec, job.chat, own), job.chat)
    thread = ThreadPoolExecutor(1, "selectmoe-tokenise")
    order = context.spec, job.chat, tokenizer, job.progress, growth.add
    made = thread.submit(encoded_pool, *order)
    try:
        growth.ends_with(made)
        if job.world.size > 1:  # in this thread: processes may wait for each other in no other
            growth.wait_for_files()
            barrier()
        yield Coming(_sharing(job, own, growth.tokens), made)
    except BaseException:
        growth.stop()
        if growth.begun:  # the process may end next: let the thread note how far it came
            wait([made], LAST_WORDS)
        raise
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def _sharing(job: Job, own: str, tokens: Callable[[], Encoded]) -> Job:
    """Return the job with ``tokens`` for whoever has the tokenizer of the digest ``own``."""

    def encoded(asked: Tokenizer) -> Encoded:
        return tokens() if tokenizer_digest(asked) == own else job.encoded(asked)

    return job.changed(encoded=encoded)
