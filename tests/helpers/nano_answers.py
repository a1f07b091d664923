"""Right answers of generated questions, found from their text alone by other means."""

import calendar
import re
from collections.abc import Callable
from datetime import datetime, timedelta

from selectmoe_nano.letters import WORDS
from selectmoe_nano.vocabulary import CATEGORIES, NOUNS

PER_UNIT = {
    "metres centimetres": 100, "kilometres metres": 1000, "centimetres millimetres": 10,
    "kilograms grams": 1000, "tonnes kilograms": 1000, "litres millilitres": 1000,
    "hours minutes": 60, "minutes seconds": 60, "days hours": 24, "weeks days": 7,
    "years months": 12, "dozens pieces": 12,
}  # fmt: skip
NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90,
}  # fmt: skip


def numbers(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"\d+", text)]


def listed(text: str) -> list[str]:
    found = re.search(r"\w+(?:, \w+)+", text)
    assert found, text
    return [item for item in found[0].split(", ") if item in NOUNS or item[0].isdigit()]


def word_of(text: str) -> str:
    (word,) = {found for found in re.findall(r"\b[a-z]+", text) if found in WORDS}
    return word


def says(text: str, pattern: str) -> bool:
    return re.search(pattern, text) is not None


def spoken(text: str) -> int:
    """Read an English number below 1,000."""
    hundreds, found, rest = text.rpartition(" hundred")
    value = 100 * NUMBERS[hundreds] if found else 0
    parts = re.findall(r"[a-z]+", rest.removeprefix(" and "))
    return value + sum(NUMBERS[part] for part in parts)


def parity(text: str) -> str:
    rest = 1 if says(text, "odd") else 0
    (found,) = [n for n in numbers(text) if n % 2 == rest]
    return str(found)


def rounding(text: str) -> str:
    (n,) = numbers(text)
    return str(min(range(0, 1010, 10), key=lambda tens: abs(tens - n)))


def doubling(text: str) -> str:
    (n,) = numbers(text)
    return str(n * 2 if says(text.lower(), "double|twice|two times") else n / 2).removesuffix(".0")


def number_words(text: str) -> str:
    if numbers(text):
        return ""  # the other way round: see ``right``
    inner = re.search(r"(?:Write |number is |Put |digits of )(.+?)(?: in digits| into digits|)[.?]$", text)  # fmt: skip  # noqa: E501
    assert inner, text
    return str(spoken(inner[1]))


def word_problem(text: str) -> str:
    a, b = numbers(text)
    things = re.search(r"\d (\w+)", text)
    assert things
    return f"{a + b if says(text, 'gets|found|adds') else a - b} {things[1]}"


def sort_numbers(text: str) -> str:
    down = says(text, "from large|descending|fall|largest first")
    return ", ".join(str(n) for n in sorted(numbers(text), reverse=down))


def place(text: str) -> str:
    names = ("first", "second", "third", "fourth", "fifth", "last")
    (index,) = [i for i, name in enumerate(names) if says(text, rf"\b{name}\b")]
    return listed(text)[-1 if index == 5 else index]


def count_word(text: str) -> str:
    (word,) = [found for found in re.findall(r"[a-z]+", _without_list(text)) if found in NOUNS]
    return str(listed(text).count(word))


def _not_nouns(text: str) -> str:
    return " ".join(word for word in text.split(", ") if word not in NOUNS)


def _without_list(text: str) -> str:
    return re.sub(r"\w+(?:, \w+)+", lambda found: _not_nouns(found[0]), text)


def next_number(text: str) -> str:
    terms = numbers(text)
    return str(2 * terms[-1] - terms[-2])


def odd_one_out(text: str) -> str:
    items = re.search(r"\w+(?:, \w+)+", text)
    assert items
    kinds = {word: kind for kind, words in CATEGORIES.items() for word in words}
    of = [kinds[word] for word in items[0].split(", ")]
    (single,) = [kind for kind in of if of.count(kind) == 1]
    return items[0].split(", ")[of.index(single)]


def end_letter(text: str) -> str:
    return word_of(text)[0 if says(text, "first|start|beginning|begin") else -1]


def letter_count(text: str) -> str:
    word = word_of(text)
    return str(len(re.findall("[aeiou]", word)) if says(text, "vowel| u[?]") else len(word))


def alphabet(text: str) -> str:
    (letter,) = re.findall(r"\b([A-Z])\b", text)
    return chr(ord(letter) + (-1 if says(text.lower(), "before|precedes|left") else 1))


