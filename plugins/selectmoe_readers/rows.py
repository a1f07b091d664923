"""Row formats: a row becomes an example, or a reject with a reason."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from selectmoe_core import Message, RawExample, RawPair, Reject, shown
from selectmoe_core.data import Role, is_given, kind_of, messages_from
from selectmoe_readers.config import Columns, RowConfig

Row = Mapping[str, Any]

TOOL_COLUMNS = ("tools", "functions")
"""Columns with tools that the assistant may call."""
SHOWN_COLUMNS = 12
OWN_META = frozenset({"original_id", "where", "label"})
"""Keys of ``meta`` in a row of ``selected_data.jsonl``."""


class RowError(ValueError):
    """A row that cannot be used; its text is the reason."""


Made = TypeVar("Made", RawExample, RawPair)
Made_co = TypeVar("Made_co", RawExample, RawPair, covariant=True)


class RowsOf(Protocol[Made_co]):
    """Turns the rows of one file into examples, or into preference pairs."""

    @property
    def source(self) -> str:
        """The source of rows that do not name one."""
        ...

    @property
    def format(self) -> str | None:
        """The row format, ``None`` before it is found."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """The names of all columns that may be used."""
        ...

    def example(self, row: object, where: str) -> Made_co | Reject:
        """Return the row, or a reject with the reason."""
        ...


class MakeRows(Protocol[Made_co]):
    """Makes what turns the rows of one file into examples or pairs."""

    def __call__(self, config: RowConfig, source: str) -> RowsOf[Made_co]:
        """Return it; rows that do not name a source have ``source``."""
        ...


class Rows:
    """Turns the rows of one file into examples; the first usable row decides the format."""

    def __init__(self, config: RowConfig, source: str) -> None:
        """Use ``source`` as the name if neither the options nor a row give one.

        ``format`` is the row format, ``None`` before it is found.
        """
        self.source = config.source or source
        self.columns: Sequence[str] = columns_of(config)
        self._columns = config.columns
        self._drops_opening = config.opening == "drop"
        self._source_columns = () if config.source else source_columns(config)
        self.format: str | None = None if config.format == "auto" else config.format
        self._found_at = ""

    def example(self, row: object, where: str) -> RawExample | Reject:
        """Return the row as an example, or a reject with the reason."""
        if not isinstance(row, dict):
            return Reject(self.source, where, f"a row must be an object, got {kind_of(row)}")
        source = named_source(row, self._source_columns, self.source)
        columns = self._columns
        try:
            messages = FORMATS[self._format_of(row, where)](row, columns)
        except ValueError as error:
            return Reject(source, where, str(error))
        if self._drops_opening:
            messages = without_opening(messages)
        identity, label = row.get(columns.id), row.get(columns.label)
        meta = row.get("meta")
        if isinstance(meta, dict) and meta.keys() == OWN_META:
            identity, label = meta["original_id"], meta["label"]
        return RawExample(source, messages, where, note_of(identity), note_of(label))

    def _format_of(self, row: Row, where: str) -> str:
        """Return the format of the file; a row of another format is an error."""
        check_tools(row)
        own = detect(row, self._columns)
        if self.format is None and own is not None:
            self.format, self._found_at = own, where
        stated = self.format
        if stated is None:
            raise RowError(_fits_none(row, self._columns))
        if own is None or own == stated or _has(row, stated, self._columns):
            return stated
        if not self._found_at:
            raise RowError(f"the row has the format '{own}', but format = \"{stated}\"")
        raise RowError(
            f"the row has the format '{own}', but by {self._found_at} this file has the format "
            f"'{stated}': put each format into a separate file"
        )


def check_tools(row: Row) -> None:
    """Raise a ``RowError`` for a row with tools."""
    for column in TOOL_COLUMNS:
        if is_given(row.get(column)):
            raise RowError(f"the row has tools ('{column}'); tool use is not supported")


def named_source(row: Row, columns: Iterable[str], otherwise: str) -> str:
    """Return the data set that a row names, otherwise the name of its file."""
    for column in columns:
        named = row.get(column)
        if isinstance(named, str) and named.strip():
            return named.strip()
        if isinstance(named, int) and not isinstance(named, bool):
            return str(named)
    return otherwise


def without_opening(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return a conversation without the answers before its first question."""
    start = sum(message.role == "system" for message in messages[:1])
    stop = start
    while stop < len(messages) and messages[stop].role == "assistant":
        stop += 1
    return (*messages[:start], *messages[stop:])


def source_columns(config: RowConfig) -> tuple[str, ...]:
    """Return the columns that may name a row's data set, in order."""
    named = config.columns.source
    return (named,) if isinstance(named, str) else named


