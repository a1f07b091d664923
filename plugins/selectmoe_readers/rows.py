"""Row formats: a row as a mapping becomes an example, or a reject that says why not."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from selectmoe_core import Message, RawExample, Reject
from selectmoe_core.data import Role, messages_from
from selectmoe_readers.config import Columns, RowConfig

Row = Mapping[str, Any]

SPEAKERS: Mapping[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
"""Who speaks in ShareGPT data, by the names its collections use."""
TOOLS = frozenset(
    {"tool", "tools", "function", "function_call", "function_response", "observation"}
    | {"tool_call", "tool_response", "ipython"}
)


class RowError(ValueError):
    """A row that cannot be used; its text is the reason."""


class Rows:
    """Turns the rows of one file into examples; finds their format at the first usable one."""

    def __init__(self, config: RowConfig, source: str) -> None:
        """Take ``source`` as the name where neither the options nor a row give one."""
        self.source = config.source or source
        self._columns = config.columns
        self._source_column = None if config.source else config.columns.source
        self._convert = None if config.format == "auto" else FORMATS[config.format]

    def example(self, row: object, where: str) -> RawExample | Reject:
        """Return the row as an example, or why it is none."""
        if not isinstance(row, dict):
            return Reject(self.source, where, f"a row is not an object but {_kind(row)}")
        source = self.source
        if self._source_column:
            named = row.get(self._source_column)
            if isinstance(named, str) and named.strip():
                source = named.strip()
        try:
            if self._convert is None:
                self._convert = _detect(row, self._columns)
            messages = self._convert(row, self._columns)
        except ValueError as error:
            return Reject(source, where, str(error))
        columns = self._columns
        return RawExample(
            source, messages, where, _note(row.get(columns.id)), _note(row.get(columns.label))
        )


def columns_of(config: RowConfig) -> list[str]:
    """Return the names of all columns that a reader may look at."""
    return list(dict.fromkeys(config.columns.model_dump().values()))


def _messages(row: Row, columns: Columns) -> tuple[Message, ...]:
    items = row.get(columns.messages)
    if items is None:
        raise RowError(f"'{columns.messages}' is missing")
    try:
        return messages_from(items)
    except ValueError:
        _no_tools(items, "role")
        raise


def _sharegpt(row: Row, columns: Columns) -> tuple[Message, ...]:
    items = row.get(columns.conversations)
    if not isinstance(items, list) or not items:
        raise RowError(f"'{columns.conversations}' is not a list with at least one turn")
    return (*_system(row, columns), *map(_turn, items))


def _turn(item: object) -> Message:
    if not isinstance(item, Mapping):
        raise RowError(f"a turn is not an object but {_kind(item)}")
    speaker, text = _first(item, "from", "role"), _first(item, "value", "content")
    role = SPEAKERS.get(speaker.strip().lower()) if isinstance(speaker, str) else None
    if role is None:
        _no_tools([item], "from")
        known = ", ".join(SPEAKERS)
        raise RowError(f"unknown speaker {_shown(speaker)} of a turn, known: {known}")
    if not isinstance(text, str):
        raise RowError(f"the text of a turn is not text but {_kind(text)}")
    return Message(role, text)


def _alpaca(row: Row, columns: Columns) -> tuple[Message, ...]:
    task, answer = _text(row, columns.instruction), _text(row, columns.output)
    subject = _optional(row, columns.input)
    question = f"{task}\n\n{subject}" if subject.strip() else task
    earlier = row.get(columns.history) or ()
    return (
        *_system(row, columns),
        *_history(earlier, columns.history),
        Message("user", question),
        Message("assistant", answer),
    )


def _history(earlier: object, column: str) -> Iterable[Message]:
    if not isinstance(earlier, list | tuple):
        raise RowError(f"'{column}' is not a list of [question, answer] but {_kind(earlier)}")
    for pair in earlier:
        match pair:
            case [str(question), str(answer)]:
                yield Message("user", question)
                yield Message("assistant", answer)
            case _:
                raise RowError(f"'{column}' is not a list of [question, answer], both text")


def _prompt_completion(row: Row, columns: Columns) -> tuple[Message, ...]:
    prompt, completion = row.get(columns.prompt), row.get(columns.completion)
    if isinstance(prompt, list) and isinstance(completion, list):
        return (*_system(row, columns), *messages_from(prompt), *messages_from(completion))
    question, answer = _text(row, columns.prompt), _text(row, columns.completion)
    return (*_system(row, columns), Message("user", question), Message("assistant", answer))


Convert = Callable[[Row, Columns], tuple[Message, ...]]

FORMATS: Mapping[str, Convert] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
}


def _detect(row: Row, columns: Columns) -> Convert:
    """Return the format whose columns the row has; the more telling ones come first."""
    telling = {
        "messages": (columns.messages,),
        "sharegpt": (columns.conversations,),
        "alpaca": (columns.instruction, columns.output),
        "prompt_completion": (columns.prompt, columns.completion),
    }
    for name, needed in telling.items():
        if all(row.get(column) is not None for column in needed):
            return FORMATS[name]
    has = ", ".join(_shown(key) for key, value in row.items() if value is not None) or "none"
    wanted = "; ".join(" + ".join(needed) for needed in telling.values())
    raise RowError(
        f"its columns fit no row format: it has {has}; one of these is needed: {wanted} "
        "(other names can be told with 'columns')"
    )


def _system(row: Row, columns: Columns) -> tuple[Message, ...]:
    text = _optional(row, columns.system)
    return (Message("system", text),) if text.strip() else ()


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if value is None:
        raise RowError(f"'{column}' is missing")
    if not isinstance(value, str):
        raise RowError(f"'{column}' is not text but {_kind(value)}")
    return value


def _optional(row: Row, column: str) -> str:
    return "" if row.get(column) is None else _text(row, column)


def _first(item: Mapping[str, Any], *keys: str) -> object:
    """Return the first value that is there: in a Parquet column every key is, some as null."""
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _no_tools(items: object, key: str) -> None:
    """Raise where a turn is one of a tool, which selectmoe has no role for."""
    for item in items if isinstance(items, list) else ():
        speaker = _first(item, key, "role") if isinstance(item, Mapping) else None
        if isinstance(speaker, str) and speaker.strip().lower() in TOOLS:
            raise RowError(f"a turn is a tool's ('{speaker}'); tool use is not supported")
        if isinstance(item, Mapping) and (item.get("tool_calls") or item.get("function_call")):
            raise RowError("a turn calls a tool; tool use is not supported")


def _note(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else str(value)


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true/false"}
    kinds |= {int: "a number", float: "a number", type(None): "null"}
    return kinds.get(type(value), type(value).__name__)


def _shown(value: object, limit: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
