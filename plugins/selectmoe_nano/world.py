"""An invented little world with fixed facts, and short stories to understand."""

from random import Random
from typing import NamedTuple

from selectmoe_nano.question import Family, Question, others
from selectmoe_nano.vocabulary import NAMES, THINGS

TOWNS = ("Arvel", "Brundik", "Corma", "Delfin", "Estora", "Fallow", "Gildar", "Holm")
JOBS = ("baker", "doctor", "farmer", "miller", "painter", "sailor", "tailor", "teacher")
PETS = ("cat", "dog", "goat", "hen", "horse", "mouse", "parrot", "rabbit")
FOODS = ("bread", "cheese", "honey", "nuts", "plums", "rice", "soup", "stew")
ROOMS = ("attic", "cellar", "garden", "hall", "kitchen", "library", "stable", "workshop")
RIVERS = ("Ost", "Lun", "Pell", "Quar", "Rand", "Sile", "Tamm", "Ull")


class Person(NamedTuple):
    """What is true of one inhabitant."""

    town: str
    job: str
    pet: str
    food: str


def _inhabitants() -> dict[str, Person]:
    """Return the fixed facts: always drawn from the same seed, so that they can be learned."""
    rng = Random(2048)
    tables = (TOWNS, JOBS, PETS, FOODS)
    return {name: Person(*(rng.choice(table) for table in tables)) for name in NAMES}


PEOPLE = _inhabitants()
_HOME = (
    "Where does {who} live?", "In which town is the home of {who}?", "Name the town of {who}.",
    "Which town does {who} live in?", "Tell me where {who} is at home.", "{who} lives in which "
    "town?", "Give the home town of {who}.", "The home of {who} is in",
)  # fmt: skip
_JOB = (
    "What is the job of {who}?", "What does {who} work as?", "Name the trade of {who}.",
    "Which job does {who} have?", "Tell me the work of {who}.", "{who} earns a living as what?",
    "Give the profession of {who}.", "By trade, {who} is a",
)  # fmt: skip
_PET = (
    "Which animal does {who} keep?", "What pet does {who} have?", "Name the pet of {who}.",
    "{who} owns which animal?", "Tell me what animal lives with {who}.", "What is the pet of "
    "{who}?", "Give the animal that {who} keeps.", "The pet of {who} is a",
)  # fmt: skip
_FOOD = (
    "What does {who} like to eat?", "Which food does {who} like best?", "Name the favourite food "
    "of {who}.", "{who} likes to eat what?", "Tell me the best-loved dish of {who}.",
    "What is the favourite food of {who}?", "Give the food that {who} likes most.",
    "At table {who} asks for",
)  # fmt: skip
_RIVER = (
    "Which river flows through {town}?", "Name the river of {town}.", "On which river is {town}?",
    "What is the river in {town} called?", "{town} lies on which river?", "Tell me the river that "
    "passes {town}.", "Give the name of the river at {town}.", "The river of {town} is the",
)  # fmt: skip
_TOWN_OF = (
    "Which town lies on the {river}?", "Name the town on the {river}.", "The {river} flows through "
    "which town?", "What town is on the banks of the {river}?", "Follow the {river}. Which town "
    "do you reach?", "Tell me the town at the {river}.", "On the {river} lies",
)  # fmt: skip
_RIVER_OF = (
    "Which river flows through the town where {who} lives?", "Name the river of the home town of "
    "{who}.", "On which river does {who} live?", "{who} lives near which river?",
    "Tell me the river in the town of {who}.", "The home of {who} is on the river",
)  # fmt: skip
_ASK_PLACE = ("Where is {who}?", "In which room is {who}?", "Tell me where {who} is.")
_ASK_HOLDER = ("Who has the {thing}?", "Who holds the {thing}?", "Name the one with the {thing}.")
_TALL = (
    ("taller", "tallest", "shortest"), ("older", "oldest", "youngest"),
    ("faster", "fastest", "slowest"), ("richer", "richest", "poorest"),
)  # fmt: skip
_HELD = ("cards", "coins", "eggs", "nuts", "shells", "stamps")


def inhabitant(rng: Random) -> Question:
    """The town or the trade of an inhabitant."""
    who = rng.choice(NAMES)
    person = PEOPLE[who]
    templates, table, right = (
        (_HOME, TOWNS, person.town) if rng.randrange(2) else (_JOB, JOBS, person.job)
    )
    return Question(rng.choice(templates).format(who=who), right, others(rng, table, right))


