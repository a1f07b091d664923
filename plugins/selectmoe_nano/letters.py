"""Families about the letters of words."""

import string
from random import Random

from selectmoe_nano.question import Family, Question, near, others
from selectmoe_nano.vocabulary import CATEGORIES, NOUNS, RHYMES

WORDS = tuple(
    sorted({*NOUNS, *(word for kind in CATEGORIES.values() for word in kind if len(word) < 9)})
)
_SPELL = (
    "Spell the word {word}.", "How do you spell {word}?", "Give the letters of {word} one by one.",
    "Write {word} letter by letter.", "Spell out {word}.",
)  # fmt: skip
_BACKWARDS = (
    "Write {word} backwards.", "Reverse the letters of {word}.", "Spell {word} from the end.",
    "What is {word} read from right to left?", "Turn the word {word} around.",
)  # fmt: skip
_FIRST = (
    "What is the first letter of {word}?", "Which letter does {word} start with?",
    "Give the letter at the beginning of {word}.", "With which letter does {word} begin?",
)  # fmt: skip
_LAST = (
    "What is the last letter of {word}?", "Which letter does {word} end with?",
    "Give the letter at the end of {word}.", "With which letter does {word} stop?",
)  # fmt: skip
_COUNT = (
    "How many letters does {word} have?", "Count the letters of {word}.",
    "How long is the word {word}?", "Give the number of letters in {word}.",
)  # fmt: skip
_VOWELS = (
    "How many vowels are in {word}?", "Count the vowels of {word}.",
    "Give the number of vowels in {word}.", "How often does {word} use a, e, i, o or u?",
)  # fmt: skip
_AFTER = (
    "Which letter comes after {letter}?", "What letter follows {letter} in the alphabet?",
    "Name the letter right after {letter}.", "Give the next letter after {letter}.",
    "In the alphabet, what is next to {letter} on the right?", "After {letter} comes which letter?",
)  # fmt: skip
_BEFORE = (
    "Which letter comes before {letter}?", "What letter precedes {letter} in the alphabet?",
    "Name the letter right before {letter}.", "Give the letter just before {letter}.",
    "In the alphabet, what is next to {letter} on the left?",
    "Before {letter} comes which letter?",
)  # fmt: skip
_RHYME = (
    "Which word rhymes with {word}: {items}?", "Find a rhyme for {word} among {items}.",
    "{word} rhymes with one of {items}. Which one?", "Pick the word that sounds like {word}: "
    "{items}.",
)  # fmt: skip
_JOIN = (
    "Join {items} with dashes.", "Put a dash between {items}.", "Connect the words {items} by "
    "dashes.", "Write {items} as one string with dashes.",
)  # fmt: skip
_CAPITALS = (
    "Write {word} in capital letters.", "Put {word} in upper case.", "Change {word} to capitals.",
    "Give {word} in big letters.",
)  # fmt: skip


def _misspelt(rng: Random, word: str) -> list[str]:
    """Return four spellings which differ from the word in one letter or in the order of two."""
    found: dict[str, None] = {}
    while len(found) < 4:
        i = rng.randrange(len(word) - 1)
        changed = word[:i] + rng.choice(string.ascii_lowercase) + word[i + 1 :]
        if rng.randrange(2):
            changed = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        if changed != word:
            found[changed] = None
    return list(found)


def spelling(rng: Random) -> Question:
    """A word, letter by letter."""
    word = rng.choice(WORDS)
    wrong = tuple("-".join(other) for other in _misspelt(rng, word))
    return Question(rng.choice(_SPELL).format(word=word), "-".join(word), wrong)


def backwards(rng: Random) -> Question:
    """A word from its end."""
    word = rng.choice(WORDS)
    wrong = tuple(_misspelt(rng, word[::-1]))
    return Question(rng.choice(_BACKWARDS).format(word=word), word[::-1], wrong)


def end_letter(rng: Random) -> Question:
    """The first or the last letter."""
    word = rng.choice(WORDS)
    templates, right = (_FIRST, word[0]) if rng.randrange(2) else (_LAST, word[-1])
    pool = list(dict.fromkeys([*word, *"etaoinsr"]))
    return Question(rng.choice(templates).format(word=word), right, others(rng, pool, right))


def letter_count(rng: Random) -> Question:
    """How many letters, or how many vowels."""
    word = rng.choice(WORDS)
    vowels = bool(rng.randrange(2))
    right = sum(letter in "aeiou" for letter in word) if vowels else len(word)
    text = rng.choice(_VOWELS if vowels else _COUNT).format(word=word)
    return Question(text, str(right), near(rng, right, (1, 2, 3), low=0))


def alphabet(rng: Random) -> Question:
    """The letter beside another one."""
    index = rng.randrange(1, 25)
    after = bool(rng.randrange(2))
    letter = string.ascii_uppercase[index]
    right = string.ascii_uppercase[index + (1 if after else -1)]
    text = rng.choice(_AFTER if after else _BEFORE).format(letter=letter)
    close = string.ascii_uppercase[max(0, index - 4) : index + 5]
    return Question(text, right, others(rng, close, right, letter, count=3))


def rhyme(rng: Random) -> Question:
    """One word of four rhymes."""
    group, *rest = rng.sample(RHYMES, 4)
    word, right = rng.sample(group, 2)
    wrong = [rng.choice(other) for other in rest]
    items = [right, *wrong]
    rng.shuffle(items)
    text = rng.choice(_RHYME).format(word=word, items=", ".join(items))
    return Question(text, right, tuple(wrong))


def join(rng: Random) -> Question:
    """Three words with dashes between them."""
    items = rng.sample(NOUNS, 3)
    a, b, c = items
    wrong = tuple("-".join(other) for other in ((b, a, c), (c, b, a), (a, c, b), (b, c, a)))
    return Question(rng.choice(_JOIN).format(items=", ".join(items)), "-".join(items), wrong)


def capitals(rng: Random) -> Question:
    """A word in capital letters."""
    word = rng.choice(WORDS)
    wrong = tuple(other.upper() for other in _misspelt(rng, word))
    return Question(rng.choice(_CAPITALS).format(word=word), word.upper(), wrong)


FAMILIES: dict[str, Family] = {
    "spelling": spelling,
    "backwards": backwards,
    "end_letter": end_letter,
    "letter_count": letter_count,
    "alphabet": alphabet,
    "rhyme": rhyme,
    "join": join,
    "capitals": capitals,
}
