"""The results on judged sets as text: pair accuracy and AUROC with intervals, beside length."""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from evidence_data import Judged
from evidence_measures import by_kind
from natural_sets import Natural

from selectmoe_core.audit.agreement import Agreement, alike, area, pair_accuracy

NAME = 54


def set_table(
    natural: Natural,
    scores: Mapping[str, np.ndarray],
    length: np.ndarray,
    folded: Collection[str],
) -> tuple[str, dict[str, Any]]:
    """Return the table of a set, and its figures.

    Args:
        natural: the set.
        scores: ``[rows]`` each, NaN for none.
        length: of the answers.
        folded: scores by cross-validation: where a fold is not done, its rows are left out.
    """
    about = natural.about
    lines = [
        f"{about.name}: {about.wrong}; {len(natural.examples)} rows, {len(natural.pairs)} pairs",
        f"{'':<{NAME}}{'pairs':>20}{'equally long':>20}{'AUROC':>20}",
    ]
    figures: dict[str, Any] = {}
    for name, score in scores.items():
        known = np.isfinite(score) if name in folded else np.ones(len(score), dtype=bool)
        pairs = natural.pairs[known[natural.pairs].all(axis=1)]
        same = alike(pairs, length)
        found = {
            "pairs": pair_accuracy(score, pairs, natural.groups),
            "equally long": pair_accuracy(score, same, natural.groups),
            "AUROC": area(score[known], natural.good[known], natural.groups[known]),
        }
        figures[name] = {measure: asdict(value) for measure, value in found.items()}
        lines.append(f"{name:<{NAME}}" + "".join(f"{_cell(v):>20}" for v in found.values()))
    return "\n".join(lines), figures


def _cell(found: Agreement) -> str:
    if not found.count:
        return "-"
    return f"{found.value:.3f} [{found.low:.2f}, {found.high:.2f}]"


def planted_table(
    name: str, scores: Mapping[str, np.ndarray], judged: Judged
) -> tuple[str, dict[str, Any]]:
    """Return the AUROC over each kind of planted damage, and the figures."""
    known = {way: score for way, score in scores.items() if np.isfinite(score).any()}
    figures = {way: by_kind(score, judged) for way, score in known.items()}
    kinds = sorted({kind for found in figures.values() for kind in found} - {"all"})
    lines = [f"{name}: AUROC of clean over damaged rows, by kind"]
    for way, found in figures.items():
        cells = [f"{kind} {found[kind]:.3f}" for kind in ("all", *kinds) if kind in found]
        lines.append(f"{way}: {', '.join(cells)}")
    return "\n".join(lines), figures
