"""The pool's tokens while they are being made: a scorer reads the first ones meanwhile."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace

from selectmoe_core.chat import Tokenizer
from selectmoe_core.encoding import Encoded
from selectmoe_core.growing import Growth
from selectmoe_core.protocols import Job, Need
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.encoded import encoded_pool, tokenizer_digest, tokens_folder

LAST_WORDS = 10.0
"""Seconds that a thread gets to end a piece and to note it."""


@dataclass(frozen=True)
class Coming:
    """A job whose ``encoded`` gives what is being made, and the tokens once they are whole.

    Attributes:
        job: the job to score with.
        tokens: the pool's tokens under the job's model, or ``None`` where the scorer reads none.
    """

    job: Job
    tokens: Future[Encoded] | None = None


@contextmanager
def coming_tokens(context: Context) -> Iterator[Coming]:
    """Have the pool tokenised, where the scorer reads tokens, and yield before that is done.

    One of several processes makes them for all while the others wait for it, and processes may
    wait for each other in their main thread only: there it is done before anything else.
    """
    job = context.job
    needed = Need.TOKENS in context.component.needs(context.config)
    if not needed or job.inputs.model is None:
        yield Coming(job)
        return
    tokenizer = job.models.tokenizer(job.inputs.model)
    own = tokenizer_digest(tokenizer)
    if job.world.size > 1:
        whole: Future[Encoded] = Future()
        whole.set_result(job.encoded(tokenizer))
        yield Coming(_sharing(job, own, whole.result), whole)
        return
    growth = Growth(tokens_folder(context.work, job.chat, own), job.chat)
    thread = ThreadPoolExecutor(1, "selectmoe-tokenise")
    order = context.work, job.chat, tokenizer, job.progress, growth.add
    made = thread.submit(encoded_pool, *order)
    try:
        growth.ends_with(made)
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

    return replace(job, encoded=encoded)
