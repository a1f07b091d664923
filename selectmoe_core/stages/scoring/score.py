"""``score``: the pool in shards, each scored and written once; finished shards are kept."""

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np

from selectmoe_core.data.final_scores import replace_scores
from selectmoe_core.data.pool import Pool
from selectmoe_core.data.scores import (
    KERNEL,
    SCORES,
    ScoreTable,
    ShardScores,
    part_path,
    write_part,
)
from selectmoe_core.errors import StageError
from selectmoe_core.plugin.protocols import Need, Shard
from selectmoe_core.runtime.distributed import barrier
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.scoring.claims import forget_claims
from selectmoe_core.stages.scoring.cuts import shards_of
from selectmoe_core.stages.scoring.driver import TOKENS, make_shards
from selectmoe_core.stages.scoring.finished import remove_damaged_scores
from selectmoe_core.stages.scoring.left_behind import FAILED_REASON, scores_of_none
from selectmoe_core.stages.scoring.shading import is_shaded, shade
from selectmoe_core.stages.scoring.work import FailedShard, Work
from selectmoe_core.store import Facts
from selectmoe_core.tokens.encoding import Encoded
from selectmoe_core.tokens.unrendered import REASON, among

AGREED = ".kernel"
"""The file that names the kernel of the first shard."""
MAX_SKIPPED = 0.01
"""The share of the pool that may be skipped if neither recipe nor scorer sets a limit."""


def run(context: Context) -> Facts:
    """Score every example, or give a reason why it has no score.

    If several processes score, the first returns the facts.
    """
    pool = context.pool()
    main = context.job.world.main
    if Need.SCORES not in context.component.needs(context.config):
        make_shards(context, pool, shard_work(context, pool))
    elif main:
        _combine(context, pool)
    barrier()  # the table must not be opened before every process has written its shards
    if not main:
        return {}
    worked = forget_claims(context.claims, context.folder)
    (context.folder / AGREED).unlink(missing_ok=True)
    table = ScoreTable.open(context.folder)
    if len(table) != len(pool):
        raise StageError(
            f"{len(table)} scores for a pool of {len(pool)} examples",
            hint="rerun the stage with --fresh score",
        )
    warnings = _finish(context, table)
    facts = {**_facts(context, table), **worked}
    if lost := facts["skipped"].get(FAILED_REASON):
        again = "rerun the stage with --fresh score to try them again"
        warnings = (*warnings, f"{lost:,} examples were left out: {FAILED_REASON}; {again}")
    if warnings:
        facts["warnings"] = list(warnings)
    _check(facts, context)
    return facts


def join(context: Context) -> None:
    """Score shards beside other processes; the run that finishes the stage does the rest."""
    pool = context.pool()
    make_shards(context, pool, shard_work(context, pool))


def shard_work(context: Context, pool: Pool) -> Work[ShardScores]:
    """Return what the stage makes of each shard."""
    before: list[str | None] = []

    def resumes(done: int) -> None:
        if done:
            before.extend(_kernels(ScoreTable.open(context.folder)))

    def write(shard: Shard, scores: ShardScores) -> None:
        if not before:
            before.append(_agreed_kernel(context, scores.kernel))
        _check_kernel(before, scores.kernel)
        _write(context, pool, shard, scores)

    def same_kernel(kernel: str | None) -> None:
        before.extend([kernel] if kernel and not before else [])
        _check_kernel(before, kernel)

    return Work(
        verb="score",
        done="scored",
        opened=context.part.open,
        path=partial(part_path, context.folder),
        write=write,
        remove_damaged=partial(remove_damaged_scores, context.folder),
        resumes=resumes,
        at_last=partial(shade, context, pool),
        is_whole=partial(is_shaded, context.folder),
        settle=partial(_without_unrendered, context.spec.skips),
        kernel=attrgetter("kernel"),
        same_kernel=same_kernel,
        leave_out=partial(_leave_out, context, pool),
    )


def _leave_out(context: Context, pool: Pool, failed: Sequence[FailedShard]) -> None:
    """Write shards that could not be made: no row of them has a score."""
    for number, start, stop in (shard.cut for shard in failed):
        scores = scores_of_none(context.folder, stop - start)
        _write(context, pool, Shard(number, np.arange(start, stop), ()), scores)


def _without_unrendered(
    skips: bool, tokens: Encoded, shard: Shard, scores: ShardScores
) -> ShardScores:
    """Return the scores without those of rows that the chat format cannot render."""
    out = among(tokens, shard.rows) if skips else np.zeros(0, dtype=bool)
    if not out.any():
        return scores
    reasons = scores.skipped if scores.skipped is not None else [None] * len(out)
    return replace(
        scores,
        score=np.where(out, np.nan, scores.score),
        skipped=[REASON if gone else why for gone, why in zip(out.tolist(), reasons, strict=True)],
    )


def _finish(context: Context, table: ScoreTable) -> tuple[str, ...]:
    """Let a scorer with ``finish`` compute its final scores; return its warnings."""
    finish = getattr(context.part, "finish", None)
    if finish is None:
        return ()
    finished = finish(table)
    if finished.score is not None:
        replace_scores(table, finished.score, finished.skipped)
    for text in finished.warnings:
        print(f"  warning: {context.spec.key}: {text}", file=sys.stderr)  # noqa: T201
    return tuple(finished.warnings)


