"""``questions``: what the evaluation asks, written out for the filters that look for it."""

from selectmoe_core.data.questions import write_questions
from selectmoe_core.errors import StageError
from selectmoe_core.stages.context import Context
from selectmoe_core.store import Facts

WITHOUT = "run without the filter that reads the questions: filter.leak.use=none"


def run(context: Context) -> Facts:
    """Write the questions of every task."""
    try:
        counts = write_questions(context.folder, context.part.questions(context.job))
    except StageError as error:
        hint = f"{error.hint}; or {WITHOUT}" if error.hint else WITHOUT
        raise StageError(str(error), hint=hint) from error
    if not counts:
        raise StageError(
            f"{context.component.name} named no question of the evaluation",
            hint="check the tasks of [evaluate], or remove the filter that reads its questions",
        )
    return {"questions": sum(counts.values()), "tasks": counts}
