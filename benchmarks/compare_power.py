"""How often a comparison calls two arms different: when they are not, and when they are.

Answers of two arms are simulated question by question. A question is answered rightly where its
margin is above zero: the question's own margin, the same for every training (a standard normal
deviation), plus what one training changes on this question, plus what its seed changes on all
questions. ``flips`` is the share of questions that two trainings of one arm answer differently
through the second part. Without a true difference, the share of comparisons called different is the
rate of false alarms, which should be at most 5 %; with one of two points it is the power. Coverage
is the share of intervals that hold the true difference, which should be at least 95 %. P-value and
interval are those of ``selectmoe compare``.

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


def shares(
    questions: int, seeds: int, flips: float, noise: float, gain: float, trials: int, level: float
) -> tuple[float, float]:
    """Return the share of comparisons called different, and that of intervals that cover.

    A comparison is called different if its p-value is below ``level``.

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
    slip = noise / 100 / slope
    step = gain / 100 / slope
    whole = math.sqrt(scale**2 + slip**2)
    true = norm.cdf((middle + step) / whole) - norm.cdf(middle / whole)
    called = covered = 0
    for trial in range(trials):
        own = rng.normal(middle, 1, questions)
        arms = []
        for more in (step, 0.0):
            training = rng.normal(0, spread, (seeds, questions))
            seed = rng.normal(0, slip, (seeds, 1))
            arms.append(own + training + seed + more > 0)
        found = statistics.estimate([arms[0].astype(float) - arms[1]], seed=trial)
        called += found.p_value < level
        covered += found.low <= true <= found.high
    return called / trials, covered / trials


def table(trials: int, level: float) -> list[str]:
    """Return the table as Markdown: false alarms, power and coverage for each number of questions.

    Coverage is the lower one of both: with a true difference, and without.
    """
    sizes = [f"{count:,} questions: false | power | coverage" for count in QUESTIONS]
    lines = [
        f"| flips | noise of seeds | seeds | {' | '.join(sizes)} |",
        f"| ---: | ---: | ---: |{' ---: |' * 3 * len(QUESTIONS)}",
    ]
    for flips in FLIPS:
        for noise in NOISES:
            for seeds in SEEDS:
                cells = [f"{100 * flips:.0f} %", f"{noise:.1f} points", str(seeds)]
                for questions in QUESTIONS:
                    (false, without), (power, with_it) = (
                        shares(questions, seeds, flips, noise, gain, trials, level)
                        for gain in (0.0, POINTS)
                    )
                    found = (false, power, min(without, with_it))
                    cells += [f"{100 * share:.1f} %" for share in found]
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
