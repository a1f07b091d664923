"""Turns in the formats of data sets: names of roles and texts, and what is not supported."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from selectmoe_core.data.examples import Message, Role
from selectmoe_core.errors import shown

Turn = Mapping[Any, Any]

SPEAKERS: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
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
"""Roles by the names that data sets use; case does not matter."""
TOOLS = frozenset(
    {"tool", "tools", "function", "function_call", "function_response", "observation"}
    | {"tool_call", "tool_calls", "tool_response", "tool_result", "ipython"}
)
"""Names of speakers that are a tool or a tool call."""
TOOL_KEYS = ("tool_calls", "tool_call", "function_call", "function_calls", "tool_use")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking", "thought")
WEIGHT_KEYS = ("weight", "trained", "loss")
"""Keys of an answer: 1 or true if it is trained on, 0 or false if the model only reads it."""
TRAIN_KEYS = ("train", "training", "trainable")
"""The same; some tools use these keys to train on user messages too."""
DETAIL_KEYS = ("train_detail", "training_detail")


class MessagesError(ValueError):
    """A value is not a list of messages; the text says why, on one line."""


def messages_from(items: object, name: str = "messages") -> tuple[Message, ...]:
    """Return messages from turns such as ``{"role", "content"}`` or ``{"from", "value"}``.

    A list of turns, the same as JSON text, or a table of lists (a column of ``datasets``).

    Args:
        items: the turns.
        name: the column they came from, for messages.

    Raises:
        MessagesError: what is wrong, in one line: a reader turns it into a ``Reject``.
    """
    return tuple([turn for item in _turns(items, name) if (turn := message_of(item)) is not None])


def message_of(item: object) -> Message | None:
    """Return a turn as a message; ``None`` for an empty system turn.

    Raises:
        MessagesError: what is wrong, in one line.
    """
    if not isinstance(item, dict):
        raise MessagesError(f"a turn must be an object, got {kind_of(item)}")
    speaker = _only(item, "role", "from")
    role = SPEAKERS.get(speaker.strip().lower()) if isinstance(speaker, str) else None
    _check_use(item, speaker)
    if role is None:
        raise MessagesError(f"unknown role {shown(speaker)}, known: {', '.join(SPEAKERS)}")
    content = _only(item, "content", "value", "text")
    if content is None and role == "system":
        return None
    return Message(role, _text(content), _trained(item, role))


def is_given(value: object) -> bool:
    """Return whether a value is given: a Parquet column has every key, and some are null."""
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}", "null")
    return value is not None and value is not False and value not in ([], {}, ())


def kind_of(value: object) -> str:
    """Return the type of a value in the words of JSON."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true/false"}
    kinds |= {int: "a number", float: "a number", type(None): "null"}
    return kinds.get(type(value), type(value).__name__)


def _turns(items: object, name: str) -> Iterable[object]:
    if isinstance(items, str):
        try:
            items = json.loads(items)
        except (ValueError, RecursionError):
            raise MessagesError(f"'{name}' must be a list of turns, got text") from None
    if isinstance(items, dict):
        items = _rows_of(items, name)
    if not isinstance(items, list) or not items:
        raise MessagesError(f"'{name}' must be a list with at least one turn")
    return items


def _rows_of(table: Turn, name: str) -> list[dict[Any, Any]]:
    """Return the turns of a table of lists, one list for each key."""
    lists = {key: value for key, value in table.items() if value is not None}
    if not lists or not all(isinstance(value, list) for value in lists.values()):
        raise MessagesError(f"'{name}' must be a list of turns, got an object")
    if len({len(value) for value in lists.values()}) > 1:
        raise MessagesError(f"'{name}' has lists of different lengths")
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _check_use(item: Turn, speaker: object) -> None:
    """Raise if a turn has more than its text, because it would be lost without notice."""
    if isinstance(speaker, str) and speaker.strip().lower() in TOOLS:
        raise MessagesError(f"a turn is by a tool ({shown(speaker)}); tool use is not supported")
    if any(is_given(item.get(key)) for key in TOOL_KEYS):
        raise MessagesError("a turn calls a tool; tool use is not supported")
    for key in REASONING_KEYS:
        if is_given(item.get(key)):
            raise MessagesError(
                f"a turn has '{key}', which would be lost: put it into the text of the turn, "
                "or remove it"
            )
    for key in DETAIL_KEYS:
        if is_given(item.get(key)):
            raise MessagesError(f"a turn has '{key}', which is not supported")


def _trained(item: Turn, role: Role) -> bool:
    """Return whether an answer is trained on; other turns never are."""
    flags = {key: _flag(item[key], key) for key in WEIGHT_KEYS if item.get(key) is not None}
    asked = {key: _flag(item[key], key) for key in TRAIN_KEYS if item.get(key) is not None}
    if role != "assistant":
        for key, value in asked.items():
            if value:
                raise MessagesError(
                    f"'{key}' asks to train on a {role} turn, but only answers are trained on"
                )
        return True
    values = {**flags, **asked}
    if len(set(values.values())) > 1:
        names = " and ".join(f"'{key}'" for key in values)
        raise MessagesError(f"a turn contradicts itself: {names} differ")
    return all(values.values())


def _flag(value: object, key: str) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise MessagesError(
        f"'{key}' of a turn is {shown(value)}: it must be 0 (not trained on) or 1 (trained on)"
    )


def _only(item: Turn, *keys: str) -> object:
    """Return the value of whichever key is given."""
    given = {key: item[key] for key in keys if item.get(key) is not None}
    values = list(given.values())
    if any(value != values[0] for value in values[1:]):
        names = " and ".join(f"'{key}'" for key in given)
        raise MessagesError(f"a turn has both {names}, and they differ")
    return values[0] if values else None


def _text(content: object) -> str:
    """Return the text of a turn; the parts of a list of texts are joined by line ends."""
    if isinstance(content, list):
        parts = [_part(part) for part in content]
        if parts and all(isinstance(part, str) for part in parts):
            return "\n".join(map(str, parts))
        content = None if None in parts or not parts else parts[0]
    if isinstance(content, str):
        return content
    what = "missing" if content is None else f"not text but {kind_of(content)}"
    raise MessagesError(f"the content of a turn is {what}")


def _part(part: object) -> object:
    if not isinstance(part, dict):
        return part
    kind = part.get("type") or "text"
    if kind != "text":
        raise MessagesError(f"a turn has {shown(kind)}; only text is supported")
    return part.get("text")
