"""Odd values of every type, and changes of trees of tables and lists."""

import copy
import datetime
import random
from typing import Any

TEXTS = (
    "", " ", ".", "..", "/", "../../victim", "../victim/kept.txt", "./", "a/../../../victim", "~",
    "~nobody/x", "~x", "*", "**", "**/*", "[", "[!", "{a,b}", "?", "a\0b", "\0",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07", "\u202egpj", "\u2028", "\x7f", "\x85", "e\u0301" * 300, "x" * 300,
    "x" * 5000,
    "bundled:", "bundled:nano-llama", "bundled:nano-olmoe", "bundled:nano", "bundled:../x",
    "bundled:x",
    "allenai/OLMoE-1B-7B-0125", "no/such", "a//b", "https://example.org/x", "file:///etc/hostname",
    "nan", "inf", "-1", "1e999", "true", "True", "None", "null", "\U0001f600", "a\r\nb", "a\nb",
    "a\tb",
    "C:\\x", "a b", "-", "--help", "-x", "@file", "pool.jsonl", "pipe", "folder", "loop", "base",
    "./base", "/dev/null", "/dev/zero", "/dev/stdin", "/proc/self/environ", "CON", "a" * 255, "é",
    "\ufeff",
    "tulu", "model", "template.jinja", "{{ 1 }}", "{% for x in range(10**9) %}x{% endfor %}",
    "stop",
    "skip", "all", "response", "$HOME", "${x}", "%s", "%(x)s", "{}", "{0}", "\\", "'", '"', "# no",
    "=",
    "a.b", "a,b", "[x]", "a" * 64, "0", "1", "0x10", "1_000", "jsonl", "less", "hub", "router",
    "random",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 7, 64, 1000, 2**31, 2**31 - 1, -(2**31), 2**63 - 1, 2**63, -(2**63) - 1, 2**64,
    10**30,
    10**400, 0.0, -0.0, 0.5, 1.0, 1.5, -0.5, 1e-9, 1e308, 1e-308, 5e-324, 1e22, float("nan"),
    float("inf"), float("-inf"),
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    True, False, [], {}, [[]], [{}], [""], [0], [None], ["a", "a"], {"": ""},
    {"a": {"b": {"c": 1}}},
    {"use": "random"}, {"use": 1}, ["x"] * 1000, [1, "a", 2.5, [True]],
)  # fmt: skip
TIMES = (
    datetime.datetime(1979, 5, 27, 7, 32),
    datetime.datetime(1, 1, 1, tzinfo=datetime.UTC),
    datetime.date(9999, 12, 31),
    datetime.time(7, 32, 0, 999999),
)
"""What TOML has beside JSON's types."""
ROLES = ("user", "assistant", "system", "tool", "human", "gpt", "robot", "", "USER", "function")


def odd(random_: random.Random, *, times: bool = False) -> Any:
    """Return an odd value; ``times`` also gives TOML's dates."""
    kinds = [TEXTS, NUMBERS, OTHERS, ROLES, *([TIMES] if times else [])]
    weights = [6, 4, 3, 1, 1][: len(kinds)]
    value = random_.choice(random_.choices(kinds, weights)[0])
    if random_.random() < 0.1:
        return [copy.deepcopy(value) for _ in range(random_.randint(1, 3))]
    return without_none(value) if times else copy.deepcopy(value)


def without_none(value: Any) -> Any:
    """Return a value that TOML can hold."""
    if isinstance(value, list):
        return [without_none(item) for item in value if item is not None]
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return value


def nested(depth: int, leaf: Any = 0, *, tables: bool = False) -> Any:
    """Return a value below so many lists or tables."""
    for _ in range(depth):
        leaf = {"a": leaf} if tables else [leaf]
    return leaf


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value within a value."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += places(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value[:20]):
            found += places(item, (*path, number))
    return found


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """Return the value at a path."""
    for key in path:
        value = value[key]
    return value


def mutate(random_: random.Random, tree: dict[str, Any], keys: list[str], odd_value: Any) -> str:
    """Change a tree in place and return what was done.

    Args:
        random_: decides what.
        tree: what is changed.
        keys: names that mean something somewhere.
        odd_value: gives an odd value.
    """
    found = places(tree)
    change = random_.choice(("set", "set", "set", "drop", "rename", "copy", "add", "wrap", "swap"))
    if change == "add" or not found:
        inner = at(tree, random_.choice([p for p in ((), *found) if isinstance(at(tree, p), dict)]))
        key = random_.choice([*keys, str(random_.choice(TEXTS))])
        inner[key] = odd_value()
        return f"add {key!r} = {inner[key]!r:.200}"
    path = random_.choice(found)
    inner, last = at(tree, path[:-1]), path[-1]
    return f"{change} {path!r}: {_change(random_, change, tree, inner, last, keys, odd_value):.200}"


def _change(
    random_: random.Random, change: str, tree: Any, inner: Any, last: Any, keys: list[str],
    odd_value: Any,
) -> str:  # fmt: skip
    if change == "drop":
        return repr(inner.pop(last))
    if change == "wrap":
        inner[last] = [inner[last]] if random_.random() < 0.5 else {"a": inner[last]}
    elif change == "swap":
        other = random_.choice(places(tree))
        inner[last] = copy.deepcopy(at(tree, other))
    elif change in ("rename", "copy") and isinstance(inner, dict):
        key = random_.choice([*keys, str(random_.choice(TEXTS)), f"{last}x", str(last).upper()])
        value = inner.pop(last) if change == "rename" else copy.deepcopy(inner[last])
        inner[key] = value
        return repr(key)
    elif change == "copy" and isinstance(inner, list):
        inner.append(copy.deepcopy(inner[last]))
    else:
        inner[last] = odd_value()
    return repr(inner[last])


def mutate_bytes(random_: random.Random, content: bytes) -> tuple[bytes, str]:
    """Return bytes with something wrong in them, and what."""
    size = len(content)
    spot = random_.randrange(size + 1)
    end = min(size, spot + random_.choice((1, 4, 16, 100)))
    junk = random_.choice(
        (b"\0", b"\xff", b"\xe9", b"\n", b"\r", b"[", b"{", b"}", b'"', b"'", b"\\", b",")
    )
    change = random_.choice(("flip", "drop", "insert", "cut", "double", "zero", "random"))
    match change:
        case "flip" if size > spot:
            flipped = bytes([content[spot] ^ (1 << random_.randrange(8))])
            return content[:spot] + flipped + content[spot + 1 :], f"flip a bit of byte {spot}"
        case "drop":
            return content[:spot] + content[end:], f"drop bytes {spot} to {end}"
        case "insert":
            return content[:spot] + junk + content[spot:], f"insert {junk!r} at {spot}"
        case "cut":
            return content[:spot], f"cut at {spot} of {size}"
        case "double":
            return content[:end] + content[spot:], f"double bytes {spot} to {end}"
        case "zero":
            return content[:spot] + bytes(end - spot) + content[end:], f"zero bytes {spot} to {end}"
    some = random_.randbytes(end - spot)
    return content[:spot] + some + content[end:], f"random bytes {spot} to {end}"
