"""The distribution of scores: per source, against length, and by layer."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selectmoe_core.data.pool import Pool
from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.report.sections.audits import find_audit
from selectmoe_core.report.sections.examples import Choice, Scored, shown_examples
from selectmoe_core.report.sections.groups import regroup
from selectmoe_core.report.sections.heat import heat_maps
from selectmoe_core.report.summary import (
    Histograms,
    LengthCorrelation,
    ScoreSummary,
    SourceScores,
)
from selectmoe_core.store import Artifact

SKIPPED_SHOWN = 40
"""The most rows in the table of skipped examples."""
LENGTH_SAMPLE = 20_000
BINS = (12, 60)
TAIL = 0.001
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)


def summarise_scores(
    key: str, artifact: Artifact, pool: Pool | None, choice: Choice | None, *, examples: bool
) -> ScoreSummary:
    """Return the distribution of a finished score.

    Args:
        key: the node's name in the plan.
        artifact: the finished score.
        pool: the pool it scored, for lengths and texts.
        choice: what was selected by it.
        examples: whether to show examples in full.
    """
    table = ScoreTable.open(artifact.folder)
    score = table.score()
    codes, names = regroup(*table.sources())
    known = np.isfinite(score)
    values = score[known]
    same_rows = pool is not None and len(pool) == len(score)
    scored = Scored(artifact, table, pool, score, choice) if pool and same_rows else None
    kept = choice.rows if choice is not None else None
    some = len(values) > 0
    return ScoreSummary(
        key=key,
        component=artifact.component,
        examples=len(score),
        scored=len(values),
        mean=float(values.mean()) if some else float("nan"),
        std=float(values.std()) if some else float("nan"),
        minimum=float(values.min()) if some else float("nan"),
        maximum=float(values.max()) if some else float("nan"),
        sources=source_scores(score, codes, names),
        skipped=skipped_rows(table),
        length=length_correlation(score, pool) if pool is not None and same_rows else None,
        shown=shown_examples(scored) if scored and examples else (),
        histograms=histograms(score, codes, names, kept) if some else None,
        audit=find_audit(artifact),
        warnings=tuple(artifact.facts.get("warnings", ())),
        heat_maps=heat_maps(table, artifact.facts),
    )


def source_scores(
    score: np.ndarray, codes: np.ndarray, names: Sequence[str]
) -> tuple[SourceScores, ...]:
    """Return the scores of each source, the highest median first, sources without scores last."""
    found = []
    for code, name in enumerate(names):
        own = score[codes == code]
        values = own[np.isfinite(own)]
        figures = [float("nan")] * (2 + len(QUANTILES))
        if len(values):
            moments = float(values.mean()), float(values.std())
            figures = [*moments, *np.quantile(values, QUANTILES).tolist()]
        found.append(SourceScores(name, len(values), len(own) - len(values), *figures))
    return tuple(
        sorted(
            found,
            key=lambda source: (
                not source.scored,
                -source.median if source.scored else 0,
                source.name,
            ),
        )
    )


def histograms(
    score: np.ndarray, codes: np.ndarray, names: Sequence[str], kept: np.ndarray | None
) -> Histograms:
    """Return counts per source over common bins, in the order of ``source_scores``.

    Sources with more scores have more bins. The bins cover all scores, or all except 0.1 % at each
    end if a few outliers would compress the rest.
    """
    order = [names.index(source.name) for source in source_scores(score, codes, names)]
    values = score[np.isfinite(score)]
    low, high = values.min(), values.max()
    inner = np.quantile(values, [TAIL, 1 - TAIL])
    if high - low > 3 * (inner[1] - inner[0]) > 0:
        low, high = inner
    if low == high:
        low, high = low - 0.5, high + 0.5
    bins = int(np.clip(2 * np.sqrt(len(values) / len(names)), *BINS))
    edges = np.linspace(low, high, bins + 1)
    chosen = np.zeros(len(score), dtype=bool)
    if kept is not None:
        chosen[kept] = True

    def count(mask: np.ndarray) -> np.ndarray:
        return np.stack([np.histogram(score[(codes == c) & mask], edges)[0] for c in order])

    pool = count(np.isfinite(score))
    return Histograms(
        edges, pool, count(chosen & np.isfinite(score)), len(values) - int(pool.sum())
    )


def skipped_rows(table: ScoreTable) -> tuple[tuple[str, str, int], ...]:
    """Return source, reason and number of skipped rows, the largest number first."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in table.parts:
        part = pq.read_table(path, columns=["source", "skipped"])
        reasons = part.column("skipped").cast(pa.string())
        if reasons.null_count < len(reasons):
            gone = part.set_column(1, "skipped", reasons).filter(pc.is_valid(reasons))
            for entry in (
                gone.group_by(["source", "skipped"]).aggregate([([], "count_all")]).to_pylist()
            ):
                counts[entry["source"], entry["skipped"]] += entry["count_all"]
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) > SKIPPED_SHOWN:
        rest = sum(count for _, count in ordered[SKIPPED_SHOWN - 1 :])
        ordered = [*ordered[: SKIPPED_SHOWN - 1], (("other sources", "any reason"), rest)]
    return tuple((*pair, count) for pair, count in ordered)


def length_correlation(score: np.ndarray, pool: Pool) -> LengthCorrelation | None:
    """Return the correlation of score and length in characters, over a fixed sample of rows."""
    rows = np.flatnonzero(np.isfinite(score))
    scored = len(rows)
    if scored < 3:
        return None
    if scored > LENGTH_SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(rows, LENGTH_SAMPLE, replace=False))
    text, answer = lengths(pool, rows)
    own = score[rows]
    return LengthCorrelation(spearman(own, text), spearman(own, answer), len(rows), scored)


def lengths(pool: Pool, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the characters of the whole conversation and of its answers, for sorted ``rows``."""
    text, answer, start = [], [], 0
    for batch in pool.batches():
        low, high = np.searchsorted(rows, [start, start + batch.num_rows])
        if high > low:
            messages = batch.column("messages").take(pa.array(rows[low:high] - start))
            turns = messages.flatten()
            parent = pc.list_parent_indices(messages).to_numpy()
            characters = pc.utf8_length(turns.field("content")).to_numpy().astype(np.float64)
            is_answer = pc.equal(turns.field("role"), "assistant").to_numpy(zero_copy_only=False)
            text.append(np.bincount(parent, characters, minlength=high - low))
            answer.append(np.bincount(parent, characters * is_answer, minlength=high - low))
        start += batch.num_rows
    return np.concatenate(text), np.concatenate(answer)


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation: Pearson's of the mean ranks; NaN if one is constant."""
    from scipy.stats import rankdata  # slow to import

    a, b = (rankdata(values) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale else float("nan")
