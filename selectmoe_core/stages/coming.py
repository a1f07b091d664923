"""The pool's tokens while they are being made: a scorer's model is loaded meanwhile."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from selectmoe_core.chat import Tokenizer
from selectmoe_core.encoding import Encoded
from selectmoe_core.protocols import Job, Need
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.encoded import tokenizer_digest


@dataclass(frozen=True)
class Coming:
    """A job whose ``encoded`` waits for what is being made, and the tokens themselves.

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
    if job.world.size > 1:
        made: Future[Encoded] = Future()
        made.set_result(job.encoded(tokenizer))
        yield _shared(job, tokenizer, made)
        return
    thread = ThreadPoolExecutor(1, "selectmoe-tokenise")
    try:
        yield _shared(job, tokenizer, thread.submit(job.encoded, tokenizer))
    finally:
        # Where scoring was stopped, nobody waits for the tokens.
        thread.shutdown(wait=False, cancel_futures=True)


def _shared(job: Job, tokenizer: Any, coming: Future[Encoded]) -> Coming:  # noqa: ANN401
    own = tokenizer_digest(tokenizer)

    def encoded(asked: Tokenizer) -> Encoded:
        return coming.result() if tokenizer_digest(asked) == own else job.encoded(asked)

    return Coming(replace(job, encoded=encoded), coming)
