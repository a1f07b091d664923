"""``score``: the pool in shards, each scored and written once; what is there is kept."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from selectmoe_core.artifacts import Facts, write_json
from selectmoe_core.encoding import Encoded
from selectmoe_core.errors import StageError
from selectmoe_core.pool import Pool
from selectmoe_core.protocols import Job, Need, Shard
from selectmoe_core.scores import SCORES, ScoreTable, ShardScores, part_path, write_part
from selectmoe_core.stages.context import Context

CUTS = "shards.json"
TOKENS = "tokens.json"


def run(context: Context) -> Facts:
    """Score every example, or give the reason why one has no score."""
    pool = context.pool()
    if Need.SCORES in context.component.needs(context.config):
        _combine(context, pool)
    else:
        _score_shards(context, pool)
    table = ScoreTable.open(context.folder)
    if len(table) != len(pool):
        raise StageError(
            f"{len(table)} scores for a pool of {len(pool)} examples",
            hint="start the stage anew with --fresh score",
        )
    facts = _facts(context, table)
    _check(facts, context)
    return facts


def shards(pool: Pool, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, first row and the row after the last of each shard."""
    for number, start in enumerate(range(0, len(pool), size)):
        yield number, start, min(start + size, len(pool))


def _score_shards(context: Context, pool: Pool) -> None:
    size = _shard_size(context)
    todo = [
        shard for shard in shards(pool, size) if not part_path(context.folder, shard[0]).is_file()
    ]
    world = context.job.world
    mine = [shard for shard in todo if shard[0] % world.size == world.rank]
    if not mine:
        return
    done = len(pool) - sum(stop - start for _, start, stop in todo)
    with (
        context.part.open(context.job) as scorer,
        context.job.progress.task("score", len(pool)) as advance,
    ):
        advance(done)
        for number, start, stop in mine:
            shard = Shard(number, np.arange(start, stop), list(pool.examples(start, stop)))
            _write(context, pool, shard, scorer.score(shard))
            advance(stop - start)
    _note_tokens(context)


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
    for number, start, stop in shards(pool, _shard_size(context)):
        piece = ShardScores(
            scores.score[start:stop],
            scores.skipped[start:stop] if scores.skipped is not None else None,
            {name: detail[start:stop] for name, detail in scores.details.items()},
            scores.features[start:stop] if scores.features is not None else None,
        )
        _write(context, pool, Shard(number, np.arange(start, stop), ()), piece)


def _shard_size(context: Context) -> int:
    """Return the size that this artifact's shards were begun with."""
    path = context.folder / CUTS
    if path.is_file():
        return int(json.loads(path.read_text(encoding="utf-8"))["examples"])
    size = int(context.work.own.get("shard_examples") or 2048)
    write_json(path, {"examples": size})
    return size


def _note_tokens(context: Context) -> None:
    """Keep the token counts per source for the report, where the scorer reads tokens."""
    if Need.TOKENS not in context.component.needs(context.config):
        return
    job: Job = context.job
    if job.inputs.model is None or not job.world.main:
        return
    encoded: Encoded = job.encoded(job.models.tokenizer(job.inputs.model))
    counts = {name: vars(of) for name, of in encoded.sources.items()}
    write_json(context.folder / TOKENS, {"tokenizer": str(job.inputs.model), "sources": counts})


def _facts(context: Context, table: ScoreTable) -> dict[str, Any]:
    score = table.score()
    scored = score[np.isfinite(score)]
    facts: dict[str, Any] = {
        "examples": len(score),
        "scored": len(scored),
        "skipped": table.skipped(),
        "skipped_by_source": _skipped_by_source(table, score),
    }
    if len(scored):
        facts |= {
            "mean": float(scored.mean()),
            "std": float(scored.std()),
            "min": float(scored.min()),
            "max": float(scored.max()),
        }
    tokens = context.folder / TOKENS
    if tokens.is_file():
        facts["tokens"] = json.loads(tokens.read_text(encoding="utf-8"))
    return facts


def _skipped_by_source(table: ScoreTable, score: np.ndarray) -> dict[str, int]:
    codes, names = table.sources()
    counts = Counter(codes[~np.isfinite(score)].tolist())
    return {names[code]: count for code, count in sorted(counts.items())}


def _check(facts: Mapping[str, Any], context: Context) -> None:
    """Stop where too many examples have no score, or where all scores are equal."""
    examples, scored = facts["examples"], facts["scored"]
    limit = float(context.work.own.get("max_skipped", 0.01))
    share = (examples - scored) / examples
    if share > limit:
        reasons = "; ".join(f"{count} x {why}" for why, count in facts["skipped"].items())
        raise StageError(
            f"{examples - scored} of {examples} examples ({share:.1%}) have no score, more than "
            f"max_skipped = {limit:.1%}: {reasons}",
            hint="mend the pool, or raise max_skipped in the score's table",
        )
    if scored > 1 and facts["min"] == facts["max"]:
        raise StageError(
            f"all {scored} scores are equal ({facts['min']}): nothing can be selected by them",
            hint="look at the scorer's options and at the model it reads",
        )


__all__ = ["SCORES", "run", "shards"]
