"""Rows of preference data: two answers to one prompt, in the forms of the DPO trainers."""

from collections.abc import Sequence
from dataclasses import replace

from selectmoe_core import DataError, Message, RawExample, RawPair, Reject, shown
from selectmoe_core.data import kind_of, messages_from
from selectmoe_readers.config import RowConfig
from selectmoe_readers.rows import (
    Row,
    RowError,
    check_tools,
    columns_of,
    history_turns,
    named_source,
    note_of,
    optional_text,
    source_columns,
    system_turns,
    text_of,
)

PROMPTS = "prompt, conversations, instruction"


class PairRows:
    """Turns the rows of one file into pairs of a chosen and a rejected conversation.

    The answers are texts, turns or lists of turns. The prompt stands in its own column (text or
    turns, or ``instruction`` and ``input``), or at the beginning of both lists.
    """

    def __init__(self, config: RowConfig, source: str) -> None:
        """Use ``source`` as the name if neither the options nor a row give one.

        Raises:
            DataError: a row format was given, which pairs do not have.
        """
        if config.format != "auto":
            raise DataError(
                f'format = "{config.format}" has no effect on preference pairs',
                hint="remove 'format'; the columns of each row show its form",
            )
        named = config.columns
        self.source = config.source or source
        self.format: str | None = "pairs"
        self.columns: Sequence[str] = [*columns_of(config), named.chosen, named.rejected]
        self._columns = named
        self._source_columns = () if config.source else source_columns(config)

    def example(self, row: object, where: str) -> RawPair | Reject:
        """Return the row as a pair, or a reject with the reason."""
        if not isinstance(row, dict):
            return Reject(self.source, where, f"a row must be an object, got {kind_of(row)}")
        source = named_source(row, self._source_columns, self.source)
        names = (self._columns.chosen, self._columns.rejected)
        try:
            check_tools(row)
            _check_columns(row, names)
            prompt = self._prompt(row)
            chosen, rejected = (_conversation(row[name], prompt, name) for name in names)
        except ValueError as error:
            return Reject(source, where, str(error))
        half = RawExample(source, chosen, where, note_of(row.get(self._columns.id)))
        return RawPair(half, replace(half, messages=rejected))

    def _prompt(self, row: Row) -> tuple[Message, ...]:
        """Return the turns before the answers; none if the answers contain their prompt."""
        columns = self._columns
        system = system_turns(row, columns)
        for name in (columns.prompt, columns.conversations):
            value = row.get(name)
            if isinstance(value, list | dict):
                return (*system, *messages_from(value, name))
            if value is not None:
                return (*system, Message("user", text_of(row, name)))
        if row.get(columns.instruction) is None:
            return system
        subject = optional_text(row, columns.input).strip()
        task = text_of(row, columns.instruction)
        earlier = history_turns(row.get(columns.history) or (), columns.history)
        return (*system, *earlier, Message("user", f"{task}\n\n{subject}" if subject else task))


def _check_columns(row: Row, names: tuple[str, str]) -> None:
    missing = [name for name in names if row.get(name) is None]
    if missing:
        has = ", ".join(shown(key, 40) for key, value in row.items() if value is not None)
        raise RowError(
            f"'{missing[0]}' is missing: a pair has {' and '.join(names)}; the row has "
            f"{has or 'nothing'} (set other names in the option 'columns')"
        )


def _conversation(value: object, prompt: tuple[Message, ...], name: str) -> tuple[Message, ...]:
    """Return the whole conversation that ends in an answer.

    Args:
        value: a text, a turn, or a list of turns that may begin with the prompt.
        prompt: the turns of the prompt's own column.
        name: the column of the answer.
    """
    asked = any(turn.role == "user" for turn in prompt)
    if isinstance(value, str):
        if not asked:
            raise RowError(f"'{name}' is text, and there is no prompt: add a column of {PROMPTS}")
        return (*prompt, Message("assistant", value))
    turns = messages_from([value] if _is_turn(value) else value, name)
    if turns[0].role == "assistant":
        if not asked:
            raise RowError(f"'{name}' begins with an answer, and there is no prompt: add {PROMPTS}")
        return (*prompt, *turns)
    if not asked and turns[0].role != "system":
        return (*prompt, *turns)
    # The list repeats the prompt, with a system message or without it.
    bare = [turn for turn in turns if turn.role != "system"]
    wanted = [turn for turn in prompt if turn.role != "system"]
    if [turn.content.strip() for turn in bare[: len(wanted)]] != [
        t.content.strip() for t in wanted
    ]:
        raise RowError(f"'{name}' is a conversation that does not begin with the row's prompt")
    system = [turn for turn in turns if turn.role == "system"] or [
        turn for turn in prompt if turn.role == "system"
    ]
    return (*system, *bare)


def _is_turn(value: object) -> bool:
    return isinstance(value, dict) and not any(isinstance(item, list) for item in value.values())
