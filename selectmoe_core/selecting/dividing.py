"""Choosing within each source: quotas, floors and ceilings for every way to choose."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.data.selection import Selection
from selectmoe_core.errors import StageError
from selectmoe_core.selecting.config import NumberConfig
from selectmoe_core.selecting.quotas import allotted
from selectmoe_core.selecting.ranking import best_first


@dataclass(frozen=True)
class Chosen:
    """What was chosen among some rows.

    Attributes:
        rows: the chosen positions, int64 ``[chosen]``, in the order of choice.
        turns: the turn in which each was taken, ``[chosen]``: where sources are put together, rows
            of an earlier turn come first, and rows of one turn are ordered by score.
        notes: a text for each row and note: ``group`` and ``reason``.
        cluster: the cluster of each row, or ``None``.
    """

    rows: np.ndarray
    turns: np.ndarray
    notes: Mapping[str, Sequence[str]]
    cluster: np.ndarray | None = None


Choose = Callable[[np.ndarray, int], Chosen]
"""Chooses among rows that are given the best first, at most so many."""


def choose_divided(scores: ScoreTable, config: NumberConfig, choose: Choose) -> Selection:
    """Choose ``k`` rows in a selector's own way, of the whole pool or of each source.

    What a source does not give, though its quota asks for it, falls to the other sources, and is
    reported.

    Args:
        scores: the scores.
        config: how many to keep, and how sources share them.
        choose: called with scored rows, the best first (equal scores by id), and how many to
            choose; asked for more of the same rows it must choose the same ones first.

    Raises:
        StageError: fewer than ``k`` examples have a score.
    """
    values = scores.score()
    scored = np.flatnonzero(np.isfinite(values))
    rows = scored[best_first(values[scored], lambda places: scores.ids(scored[places]))]
    if config.k > len(rows):
        raise StageError(
            f"k = {config.k:,}, but only {len(rows):,} of {len(values):,} examples have a score",
            hint="lower k",
        )
    if config.per == "none":
        return _selection([choose(rows, config.k)], config.k, None, ())
    codes, names = scores.sources()
    own = dict(zip(names, _by_code(rows, codes[rows], len(names)), strict=True))
    found, warnings = _each_source(own, config, choose)
    place = np.empty(len(values), dtype=np.int64)
    place[rows] = np.arange(len(rows))
    return _selection(list(found.values()), config.k, place, warnings, tuple(found))


def _by_code(rows: np.ndarray, codes: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the rows of each code, in their order; one sort, since there may be 100,000 codes."""
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=count))
    return np.split(rows[order], ends[:-1])


def _each_source(
    own: Mapping[str, np.ndarray], config: NumberConfig, choose: Choose
) -> tuple[dict[str, Chosen], tuple[str, ...]]:
    """Choose within each source; what some do not give is shared out again among the others."""
    sizes = {name: len(rows) for name, rows in own.items()}
    most: dict[str, int] = {}
    found: dict[tuple[str, int], Chosen] = {}
    while True:
        allotment = allotted(config.k, sizes, config, most=most)
        wanted = list(zip(sizes, allotment.counts, strict=True))
        for name, count in wanted:
            if count and (name, count) not in found:
                found[name, count] = choose(own[name], count)
        given = {name: len(found[name, count].rows) for name, count in wanted if count}
        short = {name: given[name] for name, count in wanted if count and given[name] < count}
        if not short:
            kept = {name: found[name, count] for name, count in wanted if count}
            return kept, allotment.warnings
        most |= short


def _selection(
    found: Sequence[Chosen],
    k: int,
    place: np.ndarray | None,
    warnings: tuple[str, ...],
    names: tuple[str, ...] = (),
) -> Selection:
    """Put the choices of all sources together: by turn, then by ``place``, the order of scores."""
    rows = np.concatenate([chosen.rows for chosen in found])
    order = np.arange(len(rows))
    if place is not None:
        order = np.lexsort((place[rows], np.concatenate([chosen.turns for chosen in found])))
    notes: dict[str, pa.Array] = {}
    for note in ("group", "reason"):
        texts = [text for chosen in found for text in chosen.notes.get(note, ())]
        if len(texts) == len(rows):
            notes[note] = pa.array(texts, pa.string()).dictionary_encode().take(pa.array(order))
    if names:
        codes = np.repeat(np.arange(len(found)), [len(chosen.rows) for chosen in found])
        notes["group"] = pa.DictionaryArray.from_arrays(codes[order], pa.array(names))
    clusters = [chosen.cluster for chosen in found if chosen.cluster is not None]
    if len(rows) < k:
        warnings = (*warnings, f"kept {len(rows):,} of the {k:,} asked for")
    return Selection(
        rows[order],
        notes.get("group"),
        notes.get("reason"),
        warnings,
        np.concatenate(clusters)[order] if clusters else None,
    )
