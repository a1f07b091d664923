"""Details of a score with a column for each layer, as a mean for each source."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.plugin.component import Meaning
from selectmoe_core.report.findings import HeatMap
from selectmoe_core.report.sections.groups import regroup
from selectmoe_core.store import Facts

WHOLE = "whole pool"


def meanings(facts: Facts) -> Mapping[str, Meaning]:
    """Return how the scorer wants its details to be shown; unknown wishes are left out."""
    found: Mapping[str, Any] = facts.get("details") or {}
    known = {field.name for field in fields(Meaning)}
    return {
        name: Meaning(**{key: value for key, value in meaning.items() if key in known})
        for name, meaning in found.items()
    }


def heat_maps(table: ScoreTable, facts: Facts) -> tuple[HeatMap, ...]:
    """Return the details that have a column for each of something, for example each layer."""
    wanted = {name: meaning for name, meaning in meanings(facts).items() if meaning.each}
    load = wanted.pop("features", None)
    found = tuple(_maps(table, wanted))
    return (*found, _load(table, load, wanted)) if load is not None else found


def _maps(table: ScoreTable, wanted: Mapping[str, Meaning]) -> Iterator[HeatMap]:
    if not wanted:
        return
    codes, names = regroup(*table.sources())
    for name in wanted.keys() & set(table.details):
        values, meaning = table.detail(name), wanted[name]
        if values.ndim != 2:
            continue
        shown = 1 - values if meaning.complement else values
        groups = [np.ones(len(codes), bool), *(codes == code for code in range(len(names)))]
        means = np.stack([_mean(shown[group]) for group in groups])
        order = [0, *(1 + np.argsort(-np.nan_to_num(means[1:].mean(axis=1)), kind="stable"))]
        labels = (WHOLE, *names)
        yield HeatMap(
            title=meaning.title,
            each=meaning.each,
            share=meaning.share,
            sources=tuple(labels[place] for place in order),
            columns=tuple(str(number) for number in range(values.shape[1])),
            values=means[order],
        )


def _load(table: ScoreTable, meaning: Meaning, others: Mapping[str, Meaning]) -> HeatMap:
    """Return the mean feature vector of the pool in rows, for example a row for each layer."""
    total, count = np.zeros(0), 0
    for part in table.features():
        known = part[np.isfinite(part).all(axis=1)].astype(np.float64)
        total = known.sum(axis=0) + (total if count else 0.0)
        count += len(known)
    rows = table.detail(meaning.rows).shape[1]
    values = (total / count if count else np.full(rows, np.nan)).reshape(rows, -1)
    return HeatMap(
        title=meaning.title,
        each=meaning.each,
        share=meaning.share,
        sources=tuple(f"{others[meaning.rows].each} {number}" for number in range(rows)),
        columns=tuple(str(number) for number in range(values.shape[1])),
        values=values,
    )


def _mean(values: np.ndarray) -> np.ndarray:
    known = values[np.isfinite(values).all(axis=1)]
    return known.mean(axis=0) if len(known) else np.full(values.shape[1], np.nan)
