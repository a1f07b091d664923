"""What preference pairs teach: warm-ups on them, and a plain reward head, by cross-validation."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_arms import CONTRAST
from evidence_bench import Bench, free, scratch
from natural_sets import Together
from rows import Rows

from selectmoe_core import Example, ModelRef, RawExample, RawPair
from selectmoe_core.data.pairs import build_pairs
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.protocols import Inputs

PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Of the reward head's squared weights; an inner split of the training pairs chooses one."""
PAIRS = CONTRAST | {"batch_size": 32, "micro_batch_size": 32}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "all weights": PAIRS | {"trainable": "all", "learning_rate": 1e-4, "epochs": 4.0},
    "gates": PAIRS
    | {"trainable": "router", "learning_rate": 8e-3, "lm_weight": 0.0, "epochs": 8.0},
}


@dataclass(frozen=True)
class Fit:
    """A warm-up on pairs.

    Attributes:
        way: a key of ``WAYS``.
        size: training pairs at most; ``None`` for all.
        fold: the fold that is held out.
        name: of the whole line of folds.
        held: the rows that are held out, bool ``[rows]``.
    """

    way: str
    size: int | None
    fold: int
    name: str
    held: np.ndarray


def fits(together: Together, folds: int, sizes: Sequence[int]) -> list[Fit]:
    """Return the warm-ups: fold by fold, so that those that are done can be read at any time.

    All ways with all pairs, and all weights with fewer pairs.
    """
    of = together.folds(folds)
    ways = [(way, None) for way in WAYS] + [("all weights", size) for size in sizes]
    return [
        Fit(way, size, fold, f"pairs, {way}{f', {size}' if size else ''}", of == fold)
        for fold in range(folds)
        for way, size in ways
    ]


def left_out(together: Together) -> list[Fit]:
    """Return the warm-ups on all sets but one, which is held out."""
    sets = enumerate(together.sets)
    return [
        Fit("all weights", None, number, "pairs of other sets", together.of == number)
        for number, _ in sets
    ]


def reward_head(
    states: np.ndarray, pairs: np.ndarray, groups: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Return how good a Bradley-Terry regression takes rows to be, ``[rows asked]``.

    The plain reward model on frozen states: a logistic regression without bias on the differences
    of standardised states within pairs.

    Args:
        states: of all rows, ``[rows, width]``.
        pairs: the training pairs, the better row first, ``[pairs, 2]``.
        groups: of all rows: one group is on one side of the inner split.
        asked: the rows to score, bool ``[rows]``.
    """
    mean, spread = states[pairs.ravel()].mean(axis=0), states[pairs.ravel()].std(axis=0) + 1e-3
    inputs = torch.from_numpy((states - mean) / spread).float()
    gaps = inputs[pairs[:, 0]] - inputs[pairs[:, 1]]
    inner = torch.from_numpy(groups[pairs[:, 0]] % 5 == 0)
    if not 0 < int(inner.sum()) < len(pairs):
        inner = torch.arange(len(pairs)) % 5 == 0

    def accuracy(penalty: float) -> float:
        weights = _bradley_terry(gaps[~inner], penalty)
        return float((gaps[inner] @ weights > 0).float().mean())

    best = max(PENALTIES, key=accuracy)
    return np.asarray((inputs[torch.from_numpy(asked)] @ _bradley_terry(gaps, best)).numpy())


def _bradley_terry(gaps: torch.Tensor, penalty: float) -> torch.Tensor:
    weights = torch.zeros(gaps.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=100)

    def loss() -> torch.Tensor:
        solver.zero_grad()
        found = torch.nn.functional.softplus(-(gaps @ weights)).mean()
        found = found + penalty * (weights @ weights)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    solver.step(loss)
    return weights.detach()


def converted(bench: Bench) -> Path:
    """Return the base, converted once for all warm-ups on pairs."""
    folder = bench.work / "converted"
    if not folder.is_dir():
        part = bench.part(Kind.CONVERTER, "olmoe-trashcan", {})
        made = folder.with_suffix(".part")
        shutil.rmtree(made, ignore_errors=True)
        part.convert(ModelRef(str(bench.base)), made, bench.job(1, bench.work))
        made.rename(folder)
    return folder


def fit_pairs(
    bench: Bench, together: Together, fit: Fit, overrides: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Warm up on the pairs outside a fold; return the scores of the rows in it, and facts."""
    pairs = together.others(fit.held, fit.size)
    start = time.monotonic()
    with scratch(bench.work / "fit") as work:
        (work / "pairs").mkdir()
        build_pairs(_raw(together.examples, pairs), work / "pairs", share=1.0, on_reject="skip")
        job = replace(bench.job(1, work), inputs=Inputs(pairs=work / "pairs"))
        trainer = bench.part(Kind.TRAINER, "select-moe-contrastive", {**WAYS[fit.way], **overrides})
        model = ModelRef(str(converted(bench)))
        said = dict(trainer.train(model, bench.pool, work / "warmed", job))
        free()
        trained = time.monotonic() - start
        held = [together.examples[row] for row in np.flatnonzero(fit.held)]
        rows = Rows(held, bench.chat, work / "held")
        score = bench.scores("router", {"tokens": "end"}, work / "warmed", rows, work).score
    facts = {
        "pairs": said["preference_pairs"],
        "steps": said["steps"],
        "train_seconds": said["seconds"],
        "whole_seconds": [round(trained, 1), round(time.monotonic() - start, 1)],
        "final": said["final"],
    }
    return score, facts


def _raw(examples: Sequence[Example], pairs: np.ndarray) -> Iterator[RawPair]:
    for number, (better, worse) in enumerate(pairs):
        halves = [
            RawExample("natural", examples[int(row)].messages, f"pair:{number}")
            for row in (better, worse)
        ]
        yield RawPair(*halves)
