"""How often a comparison calls two arms different: when they are not, and when they are.

Answers of two arms are simulated question by question. A question has an ease of its own (a normal
deviation of 1.5 in the logit), a training shifts all its logits by noise of its seed. Without a
true difference, the share of comparisons called different is the false-alarm rate; with a true
difference of two points of accuracy it is the power. The interval and its p-value are those of
``selectmoe compare``; at most 5 % of null comparisons should be called different.

    python benchmarks/compare_power.py --trials 1000 --out power.md
"""

import argparse
import time
from pathlib import Path

import numpy as np

from selectmoe_core.compare import statistics

QUESTIONS = (200, 1000, 2000)
SEEDS = (3, 5)
NOISES = {"none": 0.0, "0.4 points": 0.4, "0.7 points": 0.7}
"""The standard deviation of a training's accuracy, from its seed alone."""
POINTS = 2.0
EASE, MIDDLE = 1.5, 0.4
"""Deviation and mean of the questions' logits: about 57 % are answered rightly."""


def accuracy_per_logit() -> float:
    """Return by how much accuracy rises when all logits rise by one, by numbers."""
    ease = np.random.default_rng(0).normal(MIDDLE, EASE, 1_000_000)
    step = 0.01
    return float((_chance(ease + step) - _chance(ease - step)).mean() / (2 * step))


def share_called(
    questions: int, seeds: int, noise: float, gain: float, trials: int, level: float
) -> float:
    """Return the share of comparisons whose p-value is below ``level``.

    Args:
        questions: of one task.
        seeds: trainings of each arm.
        noise: deviation of a training's accuracy, in points.
        gain: the true difference, in points.
        trials: simulated comparisons.
        level: of the test.
    """
    slope = accuracy_per_logit()
    rng = np.random.default_rng([questions, seeds, int(10 * noise), int(10 * gain)])
    called = 0
    for trial in range(trials):
        ease = rng.normal(MIDDLE, EASE, questions)
        arms = []
        for own in (gain, 0.0):
            training = rng.normal(0, noise / 100 / slope, (seeds, 1)) if noise else 0.0
            chance = _chance(ease + training + own / 100 / slope)
            arms.append(rng.random((seeds, questions)) < chance)
        found = statistics.estimate([arms[0].astype(float) - arms[1]], seed=trial)
        called += found.p_value < level
    return called / trials


def _chance(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


def table(trials: int, level: float) -> list[str]:
    """Return the table as Markdown."""
    lines = [
        "| noise of seeds | seeds | questions | called different, no difference | called different, "
        f"{POINTS:.0f} points |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, noise in NOISES.items():
        for seeds in SEEDS:
            for questions in QUESTIONS:
                shares = [
                    share_called(questions, seeds, noise, gain, trials, level)
                    for gain in (0.0, POINTS)
                ]
                cells = [name, str(seeds), f"{questions:,}", *(f"{100 * s:.1f} %" for s in shares)]
                lines.append(f"| {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--level", type=float, default=0.05)
    parser.add_argument("--resamples", type=int, default=500, help="of the bootstrap")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    statistics.RESAMPLES = arguments.resamples
    start = time.monotonic()
    lines = table(arguments.trials, arguments.level)
    print(f"{time.monotonic() - start:.0f} s")
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
