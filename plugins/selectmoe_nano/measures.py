"""Families about days, clocks, units, money and directions."""

from random import Random

from selectmoe_nano.question import Family, Question, near, others
from selectmoe_nano.vocabulary import MONTH_DAYS, MONTHS, NAMES, WEEKDAYS

UNITS = (
    ("metres", "centimetres", 100), ("kilometres", "metres", 1000),
    ("centimetres", "millimetres", 10), ("kilograms", "grams", 1000),
    ("tonnes", "kilograms", 1000), ("litres", "millilitres", 1000), ("hours", "minutes", 60),
    ("minutes", "seconds", 60), ("days", "hours", 24), ("weeks", "days", 7),
    ("years", "months", 12), ("dozens", "pieces", 12),
)  # fmt: skip
COMPASS = ("north", "east", "south", "west")
_TURNS = {"right": 1, "left": -1, "around": 2}
_WEEKDAY = (
    "Today is {day}. What day is it in {n} days?", "Which weekday is {n} days after {day}?",
    "Start at {day} and go {n} days forward. Which day is it?", "{day} plus {n} days is which day?",
)  # fmt: skip
_WEEKDAY_BACK = (
    "Today is {day}. What day was it {n} days ago?", "Which weekday is {n} days before {day}?",
    "Start at {day} and go {n} days back. Which day is it?", "{day} minus {n} days is which day?",
)  # fmt: skip
_MONTH = (
    "Which month is {n} months after {month}?", "It is {month}. Which month is it in {n} months?",
    "Go {n} months forward from {month}.", "Name the month {n} months later than {month}.",
)  # fmt: skip
_DATE = (
    "Which date is {n} days after {month} {day}?", "Today is {month} {day}. What is the date in "
    "{n} days?", "Add {n} days to {month} {day}.", "{n} days past {month} {day} is which date?",
)  # fmt: skip
_UNIT = (
    "How many {small} are {n} {big}?", "Convert {n} {big} to {small}.", "Express {n} {big} in "
    "{small}.", "{n} {big} are how many {small}?", "Change {n} {big} into {small}.",
)  # fmt: skip
_CLOCK = (
    "It is {time}. What time is it in {n} minutes?", "Which time is {n} minutes after {time}?",
    "Add {n} minutes to {time}.", "A film starts at {time} and runs {n} minutes. When does it end?",
)  # fmt: skip
_DURATION = (
    "How many minutes are from {start} to {end}?", "A bus leaves at {start} and arrives at {end}. "
    "How many minutes does it take?", "How long is it from {start} to {end} in minutes?",
    "Give the minutes between {start} and {end}.",
)  # fmt: skip
_CHANGE = (
    "{who} pays {price} cents with {paid} cents. How much comes back?",
    "A cake costs {price} cents. {who} gives {paid} cents. What is the change?",
    "From {paid} cents {who} spends {price} cents. How much remains?",
    "The price is {price} cents and {who} hands over {paid} cents. How much is returned?",
)
_COST = (
    "One pen costs {price} cents. What do {n} pens cost?", "{who} buys {n} cups at {price} cents "
    "each. What is the total?", "How much are {n} cards for {price} cents apiece?",
    "{n} stamps of {price} cents each cost how much?",
)  # fmt: skip
_TURN = (
    "{who} faces {side} and turns {turn}. Which way does {who} look now?",
    "You look {side}. You turn {turn}. Where do you look?",
    "Turn {turn} while facing {side}. What is the new direction?",
    "Starting from {side}, a turn {turn} leads to which direction?",
)
_TURNS_TWO = (
    "{who} faces {side}, turns {turn}, then {second}. Which way does {who} look now?",
    "You look {side}. You turn {turn} and then {second}. Where do you look?",
)


def weekday(rng: Random) -> Question:
    """A weekday some days away."""
    index, n = rng.randrange(7), rng.randrange(1, 15)
    back = bool(rng.randrange(2))
    right = WEEKDAYS[(index - n if back else index + n) % 7]
    text = rng.choice(_WEEKDAY_BACK if back else _WEEKDAY).format(day=WEEKDAYS[index], n=n)
    return Question(text, right, others(rng, WEEKDAYS, right))


