"""Families about the meaning and the forms of words."""

from random import Random

from selectmoe_nano.question import Family, Question, others
from selectmoe_nano.vocabulary import (
    CATEGORIES,
    COLOUR_OF,
    COLOURS,
    MIXTURES,
    OPPOSITES,
    PAST,
    PLURALS,
    SOUNDS,
    YOUNG,
)

_OPPOSITE = (
    "What is the opposite of {word}?", "Give the opposite of {word}.", "{word} is the contrary of "
    "what?", "Which word means the reverse of {word}?", "Name the antonym of {word}.",
    "Not {word}, but the opposite. What is it?", "Find a word with the opposite meaning: {word}.",
    "Opposite of {word}:",
)  # fmt: skip
_PLURAL = (
    "What is the plural of {word}?", "Give the plural of {word}.", "One {word}, two what?",
    "Write the word {word} in the plural.", "How do you call more than one {word}?",
    "Plural form of {word}:", "Make {word} plural.", "I see one {word}. If there were many, what "
    "would I see?",
)  # fmt: skip
_PAST = (
    "What is the past tense of {word}?", "Give the past form of {word}.", "Today I {word}. "
    "Yesterday I did the same. Which form is it?", "Put the verb {word} into the past.",
    "Past tense of {word}:", "How do you say {word} in the simple past?",
    "Change {word} from present to past.", "Write the simple past of {word}.",
)  # fmt: skip
_KIND = (
    "What kind of thing is {word}?", "To which group does {word} belong?", "{word} is a kind of "
    "what?", "Classify {word}.", "In which category is {word}?", "Name the category of {word}.",
    "What sort of thing is {word}?", "Put {word} into a category.",
)  # fmt: skip
_MEMBER = (
    "Which of these is a kind of {kind}: {items}?", "Pick the word that names a {kind}: {items}.",
    "Only one of {items} belongs to the group {kind}. Which?", "Find the {kind}: {items}.",
)  # fmt: skip
_COLOUR = (
    "What colour is {thing}?", "Which colour has {thing}?", "Name the colour of {thing}.",
    "Tell me the colour of {thing}.", "Give the usual colour of {thing}.",
    "Of what colour is {thing}?", "If you paint {thing}, which colour do you need?",
    "The colour of {thing} is",
)  # fmt: skip
_MIX = (
    "Which colour do you get from {a} and {b}?", "Mix {a} with {b}. What colour is it?",
    "What do {a} and {b} paint give together?", "Name the mixture of {a} and {b}.",
    "{a} plus {b} makes which colour?", "Stir {a} paint into {b} paint. Which colour results?",
)  # fmt: skip
_YOUNG = (
    "What is a young {word} called?", "Name the young of a {word}.",
    "A baby {word} is called what?",
    "Give the word for a young {word}.", "How do you call the child of a {word}?",
    "What do you call a {word} that was just born?", "Young of the {word}:",
    "Which word names a little {word}?",
)  # fmt: skip
_SOUND = (
    "What sound does a {word} make?", "What does a {word} do when it is loud?",
    "Give the verb for the sound of a {word}.", "How does a {word} sound?",
    "Complete: the {word} ...", "Which sound belongs to the {word}?",
    "A {word} makes itself heard. What does it do?", "Name the call of the {word} as a verb.",
)  # fmt: skip


def opposite(rng: Random) -> Question:
    """The word of opposite meaning."""
    pair = rng.choice(OPPOSITES)
    word, right = pair if rng.randrange(2) else pair[::-1]
    pool = [word for other in OPPOSITES for word in other]
    return Question(rng.choice(_OPPOSITE).format(word=word), right, others(rng, pool, right, word))


def _regular(word: str) -> list[str]:
    """Return plural forms made by rules that may not apply."""
    return [f"{word}s", f"{word}es", f"{word}en", f"{word[:-1]}ies", f"{word[:-1]}ves", word]


def plural(rng: Random) -> Question:
    """The plural, regular or not; the wrong ones follow rules that do not apply."""
    word, right = rng.choice(PLURALS)
    text = rng.choice(_PLURAL).format(word=word)
    return Question(text, right, others(rng, _regular(word), right))


def past(rng: Random) -> Question:
    """The simple past; the wrong ones are other forms and the past of other verbs."""
    word, right = rng.choice(PAST)
    made = [f"{word}ed", f"{word}d", f"{word}s", f"{word}ing", *(form for _, form in PAST)]
    text = rng.choice(_PAST).format(word=word)
    return Question(text, right, others(rng, made[:4], right, count=2) + others(
        rng, made[4:], right, count=2))  # fmt: skip


def category(rng: Random) -> Question:
    """The kind of a thing, or the thing of a kind."""
    kinds = sorted(CATEGORIES)
    if rng.randrange(2):
        kind = rng.choice(kinds)
        text = rng.choice(_KIND).format(word=rng.choice(CATEGORIES[kind]))
        return Question(text, kind, others(rng, kinds, kind))
    kind, *rest = rng.sample(kinds, 4)
    right = rng.choice(CATEGORIES[kind])
    wrong = tuple(rng.choice(CATEGORIES[other]) for other in rest)
    items = [right, *wrong]
    rng.shuffle(items)
    text = rng.choice(_MEMBER).format(kind=kind, items=", ".join(items))
    return Question(text, right, wrong)


def colour(rng: Random) -> Question:
    """The colour of a thing or of a mixture."""
    if rng.randrange(6):
        thing = rng.choice(list(COLOUR_OF))
        right, text = COLOUR_OF[thing], rng.choice(_COLOUR).format(thing=thing)
        return Question(text, right, others(rng, COLOURS, right))
    pair = rng.choice(list(MIXTURES))
    right = MIXTURES[pair]
    a, b = rng.sample(pair, 2)
    return Question(rng.choice(_MIX).format(a=a, b=b), right, others(rng, COLOURS, right, a, b))


def animal(rng: Random) -> Question:
    """The name of a young animal, or the verb for an animal's sound."""
    table, templates = (YOUNG, _YOUNG) if rng.randrange(2) else (SOUNDS, _SOUND)
    word, right = rng.choice(table)
    text = rng.choice(templates).format(word=word)
    return Question(text, right, others(rng, [name for _, name in table], right))


FAMILIES: dict[str, Family] = {
    "opposite": opposite,
    "plural": plural,
    "past": past,
    "category": category,
    "colour": colour,
    "animal": animal,
}