def habits(rng: Random) -> Question:
    """The pet or the favourite food of an inhabitant."""
    who = rng.choice(NAMES)
    person = PEOPLE[who]
    templates, table, right = (
        (_PET, PETS, person.pet) if rng.randrange(2) else (_FOOD, FOODS, person.food)
    )
    return Question(rng.choice(templates).format(who=who), right, others(rng, table, right))


def rivers(rng: Random) -> Question:
    """Towns and their rivers, also by way of an inhabitant."""
    index = rng.randrange(len(TOWNS))
    town, river = TOWNS[index], RIVERS[index]
    draw = rng.randrange(4)
    if draw == 0:
        return Question(rng.choice(_RIVER).format(town=town), river, others(rng, RIVERS, river))
    if draw == 1:
        return Question(rng.choice(_TOWN_OF).format(river=river), town, others(rng, TOWNS, town))
    who = rng.choice(NAMES)
    river = RIVERS[TOWNS.index(PEOPLE[who].town)]
    return Question(rng.choice(_RIVER_OF).format(who=who), river, others(rng, RIVERS, river))


def whereabouts(rng: Random) -> Question:
    """Three people in three rooms; the answer is a sentence."""
    people, rooms = rng.sample(NAMES, 3), rng.sample(ROOMS, 3)
    story = " ".join(f"{p} is in the {r}." for p, r in zip(people, rooms, strict=True))
    index = rng.randrange(3)
    who, right = people[index], rooms[index]
    wrong = [*(room for room in rooms if room != right), *others(rng, ROOMS, *rooms, count=2)]
    text = f"{story} {rng.choice(_ASK_PLACE).format(who=who)}"
    return Question(
        text, f"{who} is in the {right}.", tuple(f"{who} is in the {room}." for room in wrong)
    )


def movement(rng: Random) -> Question:
    """Someone goes from one room to another."""
    (who, friend), (first, second, third) = rng.sample(NAMES, 2), rng.sample(ROOMS, 3)
    story = f"{who} was in the {first}. {friend} was in the {third}. {who} went to the {second}."
    if rng.randrange(2):
        asked, right = who, second
    else:
        asked, right = friend, third
    text = f"{story} Where is {asked} now?"
    wrong = [room for room in (first, second, third) if room != right]
    wrong += others(rng, ROOMS, first, second, third, count=2)
    return Question(text, f"in the {right}", tuple(f"in the {room}" for room in wrong))


def holders(rng: Random) -> Question:
    """Three people with three kinds of things."""
    people, things = rng.sample(NAMES, 3), rng.sample(_HELD, 3)
    story = " ".join(f"{p} has the {t}." for p, t in zip(people, things, strict=True))
    index = rng.randrange(3)
    right = people[index]
    wrong = (*(p for p in people if p != right), *others(rng, NAMES, *people, count=1))
    text = f"{story} {rng.choice(_ASK_HOLDER).format(thing=things[index])}"
    return Question(text, right, wrong)


def ranking(rng: Random) -> Question:
    """Who is first or last of three, told by two comparisons."""
    a, b, c = rng.sample(NAMES, 3)
    more, most, least = rng.choice(_TALL)
    clauses = [f"{a} is {more} than {b}.", f"{b} is {more} than {c}."]
    rng.shuffle(clauses)
    question, right = (most, a) if rng.randrange(2) else (least, c)
    text = f"{' '.join(clauses)} Who is the {question}?"
    wrong = (*(p for p in (a, b, c) if p != right), *others(rng, NAMES, a, b, c, count=1))
    return Question(text, right, wrong)


def totals(rng: Random) -> Question:
    """Two people count what they have; the answer compares them."""
    (first, second), thing = rng.sample(NAMES, 2), rng.choice(THINGS)
    m, n = rng.sample(range(2, 60), 2)
    right, rest = (first, second) if m > n else (second, first)
    text = f"{first} has {m} {thing} and {second} has {n}. " + rng.choice(
        (f"Who has more {thing}?", "Who has more?", f"Which of the two has more {thing}?")
    )
    wrong = (f"{rest} has more.", "Both have the same.", "Neither has any.")
    return Question(text, f"{right} has more.", wrong)


FAMILIES: dict[str, Family] = {
    "inhabitant": inhabitant,
    "habits": habits,
    "rivers": rivers,
    "whereabouts": whereabouts,
    "movement": movement,
    "holders": holders,
    "ranking": ranking,
    "totals": totals,
}
