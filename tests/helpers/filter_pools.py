"""Conversations for tests of filters, and what a filter marks of them."""

from selectmoe_core.data.examples import Example, Message, RawExample, content_id
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.protocols import Inputs, Job
from selectmoe_core.tokens.encoding import encode


def conversation(*turns, source="made"):
    """A conversation of user and assistant in turn."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[n % 2], text) for n, text in enumerate(turns))
    return RawExample(source, messages)


def raw(row):
    """The row as the pool gives it."""
    return Example(content_id(row.messages).hex(), row.source, row.messages)


def marked(part, rows, folder, *, job=None, model=None, questions=None):
    """The reason of each row that has one, and the groups as sets of rows."""
    (folder / "pool").mkdir(parents=True)
    pool = build_pool(rows, folder / "pool")
    assert len(pool) == len(rows), "two rows are equal"
    job = job or Job(seed=1)
    job = job.changed(
        inputs=Inputs(ModelRef(model) if model else None, pool.folder, questions=questions),
        scratch=folder / "scratch",
        encoded=lambda tokenizer: encode(pool.examples(), folder, job.chat, tokenizer),
    )
    marks = part.mark(pool, job)
    assert marks.problem(len(pool)) is None
    reasons, groups = {}, {}
    entries = zip(
        marks.rows.tolist(), marks.texts().to_pylist(), marks.numbers.tolist(), strict=True
    )
    for row, reason, number in entries:
        if reason is None:
            groups.setdefault(number, set()).add(row)
        else:
            reasons[row] = reason
    return reasons, {frozenset(own) for own in groups.values()}