def weekday(text: str) -> str:
    day = next(i for i, name in enumerate(calendar.day_name) if name in text)
    (n,) = numbers(text)
    start = datetime(2024, 1, 1) + timedelta(days=day)  # a Monday
    back = says(text, "ago|before|back|minus")
    return f"{start + timedelta(days=-n if back else n):%A}"


def month(text: str) -> str:
    index = next(i for i, name in enumerate(calendar.month_name) if name and name in text)
    return calendar.month_name[(index + numbers(text)[0] - 1) % 12 + 1]


def date(text: str) -> str:
    found = re.search(r"([A-Z][a-z]+) (\d+)", text.replace("Add ", "add "))
    assert found
    start = datetime.strptime(f"{found[1]} {found[2]} 2023", "%B %d %Y")
    (n,) = numbers(text.replace(found[0], ""))
    end = start + timedelta(days=n)
    return f"{end:%B} {end.day}"


def units(text: str) -> str:
    (n,) = numbers(text)
    words = set(re.findall(r"[a-z]+", text))
    (factor,) = [value for pair, value in PER_UNIT.items() if set(pair.split()) <= words]
    return str(n * factor)


def clock(text: str) -> str:
    found = re.search(r"\d\d:\d\d", text)
    assert found
    (n,) = numbers(text.replace(found[0], ""))
    return f"{datetime.strptime(found[0], '%H:%M') + timedelta(minutes=n):%H:%M}"


def duration(text: str) -> str:
    start, end = (datetime.strptime(t, "%H:%M") for t in re.findall(r"\d\d:\d\d", text))
    return str((end - start).seconds // 60)


def money(text: str) -> str:
    a, b = numbers(text)
    return f"{abs(a - b) if says(text, 'back|change|remains|returned') else a * b} cents"


def direction(text: str) -> str:
    ways = ("north", "east", "south", "west")
    (side,) = [i for i, name in enumerate(ways) if says(text, name)]
    turns = re.findall(r"\b(?:left|right|around)\b", text)
    return ways[(side + sum({"left": 3, "right": 1, "around": 2}[t] for t in turns)) % 4]


def ranking(text: str) -> str:
    above = dict(re.findall(r"(\w+) is \w+ than (\w+)\.", text))
    (top,) = above.keys() - above.values()
    (bottom,) = above.values() - above.keys()
    return top if says(text, "tallest|oldest|fastest|richest") else bottom


def movement(text: str) -> str:
    at = dict(re.findall(r"(\w+) (?:was in|went to) the (\w+)\.", text))
    asked = re.search(r"is (\w+) now", text)
    assert asked
    return f"in the {at[asked[1]]}"


def whereabouts(text: str) -> str:
    at = dict(re.findall(r"(\w+) is in the (\w+)\.", text))
    who = re.findall(r"\b[A-Z][a-z]+\b", text[text.rindex(". ") + 2 :])[-1]
    return f"{who} is in the {at[who]}."


def holders(text: str) -> str:
    has = {thing: who for who, thing in re.findall(r"(\w+) has the (\w+)\.", text)}
    thing = re.findall(r"the (\w+)", text)[-1]
    return has[thing]


def totals(text: str) -> str:
    who = re.findall(r"(\w+) has (\d+)", text)
    return f"{max(who, key=lambda pair: int(pair[1]))[0]} has more."


RIGHT: dict[str, Callable[[str], str]] = {
    "addition": lambda t: str(sum(numbers(t))),
    "subtraction": lambda t: str(max(numbers(t)) - min(numbers(t))),
    "multiplication": lambda t: str(numbers(t)[0] * numbers(t)[1]),
    "division": lambda t: str(max(numbers(t)) // min(numbers(t))),
    "extreme": lambda t: str(
        (max if says(t, "largest|maximum|biggest|highest") else min)(numbers(t))
    ),
    "sort_words": lambda t: ", ".join(sorted(listed(t))),
    "reverse_list": lambda t: ", ".join(reversed(listed(t))),
    "list_length": lambda t: str(len(listed(t))),
    "spelling": lambda t: "-".join(word_of(t)),
    "backwards": lambda t: "".join(reversed(word_of(t))),
    "capitals": lambda t: word_of(t).upper(),
    "join": lambda t: "-".join(listed(t)),
    **{
        found.__name__: found
        for found in (
            parity, rounding, doubling, number_words, word_problem, sort_numbers, place, count_word,
            next_number, odd_one_out, end_letter, letter_count, alphabet, weekday, month, date,
            units, clock, duration, money, direction, ranking, movement, whereabouts, holders,
            totals,
        )
    },
}  # fmt: skip


def is_right(family: str, text: str, answer: str) -> bool:
    if family == "number_words" and numbers(text):
        return spoken(answer) == numbers(text)[0]
    return RIGHT[family](text) == answer
