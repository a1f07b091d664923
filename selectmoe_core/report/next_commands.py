"""Commands that may come after a run, as its report and the terminal both name them."""

import shlex
from collections.abc import Sequence

SEEDS = ("seed=", "compare.seeds=")
"""Overrides that say which seeds a comparison has."""


def audit_scores(recipe: str, overrides: Sequence[str]) -> tuple[str, str]:
    """Return what an audit answers, and its command."""
    command = shlex.join(["selectmoe", "audit", recipe, *overrides])
    return "Which damage do the scores notice?", command


def compare_seeds(recipe: str, overrides: Sequence[str]) -> tuple[str, str]:
    """Return what a comparison over several seeds answers, and its command."""
    others = [override for override in overrides if not override.startswith(SEEDS)]
    command = shlex.join(["selectmoe", "compare", recipe, *others, "seed=[1,2,3]"])
    return "Is it more than chance? Three seeds and an interval", command
