"""Families about numbers."""

from random import Random

from selectmoe_nano.question import Family, Question, near
from selectmoe_nano.vocabulary import NAMES, ONES, TENS, THINGS

_ADD = (
    "What is {a} + {b}?", "Add {a} and {b}.", "Compute {a} plus {b}.", "{a} + {b} =",
    "Find the sum of {a} and {b}.", "How much is {a} and {b} together?",
)  # fmt: skip
_SUBTRACT = (
    "What is {a} - {b}?", "Subtract {b} from {a}.", "Compute {a} minus {b}.", "{a} - {b} =",
    "Take {b} away from {a}.", "What is the difference of {a} and {b}?",
)  # fmt: skip
_MULTIPLY = (
    "What is {a} x {b}?", "Multiply {a} by {b}.", "Compute {a} times {b}.", "{a} x {b} =",
    "Find the product of {a} and {b}.", "How much is {a} times {b}?",
)  # fmt: skip
_DIVIDE = (
    "What is {a} / {b}?", "Divide {a} by {b}.", "Compute {a} divided by {b}.", "{a} / {b} =",
    "How often does {b} go into {a}?", "Share {a} equally among {b}. How much does each get?",
)  # fmt: skip
_PARITY = (
    "Which of these numbers is {kind}: {items}?", "Find the {kind} number: {items}.",
    "Only one of {items} is {kind}. Which one?", "Name the {kind} number among {items}.",
)  # fmt: skip
_ROUND = (
    "Round {n} to the nearest ten.", "What is {n} rounded to the nearest ten?",
    "Give {n} rounded to tens.", "To the nearest ten, what is {n}?",
)  # fmt: skip
_WORDS = (
    "Write {n} in words.", "How do you spell the number {n}?", "Put the number {n} into words.",
    "Say {n} in words.",
)  # fmt: skip
_DIGITS = (
    "Write {n} in digits.", "Which number is {n}?", "Put {n} into digits.",
    "Give the digits of {n}.",
)  # fmt: skip
_GAIN = (
    "{who} has {a} {things} and gets {b} more. How many does {who} have now?",
    "{who} had {a} {things}. Then {who} found {b} more. How many are there now?",
    "There are {a} {things} in a box. {who} adds {b}. How many are in it?",
)
_LOSS = (
    "{who} has {a} {things} and gives away {b}. How many are left?",
    "{who} had {a} {things} and lost {b}. How many does {who} still have?",
    "There are {a} {things} in a box. {who} takes out {b}. How many remain?",
)
_TWICE = (
    "What is twice {n}?", "Double {n}.", "Compute two times {n}.", "What do you get if you "
    "double {n}?", "Give the double of {n}.",
)  # fmt: skip
_HALF = (
    "What is half of {n}?", "Halve {n}.", "Compute {n} divided by two.", "Give the half of {n}.",
    "What do you get if you halve {n}?",
)  # fmt: skip


def addition(rng: Random) -> Question:
    """Two numbers below 100."""
    a, b = rng.randrange(2, 100), rng.randrange(2, 100)
    text = rng.choice(_ADD).format(a=a, b=b)
    return Question(text, str(a + b), near(rng, a + b, (1, 2, 9, 10, 11)))


def subtraction(rng: Random) -> Question:
    """A number below 100 from one that is not smaller."""
    a = rng.randrange(3, 100)
    b = rng.randrange(1, a)
    text = rng.choice(_SUBTRACT).format(a=a, b=b)
    return Question(text, str(a - b), near(rng, a - b, (1, 2, 3, 9, 10)))


def multiplication(rng: Random) -> Question:
    """The tables, up to 20 by 12."""
    a, b = rng.randrange(2, 21), rng.randrange(2, 13)
    text = rng.choice(_MULTIPLY).format(a=a, b=b)
    return Question(text, str(a * b), near(rng, a * b, (1, 2, a, b, 10)))


def division(rng: Random) -> Question:
    """Without remainder."""
    b, quotient = rng.randrange(2, 13), rng.randrange(2, 21)
    text = rng.choice(_DIVIDE).format(a=b * quotient, b=b)
    return Question(text, str(quotient), near(rng, quotient, (1, 2, 3, 4, 10), low=1))


def parity(rng: Random) -> Question:
    """One even number among odd ones, or the other way round."""
    odd = rng.randrange(2)
    right = 2 * rng.randrange(2, 50) + odd
    rest = [2 * n + 1 - odd for n in rng.sample(range(2, 50), 3)]
    items = [right, *rest]
    rng.shuffle(items)
    kind = "odd" if odd else "even"
    text = rng.choice(_PARITY).format(kind=kind, items=", ".join(map(str, items)))
    return Question(text, str(right), tuple(map(str, rest)))


def rounding(rng: Random) -> Question:
    """To tens; a last digit of five is left out, so that no rule for it is needed."""
    tens, last = rng.randrange(1, 100), rng.choice((1, 2, 3, 4, 6, 7, 8, 9))
    n = 10 * tens + last
    right = 10 * ((n + 5) // 10)
    text = rng.choice(_ROUND).format(n=n)
    return Question(text, str(right), near(rng, right, (10, 20, 30), low=0))


def in_words(n: int) -> str:
    """Return a number from 0 to 999 in English words."""
    if n < len(ONES):
        return ONES[n]
    if n < 100:
        tens, units = divmod(n, 10)
        return TENS[tens] + (f"-{ONES[units]}" if units else "")
    hundreds, rest = divmod(n, 100)
    return f"{ONES[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")


def number_words(rng: Random) -> Question:
    """From digits to words or back."""
    n = rng.randrange(1, 1000)
    spread = near(rng, n, (1, 2, 10, 20, 100), low=1)
    if rng.random() < 0.5:
        text = rng.choice(_WORDS).format(n=n)
        return Question(text, in_words(n), tuple(in_words(int(m)) for m in spread))
    return Question(rng.choice(_DIGITS).format(n=in_words(n)), str(n), spread)


def word_problem(rng: Random) -> Question:
    """Someone gains or loses things; the answer is a sentence."""
    who, things = rng.choice(NAMES), rng.choice(THINGS)
    a = rng.randrange(4, 60)
    if rng.random() < 0.5:
        b = rng.randrange(2, 40)
        text, right = rng.choice(_GAIN).format(who=who, things=things, a=a, b=b), a + b
    else:
        b = rng.randrange(1, a - 1)
        text, right = rng.choice(_LOSS).format(who=who, things=things, a=a, b=b), a - b
    wrong = near(rng, right, (1, 2, 3, 10), low=1)
    return Question(text, f"{right} {things}", tuple(f"{n} {things}" for n in wrong))


def doubling(rng: Random) -> Question:
    """Twice or half of a number."""
    if rng.random() < 0.5:
        n = rng.randrange(6, 400)
        text, right = rng.choice(_TWICE).format(n=n), 2 * n
    else:
        right = rng.randrange(6, 400)
        text = rng.choice(_HALF).format(n=2 * right)
    return Question(text, str(right), near(rng, right, (1, 2, 5, 10), low=1))


FAMILIES: dict[str, Family] = {
    "addition": addition,
    "subtraction": subtraction,
    "multiplication": multiplication,
    "division": division,
    "parity": parity,
    "rounding": rounding,
    "number_words": number_words,
    "word_problem": word_problem,
    "doubling": doubling,
}
