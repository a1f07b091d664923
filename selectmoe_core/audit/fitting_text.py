"""A fitted blend in words, with the table of the recipe that uses it."""

import math
from collections.abc import Iterator

from selectmoe_core.audit.fitting import ENOUGH, BlendFit, Held, TooFew
from selectmoe_core.audit.verdict import listed


def blend_lines(fit: BlendFit | TooFew) -> Iterator[str]:
    """Yield the lines of a fitted blend."""
    if isinstance(fit, TooFew):
        yield f"no blend fitted: fewer than {ENOUGH} rows of every kind that warm-up was not shown;"
        yield "raise --sample"
        return
    kinds = listed(fit.kinds)
    yield f"a blend, fitted on kinds that warm-up was not shown: {kinds}"
    yield ""
    if len(fit.weights) > 1:
        names = ", ".join(f'"{name}"' for name in fit.weights)
        weights = ", ".join(f"{weight:g}" for weight in fit.weights.values())
        yield "    [score.blend]"
        yield '    use = "blend"'
        yield f"    scores = [{names}]"
        yield f"    weights = [{weights}]"
    elif fit.weights:
        yield f"    only {next(iter(fit.weights))} helps: use it alone"
    else:
        yield "    none of the scores helps"
    yield ""
    if fit.left_out and fit.weights:
        yield f"left out, since its weight would be negative: {', '.join(fit.left_out)}"
    over = "clean rows, a fifth at a time" if len(fit.kinds) == 1 else "a kind not fitted on, mean"
    yield f"AUROC over {over}: fitted {_held(fit.fitted)}, equal weights {_held(fit.equal)}"
    yield "; ".join(f"{name} alone {_held(held)}" for name, held in fit.alone.items())


def _held(held: Held) -> str:
    error = "" if math.isnan(held.stderr) else f" ± {held.stderr:.3f}"
    return f"{held.value:.3f}{error}".replace("0.", ".")
