"""How often a comparison calls two arms different: when they are not, and when they are.

Answers of two arms are simulated question by question. A question is answered rightly where its
margin is above zero: the question's own margin, the same for every training (a standard normal
deviation), plus what one training changes on this question, plus what its seed changes on all
questions. ``flips`` is the share of questions that two trainings of one arm answer differently
through the second part. Without a true difference, the share of comparisons called different is the
rate of false alarms, which should be at most 5 %; with one of two points it is the power. The
p-value is that of ``selectmoe compare``.

    python benchmarks/compare_power.py --trials 1000 --out power.md
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
from scipy.stats import norm

from selectmoe_core.compare import statistics

QUESTIONS = (200, 1000, 2000)
SEEDS = (3, 5)
FLIPS = (0.05, 0.15)
NOISES = (0.0, 0.4, 0.7)
"""The standard deviation of a training's accuracy from its seed alone, in points."""
POINTS = 2.0
RIGHT = 0.6
"""The share of right answers without a difference."""


def share_called(
    questions: int, seeds: int, flips: float, noise: float, gain: float, trials: int, level: float
) -> float:
    """Return the share of comparisons whose p-value is below ``level``.

    Args:
        questions: of one task.
        seeds: trainings of each arm.
        flips: the share of questions that two trainings of one arm answer differently.
        noise: deviation of a training's accuracy, in points.
        gain: the true difference, in points.
        trials: simulated comparisons.
        level: of the test.
    """
    # Two margins of correlation rho have different signs in arccos(rho) / pi of all cases, where
    # they are centred; here nearly so.
    spread = math.sqrt(1 / math.cos(math.pi * flips) - 1)
    scale = math.sqrt(1 + spread**2)
    middle = scale * norm.ppf(RIGHT)
    slope = norm.pdf(norm.ppf(RIGHT)) / scale  # accuracy per unit of margin
    rng = np.random.default_rng([questions, seeds, int(100 * flips), int(10 * noise), int(gain)])
    called = 0
    for trial in range(trials):
        own = rng.normal(middle, 1, questions)
        arms = []
        for more in (gain, 0.0):
            training = rng.normal(0, spread, (seeds, questions))
            seed = rng.normal(0, noise / 100 / slope, (seeds, 1))
            arms.append(own + training + seed + more / 100 / slope > 0)
        found = statistics.estimate([arms[0].astype(float) - arms[1]], seed=trial)
        called += found.p_value < level
    return called / trials


def table(trials: int, level: float) -> list[str]:
    """Return the table as Markdown: false alarms and power, a pair of columns a test's size."""
    sizes = [f"{count:,} questions: false | power" for count in QUESTIONS]
    lines = [
        f"| flips | noise of seeds | seeds | {' | '.join(sizes)} |",
        f"| ---: | ---: | ---: |{' ---: |' * 2 * len(QUESTIONS)}",
    ]
    for flips in FLIPS:
        for noise in NOISES:
            for seeds in SEEDS:
                shares = [
                    share_called(questions, seeds, flips, noise, gain, trials, level)
                    for questions in QUESTIONS
                    for gain in (0.0, POINTS)
                ]
                cells = [f"{100 * flips:.0f} %", f"{noise:.1f} points", str(seeds)]
                cells += [f"{100 * share:.1f} %" for share in shares]
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
