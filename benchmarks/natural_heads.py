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
from natural_sets import Together, raw_pair
from rows import Rows

from selectmoe_core import Example, ModelRef, RawPair
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
HEAD = "reward head"
FIXED = 25.0
"""Seconds of a warm-up on pairs beside its steps: load, save 3 GB, load again, score."""
PAIR_SECONDS = 0.0038
"""Seconds of a pair in training: 68 s for 17,700 pairs, on half an H200."""


@dataclass(frozen=True)
class Fit:
    """A warm-up on pairs, or a reward head on the same pairs.

    Attributes:
        way: a key of ``WAYS``, or ``HEAD``.
        size: training pairs at most; ``None`` for all.
        fold: the fold that is held out.
        name: of the whole line of folds.
        held: the rows that are held out, bool ``[rows]``.
        pairs: what it learns from, the better row first, int ``[pairs, 2]``.
    """

    way: str
    size: int | None
    fold: int
    name: str
    held: np.ndarray
    pairs: np.ndarray

    @property
    def seconds(self) -> float:
        """How long it takes on an H100, about."""
        if self.way == HEAD:
            return 5.0
        return FIXED + WAYS[self.way]["epochs"] * len(self.pairs) * PAIR_SECONDS


def fits(together: Together, folds: int, sizes: Sequence[int]) -> tuple[list[Fit], list[str]]:
    """Return the fits, fold by fold, so that those that are done can be read at any time.

    All ways with all pairs, and all weights with fewer pairs; beside each number of pairs a reward
    head. Also returned: which points of the learning curve there are not pairs enough for.

    Args:
        together: with the pairs that a warm-up can learn from.
        folds: how many.
        sizes: of the learning curve.
    """
    of = together.folds(folds)
    most = min((len(together.others(of == fold, None)) for fold in range(folds)), default=0)
    short = [f"{size} pairs: a fold leaves only {most}" for size in sizes if size >= most]
    curve = [None, *(size for size in sizes if size < most)]
    found = []
    for fold in range(folds):
        held = of == fold
        for size in curve:
            pairs, suffix = together.others(held, size), f", {size}" if size else ""
            for way in (*(WAYS if size is None else ("all weights",)), HEAD):
                name = HEAD + suffix if way == HEAD else f"pairs, {way}{suffix}"
                found.append(Fit(way, size, fold, name, held, pairs))
    return found, short


def left_out(together: Together) -> list[Fit]:
    """Return the fits on all sets but one, which is held out."""
    found = []
    for number in range(len(together.sets)):
        held = together.of == number
        pairs = together.others(held, None)
        for way in (*WAYS, HEAD):
            name = f"{HEAD} of other sets" if way == HEAD else f"pairs of other sets, {way}"
            found.append(Fit(way, None, number, name, held, pairs))
    return [fit for fit in found if len(fit.pairs)]


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
    """Return the base, converted once for all warm-ups on pairs, and for all processes."""
    folder = (bench.chosen.bases or bench.work) / f"converted-{bench.base_key}"
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
    start = time.monotonic()
    with scratch(bench.work / "fit") as work:
        (work / "pairs").mkdir()
        raws = _raw(together.examples, fit.pairs)
        build_pairs(raws, work / "pairs", share=1.0)
        job = replace(bench.job(1, work), inputs=Inputs(pairs=work / "pairs"))
        trainer = bench.part(Kind.TRAINER, "select-moe-contrastive", {**WAYS[fit.way], **overrides})
        model = ModelRef(str(converted(bench)))
        said = dict(trainer.train(model, bench.pool, work / "warmed", job))
        free()
        if said["preference_pairs"] != len(fit.pairs):
            raise RuntimeError(f"{said['preference_pairs']} of {len(fit.pairs)} pairs were used")
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
    for number, (better, worse) in enumerate(pairs.tolist()):
        yield raw_pair(examples[better], examples[worse], f"pair:{number}")