def columns_of(config: RowConfig) -> list[str]:
    """Return the names of all columns that a reader may use."""
    named = config.columns.model_dump(exclude={"source", "chosen", "rejected"}).values()
    return list(dict.fromkeys([*named, *source_columns(config), "meta", *TOOL_COLUMNS]))


def _messages(row: Row, columns: Columns) -> tuple[Message, ...]:
    return _conversation(row, columns.messages, columns)


def _sharegpt(row: Row, columns: Columns) -> tuple[Message, ...]:
    return _conversation(row, columns.conversations, columns)


def _conversation(row: Row, column: str, columns: Columns) -> tuple[Message, ...]:
    items = row.get(column)
    if items is None:
        raise RowError(f"'{column}' is missing")
    messages, system = messages_from(items, column), system_turns(row, columns)
    if not system or messages[:1] == system:
        return messages
    if messages[:1] and messages[0].role == "system":
        raise RowError(f"'{columns.system}' and the first turn are two different system messages")
    return (*system, *messages)


def _alpaca(row: Row, columns: Columns) -> tuple[Message, ...]:
    task, answer = text_of(row, columns.instruction), text_of(row, columns.output)
    subject = optional_text(row, columns.input)
    question = f"{task}\n\n{subject}" if subject.strip() else task
    earlier = row.get(columns.history) or ()
    return (
        *system_turns(row, columns),
        *history_turns(earlier, columns.history),
        Message("user", question),
        Message("assistant", answer),
    )


def history_turns(earlier: object, column: str) -> Iterable[Message]:
    """Yield the earlier turns of an ``alpaca`` row."""
    if not isinstance(earlier, list | tuple):
        raise RowError(f"'{column}' must be a list of [question, answer], got {kind_of(earlier)}")
    for pair in earlier:
        match pair:
            case [str(question), str(answer)]:
                yield Message("user", question)
                yield Message("assistant", answer)
            case _:
                raise RowError(f"'{column}' must be a list of [question, answer], both text")


def _prompt_completion(row: Row, columns: Columns) -> tuple[Message, ...]:
    return (
        *system_turns(row, columns),
        *_side(row, columns.prompt, "user"),
        *_side(row, columns.completion, "assistant"),
    )


def _side(row: Row, column: str, role: Role) -> tuple[Message, ...]:
    """Return a prompt or a completion: text, or a list of turns."""
    value = row.get(column)
    if isinstance(value, list | dict):
        return messages_from(value, column)
    return (Message(role, text_of(row, column)),)


Convert = Callable[[Row, Columns], tuple[Message, ...]]

FORMATS: Mapping[str, Convert] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
}
"""The formats; the more specific ones come first."""


def telling(name: str, columns: Columns) -> tuple[str, ...]:
    """Return the columns that a row of a format must have."""
    return {
        "messages": (columns.messages,),
        "sharegpt": (columns.conversations,),
        "alpaca": (columns.instruction, columns.output),
        "prompt_completion": (columns.prompt, columns.completion),
    }[name]


def _has(row: Row, name: str, columns: Columns) -> bool:
    return all(row.get(column) is not None for column in telling(name, columns))


def detect(row: Row, columns: Columns) -> str | None:
    """Return the first format whose columns the row has."""
    return next((name for name in FORMATS if _has(row, name, columns)), None)


def _fits_none(row: Row, columns: Columns) -> str:
    given = [shown(key, 40) for key, value in row.items() if value is not None]
    more = f" and {len(given) - SHOWN_COLUMNS} more" if len(given) > SHOWN_COLUMNS else ""
    has = (", ".join(given[:SHOWN_COLUMNS]) or "none") + more
    wanted = "; ".join(" + ".join(telling(name, columns)) for name in FORMATS)
    return (
        f"its columns fit no row format: it has {has}; one of these is needed: {wanted} "
        "(set other names in the option 'columns')"
    )


def system_turns(row: Row, columns: Columns) -> tuple[Message, ...]:
    """Return the system message outside the turns, if there is one."""
    text = optional_text(row, columns.system)
    return (Message("system", text),) if text.strip() else ()


def text_of(row: Row, column: str) -> str:
    """Return a value that must be text."""
    value = row.get(column)
    if value is None:
        raise RowError(f"'{column}' is missing")
    if not isinstance(value, str):
        raise RowError(f"'{column}' must be text, got {kind_of(value)}")
    return value


def optional_text(row: Row, column: str) -> str:
    """Return a text that may be missing."""
    return "" if row.get(column) is None else text_of(row, column)


def note_of(value: object) -> str:
    """Return a row's own id or label as the pool stores it."""
    if value is None:
        return ""
    return value if isinstance(value, str) else str(value)
