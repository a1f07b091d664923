"""Damage to numbers that a reader can check: by arithmetic, the prompt, a calendar or units."""

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from random import Random

from selectmoe_core import Example
from selectmoe_damage.turns import Messages, changed

NUMBER = re.compile(r"\d+")
LONGEST_NUMBER = 15
"""Longer rows of digits are no amounts."""
WRITTEN = r"\d{1,3}(?:,\d{3})+|\d+"
EQUATION = re.compile(
    rf"(?<![\d.,])\$?(?P<a>{WRITTEN})\s*(?P<op>[-+*/x\u00d7\u00f7])\s*\$?(?P<b>{WRITTEN})"
    rf"\s*=\s*\$?(?P<c>{WRITTEN})(?!\d|[.,]\d)"
)
OPERATIONS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}
SIGNS = {"x": "*", "\u00d7": "*", "\u00f7": "/"}
YEAR = re.compile(r"(?<![\d.,$])(?:1[0-9]|20)\d\d(?![\d%]|[.,]\d)")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
"""May is a verb as well."""
MONTH = re.compile(rf"\b({'|'.join(MONTHS)})\b")
UNITS = (
    ("km", "m", "cm", "mm", "miles", "feet", "inches"),
    ("kilometers", "meters", "centimeters", "miles", "feet", "inches"),
    ("kg", "g", "mg", "pounds", "ounces"),
    ("seconds", "minutes", "hours", "days", "weeks", "months", "years"),
    ("dollars", "cents", "euros", "pounds"),
    ("percent", "degrees"),
)
"""Units of one kind each: one of them in the place of another makes an amount absurd."""
OTHERS = {
    unit: tuple(other for other in group if other != unit)
    for group in reversed(UNITS)
    for unit in group
}
AMOUNT = re.compile(rf"(?<=\d)(\s*)({'|'.join(sorted(OTHERS, key=len, reverse=True))})\b")


def near(digits: str, random: Random, avoid: Sequence[str] = ()) -> str:
    """Return another number that could be a slip of this one; none of ``avoid``, if possible."""
    value = int(digits)
    step = 10 ** (len(digits) - 1)
    wrong = [value + 1, value - 1, value + step, value - step, value + 2, value * 2]
    wrong += [int(digits[:n] + digits[n + 1] + digits[n] + digits[n + 2 :]) for n in _pairs(digits)]
    fitting = sorted({number for number in wrong if number >= 0 and number != value})
    new = [number for number in fitting if str(number) not in avoid]
    return str(random.choice(new or fitting))


def _pairs(digits: str) -> Sequence[int]:
    """Return the places of two neighbouring digits that differ; no number begins with zero."""
    return [n for n in range(len(digits) - 1) if digits[n] != digits[n + 1] != "0"]


def miscalculated(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Make one true equation false: another result, also where it is repeated behind it."""

    def miscalculate(text: str) -> str | None:
        found = [match for match in EQUATION.finditer(text) if _is_true(match)]
        if not found:
            return None
        match = random.choice(found)
        right = match["c"]
        wrong = near(right.replace(",", ""), random)
        # Whoever goes on with the wrong result makes no second mistake.
        later = re.sub(rf"(?<![\d.,]){right}(?![\d]|[.,]\d)", wrong, text[match.end() :])
        return text[: match.start("c")] + wrong + later

    return changed(example, "assistant", miscalculate)


def _is_true(match: re.Match[str]) -> bool:
    a, b, c = (Fraction(match[name].replace(",", "")) for name in "abc")
    sign = SIGNS.get(match["op"], match["op"])
    if len(match["c"]) > LONGEST_NUMBER or (sign == "/" and not b):
        return False
    return OPERATIONS[sign](a, b) == c


def misquoted(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Change a number that the answer has from the prompt, wherever the answer has it."""
    asked = {
        number
        for message in example.messages
        if message.role != "assistant"
        for number in NUMBER.findall(message.content)
    }

    def misquote(text: str) -> str | None:
        shared = [number for number in NUMBER.findall(text) if number in asked]
        shared = [number for number in dict.fromkeys(shared) if len(number) <= LONGEST_NUMBER]
        if not shared:
            return None
        old = random.choice(shared)
        new = near(old, random, sorted(asked))
        return NUMBER.sub(lambda match: new if match[0] == old else match[0], text)

    return changed(example, "assistant", misquote)


def misdated(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Move one year by a decade to a century, or put another month in its place."""

    def misdate(text: str) -> str | None:
        found = [*YEAR.finditer(text), *MONTH.finditer(text)]
        if not found:
            return None
        match = random.choice(found)
        if match[0].isdigit():
            new = str(int(match[0]) + random.choice((-1, 1)) * random.randint(10, 99))
        else:
            new = random.choice([month for month in MONTHS if month != match[0]])
        return text[: match.start()] + new + text[match.end() :]

    return changed(example, "assistant", misdate)


def mismeasured(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Put another unit of the same kind behind an amount."""

    def mismeasure(text: str) -> str | None:
        found = list(AMOUNT.finditer(text))
        if not found:
            return None
        match = random.choice(found)
        return text[: match.start(2)] + random.choice(OTHERS[match[2]]) + text[match.end() :]

    return changed(example, "assistant", mismeasure)
