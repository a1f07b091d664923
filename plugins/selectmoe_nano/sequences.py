"""Families about lists: order, place, count."""

from random import Random

from selectmoe_nano.question import Family, Question, listing, near, others, permutations
from selectmoe_nano.vocabulary import CATEGORIES, NOUNS, ORDINALS

_LARGEST = (
    "Which number is the largest: {items}?", "Find the maximum of {items}.",
    "Name the biggest of these numbers: {items}.", "What is the highest number in {items}?",
)  # fmt: skip
_SMALLEST = (
    "Which number is the smallest: {items}?", "Find the minimum of {items}.",
    "Name the least of these numbers: {items}.", "What is the lowest number in {items}?",
)  # fmt: skip
_ASCENDING = (
    "Sort these numbers from small to large: {items}.", "Put {items} in ascending order.",
    "Arrange {items} so that they grow.", "Order the numbers {items}, smallest first.",
)  # fmt: skip
_DESCENDING = (
    "Sort these numbers from large to small: {items}.", "Put {items} in descending order.",
    "Arrange {items} so that they fall.", "Order the numbers {items}, largest first.",
)  # fmt: skip
_ALPHABET = (
    "Sort these words by the alphabet: {items}.", "Put {items} in alphabetical order.",
    "Arrange {items} as in a dictionary.", "Order the words {items} from A to Z.",
)  # fmt: skip
_REVERSE = (
    "Reverse this list: {items}.", "Write {items} backwards, word by word.",
    "Turn the order of {items} around.", "List {items} from the last to the first.",
)  # fmt: skip
_PLACE = (
    "What is the {nth} word in {items}?", "Name the {nth} item of this list: {items}.",
    "In {items}, which word comes {nth}?", "Give the {nth} entry of {items}.",
)  # fmt: skip
_NEXT = (
    "What number comes next: {items}?", "Continue the sequence {items}.",
    "Which number follows in {items}?", "Give the next term of {items}.",
)  # fmt: skip
_COUNT = (
    "How often does {word} occur in {items}?", "Count the word {word} in {items}.",
    "How many times is {word} in this list: {items}?", "In {items}, how many are {word}?",
)  # fmt: skip
_LENGTH = (
    "How many words are in this list: {items}?", "Count the items: {items}.",
    "How long is the list {items}?", "Give the number of entries in {items}.",
)  # fmt: skip
_ODD = (
    "Which word does not belong: {items}?", "Find the odd one out: {items}.",
    "One of {items} is of another kind. Which?", "Which of {items} does not fit the others?",
)  # fmt: skip


def extreme(rng: Random) -> Question:
    """The largest or smallest of four numbers."""
    items = rng.sample(range(10, 100), 4)
    templates, right = (_LARGEST, max(items)) if rng.randrange(2) else (_SMALLEST, min(items))
    wrong = tuple(str(n) for n in items if n != right)
    return Question(rng.choice(templates).format(items=listing(items)), str(right), wrong)


def sort_numbers(rng: Random) -> Question:
    """Four numbers, up or down."""
    items = rng.sample(range(10, 100), 4)
    down = bool(rng.randrange(2))
    right = listing(sorted(items, reverse=down))
    text = rng.choice(_DESCENDING if down else _ASCENDING).format(items=listing(items))
    return Question(text, right, permutations(rng, [str(n) for n in items], right))


def sort_words(rng: Random) -> Question:
    """Four words."""
    items = rng.sample(NOUNS, 4)
    right = listing(sorted(items))
    text = rng.choice(_ALPHABET).format(items=listing(items))
    return Question(text, right, permutations(rng, items, right))


def reverse_list(rng: Random) -> Question:
    """Three or four words."""
    items = rng.sample(NOUNS, rng.randrange(3, 5))
    right = listing(items[::-1])
    text = rng.choice(_REVERSE).format(items=listing(items))
    return Question(text, right, permutations(rng, items, right))


def place(rng: Random) -> Question:
    """The word at a given place."""
    items = rng.sample(NOUNS, rng.randrange(4, 6))
    index = rng.randrange(len(items))
    names = [ORDINALS[index]]
    if index == len(items) - 1:
        names.append("last")
    text = rng.choice(_PLACE).format(nth=rng.choice(names), items=listing(items))
    return Question(text, items[index], tuple(items[:index] + items[index + 1 :]))


def next_number(rng: Random) -> Question:
    """An arithmetic sequence, up or down."""
    step = rng.randrange(2, 12)
    if rng.randrange(2):
        first, change = rng.randrange(1, 40), step
    else:
        first, change = rng.randrange(5 * step, 99), -step
    terms = [first + i * change for i in range(5)]
    text = rng.choice(_NEXT).format(items=listing(terms[:4]))
    return Question(text, str(terms[4]), near(rng, terms[4], (1, 2, 3, step + 1), low=0))


def count_word(rng: Random) -> Question:
    """How often a word occurs in a short list."""
    word, *rest = rng.sample(NOUNS, 3)
    times = rng.randrange(1, 6)
    items = [word] * times + [rng.choice(rest) for _ in range(rng.randrange(1, 4))]
    rng.shuffle(items)
    text = rng.choice(_COUNT).format(word=word, items=listing(items))
    return Question(text, str(times), near(rng, times, (1, 2, 3, 4), low=0))


def list_length(rng: Random) -> Question:
    """How many entries a list has."""
    items = rng.sample(NOUNS, rng.randrange(2, 8))
    text = rng.choice(_LENGTH).format(items=listing(items))
    return Question(text, str(len(items)), near(rng, len(items), (1, 2, 3, 4), low=1))


def odd_one_out(rng: Random) -> Question:
    """Three words of one kind and one of another."""
    kind, other = rng.sample(sorted(CATEGORIES), 2)
    rest = rng.sample(CATEGORIES[kind], 3)
    right = others(rng, CATEGORIES[other], count=1)[0]
    items = [right, *rest]
    rng.shuffle(items)
    return Question(rng.choice(_ODD).format(items=listing(items)), right, tuple(rest))


FAMILIES: dict[str, Family] = {
    "extreme": extreme,
    "sort_numbers": sort_numbers,
    "sort_words": sort_words,
    "reverse_list": reverse_list,
    "place": place,
    "next_number": next_number,
    "count_word": count_word,
    "list_length": list_length,
    "odd_one_out": odd_one_out,
}
