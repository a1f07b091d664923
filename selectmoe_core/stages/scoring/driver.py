"""The work on shards, whatever is made of them: claimed, computed, written behind, resumed."""

import logging
import sys
import time
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from selectmoe_core.data.pool import Pool
from selectmoe_core.data.scores import features_path
from selectmoe_core.plugin.protocols import Job, Shard
from selectmoe_core.runtime.distributed import barrier
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.scoring.claims import Claims, of_all
from selectmoe_core.stages.scoring.cuts import Cut, shards_of
from selectmoe_core.stages.scoring.elsewhere import forget_failed, make_elsewhere
from selectmoe_core.stages.scoring.pipeline import Stretch, written_behind
from selectmoe_core.stages.scoring.work import Bar, MadeT, Work
from selectmoe_core.stages.token_cache import tokens_meanwhile
from selectmoe_core.store import write_json
from selectmoe_core.tokens.encoding import Encoded

log = logging.getLogger("selectmoe.shards")

TOKENS = "tokens.json"


def make_shards(context: Context, pool: Pool, work: Work[MadeT]) -> list[Cut]:
    """Make the missing shards of a pool, together with the other processes; return all cuts.

    Returns when this process has no more to do: others may still be at work.
    """
    spec = context.spec
    loud = spec.progress != "none" and context.job.world.main
    say = _say if loud else _say_nothing
    claims = Claims(context.claims, joins=spec.joins, leaves_at=spec.leaves_at, say=say)
    with claims:
        return _make_missing(context, pool, work, claims)


def _make_missing(context: Context, pool: Pool, work: Work[MadeT], claims: Claims) -> list[Cut]:
    since = time.monotonic()
    cuts = shards_of(context, pool)
    if context.job.world.main and not context.spec.joins:
        forget_failed(context.folder, work.path)
        context.store.fetch_files(context.folder)
        _remove_damaged(context, cuts, work, claims)
    barrier()  # nobody looks for shards before the damaged ones are gone
    with tokens_meanwhile(context) as (job, tokens):

        def write(shard: Shard, made: MadeT) -> None:
            work.write(shard, made if tokens is None else work.settle(tokens, shard, made))
            # The features first: the file of the scores says that a shard is made.
            features = features_path(context.folder, shard.number)
            for path in (features, work.path(shard.number)):
                if path.is_file():
                    context.store.publish_file(path)

        elsewhere = {context.folder / name for name in context.store.names_of(context.folder)}
        todo = [cut for cut in cuts if not (work.is_made(cut[0]) or work.path(cut[0]) in elsewhere)]
        mine = claims.spread(todo, lambda number: context.store.has_file(work.path(number)))
        if todo or not (context.spec.joins or work.is_whole()):
            done = len(pool) - sum(stop - start for _, start, stop in todo)
            if not context.spec.joins:  # shards that another host made may not be here
                work.resumes(done)
            bar = Bar(len(pool), done, todo, since)
            if context.spec.maker is not None:
                make_elsewhere(context, pool, work, bar)
            else:
                _make_each(context, pool, job, mine, replace(work, write=write), bar)
        if tokens is not None and job.world.main and not context.spec.joins:
            _note_tokens(context, tokens)
    if context.job.world.main and not context.spec.joins:
        context.store.fetch_files(context.folder)
    return cuts


def _make_each(
    context: Context, pool: Pool, job: Job, mine: Iterable[Cut], work: Work[MadeT], bar: Bar
) -> None:
    """Compute the shards in turn; results are fetched and written while later ones are computed."""
    with (
        work.opened(job) as part,
        job.progress.task(work.verb, bar.total, done=bar.done) as advance,
    ):
        ready, examples = time.monotonic(), 0
        log.info("%s: %.2f s of start-up", context.spec.key, ready - bar.since)
        begin = work.beginner(part)
        by_all = of_all(advance, bar.todo, work.is_made)
        with written_behind(work.write, by_all) as hand_over:
            for number, start, stop in mine:
                shard = Shard(number, np.arange(start, stop), Stretch(pool, start, stop))
                hand_over(shard, begin(shard))
                examples += stop - start
        seconds = time.monotonic() - ready
        log.info("%s: %d examples %s in %.2f s", context.spec.key, examples, work.done, seconds)
        if work.at_last is not None and not context.spec.joins:
            barrier()  # until every process has made its shards
            if job.world.main:
                context.store.fetch_files(context.folder)
                work.at_last(part)


def _remove_damaged(context: Context, cuts: list[Cut], work: Work[MadeT], claims: Claims) -> None:
    """Remove damaged shards of an earlier run, say which, and let them be claimed again."""
    before = [number for number, _, _ in cuts if work.is_made(number)]
    for problem in work.remove_damaged(cuts):
        print(f"  warning: {context.spec.key}: {problem}: {work.done} again", file=sys.stderr)  # noqa: T201
    gone = [number for number in before if not work.is_made(number)]
    for number in gone:
        context.store.remove_file(work.path(number))
    claims.again(gone)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr)  # noqa: T201


def _say_nothing(_: str) -> None:
    """Print nothing."""


def _note_tokens(context: Context, encoded: Encoded) -> None:
    """Store the token counts per source for the report."""
    counts = {name: vars(source) for name, source in encoded.sources.items()}
    model = str(context.job.inputs.model)
    found = {"tokenizer": model, "encoded": encoded.folder.name, "sources": counts}
    write_json(context.folder / TOKENS, found)
