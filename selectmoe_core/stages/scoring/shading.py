"""The numbers of single tokens of the few examples that a report shows of a score."""

from pathlib import Path
from typing import Any

from selectmoe_core.data.pool import Pool
from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.data.shown import TOKENS, examples_of_score, write_tokens
from selectmoe_core.errors import PluginError
from selectmoe_core.stages.context import Context


def is_shaded(folder: Path) -> bool:
    """Return whether the scorer was asked already."""
    return (folder / TOKENS).is_file()


def shade(context: Context, pool: Pool, scorer: Any) -> None:  # noqa: ANN401
    """Ask a scorer that has ``tokens`` for those of the best, the worst and other examples.

    Raises:
        PluginError: it returned another number of examples, or arrays of different lengths.
    """
    ask = getattr(scorer, "tokens", None)
    table = ScoreTable.open(context.folder)
    score = table.score()
    finish = getattr(context.part, "finish", None)
    if ask is not None and finish is not None:  # the best and the worst by the final scores
        final = finish(table).score
        score = score if final is None else final
    rows = examples_of_score(score, table.ids(), table.sources()[0])
    details = ask(list(pool.take(rows))) if ask is not None and rows else None
    if details is None:
        write_tokens(context.folder, [], [])
        return
    problem = next(filter(None, (one.problem() for one in details)), "")
    if len(details) != len(rows):
        problem = f"{len(details)} of {len(rows)} examples"
    if problem:
        raise PluginError(
            f"{context.spec.where} {context.component.name}: tokens() returned {problem}",
            hint="it must return one TokenDetail for each example, in order",
        )
    write_tokens(context.folder, rows, details)