def month(rng: Random) -> Question:
    """A month some months later."""
    index, n = rng.randrange(12), rng.randrange(1, 13)
    right = MONTHS[(index + n) % 12]
    text = rng.choice(_MONTH).format(month=MONTHS[index], n=n)
    return Question(text, right, others(rng, MONTHS, right))


def date(rng: Random) -> Question:
    """A date some days later, within the month or just behind it; February is left out."""
    index = rng.choice([i for i in range(12) if i != 1])
    day, n = rng.randrange(1, MONTH_DAYS[index] + 1), rng.randrange(1, 15)

    def after(days: int) -> str:
        over = day + days - MONTH_DAYS[index]
        if over > 0:
            return f"{MONTHS[(index + 1) % 12]} {over}"
        return f"{MONTHS[index]} {day + days}"

    wrong = tuple(after(int(step)) for step in near(rng, n, (1, 2, 3, 4), low=1))
    text = rng.choice(_DATE).format(n=n, month=MONTHS[index], day=day)
    return Question(text, after(n), wrong)


def units(rng: Random) -> Question:
    """From a larger unit to a smaller one."""
    big, small, factor = rng.choice(UNITS)
    n = rng.randrange(2, 40)
    right = n * factor
    text = rng.choice(_UNIT).format(n=n, big=big, small=small)
    return Question(text, str(right), near(rng, right, (factor, 2 * factor, 10, 100), low=1))


def _time(minutes: int) -> str:
    """Return minutes since midnight as 14:05."""
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


def clock(rng: Random) -> Question:
    """A time some minutes later."""
    start, n = 5 * rng.randrange(288), 5 * rng.randrange(1, 20)
    text = rng.choice(_CLOCK).format(time=_time(start), n=n)
    wrong = tuple(_time(start + n + step) for step in rng.sample((-60, -10, -5, 5, 10, 60), 4))
    return Question(text, _time(start + n), wrong)


def duration(rng: Random) -> Question:
    """Minutes between two times of one day."""
    start, n = 5 * rng.randrange(240), 5 * rng.randrange(2, 25)
    text = rng.choice(_DURATION).format(start=_time(start), end=_time(start + n))
    return Question(text, str(n), near(rng, n, (5, 10, 15, 60), low=1))


def money(rng: Random) -> Question:
    """Change, or the price of several things."""
    who = rng.choice(NAMES)
    if rng.randrange(2):
        paid = rng.choice((20, 50, 100, 200))
        price = rng.randrange(3, paid - 4)
        right = paid - price
        text = rng.choice(_CHANGE).format(who=who, price=price, paid=paid)
    else:
        price, n = rng.randrange(3, 40), rng.randrange(2, 10)
        right = price * n
        text = rng.choice(_COST).format(who=who, price=price, n=n)
    wrong = near(rng, right, (1, 2, 5, 10), low=1)
    return Question(text, f"{right} cents", tuple(f"{other} cents" for other in wrong))


def direction(rng: Random) -> Question:
    """Where someone looks after one or two turns."""
    who, index = rng.choice(NAMES), rng.randrange(4)
    turn, second = rng.choice(list(_TURNS)), rng.choice(list(_TURNS))
    if rng.randrange(2):
        text, total = rng.choice(_TURN), _TURNS[turn]
    else:
        text, total = rng.choice(_TURNS_TWO), _TURNS[turn] + _TURNS[second]
    right = COMPASS[(index + total) % 4]
    text = text.format(who=who, side=COMPASS[index], turn=turn, second=second)
    return Question(text, right, others(rng, COMPASS, right, count=3))


FAMILIES: dict[str, Family] = {
    "weekday": weekday,
    "month": month,
    "date": date,
    "units": units,
    "clock": clock,
    "duration": duration,
    "money": money,
    "direction": direction,
}