def _kernels(table: ScoreTable) -> list[str]:
    """Return the kernels that a table's parts name: none or one."""
    import pyarrow.parquet as pq

    named = ((pq.read_schema(part).metadata or {}).get(KERNEL.encode()) for part in table.parts)
    return sorted({name.decode() for name in named if name is not None})


def _agreed_kernel(context: Context, kernel: str | None) -> str | None:
    """Return the kernel of the first shard, among all processes that score at the same time."""
    path = context.folder / AGREED
    context.store.agree(path, kernel or "")
    return path.read_text(encoding="utf-8") or None


def _check_kernel(before: Sequence[str | None], now: str | None) -> None:
    """Raise if finished shards were scored by another kernel."""
    if before and list(before) != [now]:
        raise StageError(
            f"the scores were begun with the kernel '{before[0]}' and cannot go on with '{now}': "
            "they would be a mixture",
            hint="continue on the machine where they were begun, or rerun with --fresh score",
        )


def _write(context: Context, pool: Pool, shard: Shard, scores: ShardScores) -> None:
    import pyarrow as pa

    start, stop = int(shard.rows[0]), int(shard.rows[-1]) + 1
    ids = pa.chunked_array([b.column("id") for b in pool.batches(start, stop)]).combine_chunks()
    write_part(context.folder, shard.number, ids, pool.source_names(start, stop), scores)


def _combine(context: Context, pool: Pool) -> None:
    tables = {name: ScoreTable.open(folder) for name, folder in context.job.inputs.scores.items()}
    scores: ShardScores = context.part.combine(tables, context.job)
    if len(scores.score) != len(pool):
        raise StageError(f"the scorer combined {len(scores.score)} scores for {len(pool)} examples")
    for number, start, stop in shards_of(context, pool):
        piece = ShardScores(
            scores.score[start:stop],
            scores.skipped[start:stop] if scores.skipped is not None else None,
            {name: detail[start:stop] for name, detail in scores.details.items()},
            scores.features[start:stop] if scores.features is not None else None,
            scores.kernel,
        )
        _write(context, pool, Shard(number, np.arange(start, stop), ()), piece)


def _facts(context: Context, table: ScoreTable) -> dict[str, Any]:
    score = table.score()
    scored = score[np.isfinite(score)]
    facts: dict[str, Any] = {
        "examples": len(score),
        "scored": len(scored),
        "skipped": table.skipped(),
        "skipped_by_source": _skipped_by_source(table, score),
    }
    if kernels := _kernels(table):
        _check_kernel(kernels[:1], kernels[-1])
        facts["kernel"] = kernels[0]
    if len(scored):
        facts |= {
            "mean": float(scored.mean()),
            "std": float(scored.std()),
            "min": float(scored.min()),
            "max": float(scored.max()),
        }
    if meanings := context.component.details(context.config):
        facts["details"] = {name: asdict(meaning) for name, meaning in meanings.items()}
    tokens = context.folder / TOKENS
    if tokens.is_file():
        facts["tokens"] = json.loads(tokens.read_text(encoding="utf-8"))
    return facts


def _skipped_by_source(table: ScoreTable, score: np.ndarray) -> dict[str, int]:
    codes, names = table.sources()
    counts = Counter(codes[~np.isfinite(score)].tolist())
    return {names[code]: count for code, count in sorted(counts.items())}


def _check(facts: Mapping[str, Any], context: Context) -> None:
    """Raise if too many examples have no score, or if all scores are equal."""
    examples, scored = facts["examples"], facts["scored"]
    limit, skipped = _max_skipped(context), examples - scored
    share = skipped / examples
    # One row says nothing about a pool, unless the recipe names a limit.
    single = skipped == 1 and context.spec.own.get("max_skipped") is None
    reasons = "; ".join(f"{count} x {why}" for why, count in facts["skipped"].items())
    if not scored:  # first, because allowing more skipped rows would not help
        raise StageError(
            f"none of {examples} examples has a score: {reasons}",
            hint="check the scorer's options, the chat format and the model that it reads",
        )
    if share > limit and not single:
        raise StageError(
            f"{skipped} of {examples} examples ({share:.1%}) have no score, more than "
            f"max_skipped = {limit:.1%}: {reasons}",
            hint="fix these rows, or allow this many: "
            f"max_skipped = {math.ceil(share * 100) / 100} in {context.spec.where}",
        )
    if scored > 1 and facts["min"] == facts["max"]:
        raise StageError(
            f"all {scored} scores are equal ({facts['min']}): nothing can be selected by them",
            hint="check the scorer's options and the model that it reads",
        )


def _max_skipped(context: Context) -> float:
    """Return the share that may be skipped: the recipe's limit, the scorer's rule, or 1 %."""
    limit = context.spec.own.get("max_skipped")
    if limit is not None:
        return float(limit)
    rule = context.component.max_skipped
    return MAX_SKIPPED if rule is None else float(rule(context.config))


__all__ = ["SCORES", "run"]
