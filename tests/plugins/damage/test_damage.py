"""The kinds of damage: each does what it says, and nothing but its key decides what comes out."""

import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selectmoe_core.data.corruption import Damage, drawn_order, plant, plant_some, random_of
from selectmoe_core.data.examples import Example, Message, content_id, conversation_problem
from selectmoe_core.errors import PluginError
from selectmoe_core.plan.plan import make_plan
from selectmoe_core.plugin.manager import empty_manager, hookspecs, load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import read_recipe
from selectmoe_damage.plugin import selectmoe_damages

KINDS = {damage.name: damage for damage in selectmoe_damages()}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def example(*texts, system=None):
    """A conversation of user and assistant in turn."""
    roles = ("user", "assistant")
    turns = [Message(roles[place % 2], text) for place, text in enumerate(texts)]
    messages = (*([Message("system", system)] if system else []), *turns)
    return Example(content_id(messages).hex(), "test", messages)


SUM = example(
    "How much is twelve plus seven, in words and in digits?",
    "Twelve plus seven is nineteen, in digits 19. Carry nothing, says Ada, 12 + 7 = 19.",
)
TALK = example(
    "Name the largest planet of our solar system, please, not Saturn.",
    "Jupiter is the largest of the eight planets. Then comes Saturn, says Galileo. Not Mars.",
    "And how many moons does it have, roughly?",
    "About 95 are known today, four of them large.",
    system="Be brief.",
)
FRUIT = example(
    "Ada has 12 apples and 7 pears. Each weighs 200 g. How heavy are all, on 3 March 1999?",
    "12 + 7 = 19 fruits. 19 x 200 = 3,800 g, so 3,800 g on 3 March 1999.",
)
ROAD = example(
    "It is 60 km to town and 15 km back home?",
    "60 - 15 = 45 km remain, as of April 2004.",
    "And in 1987?",
    "In 1987 it was 60 / 4 = 15 km; that is 2 km less than in June.",
)
NUMBERS = ("wrong_arithmetic", "prompt_number", "date_slip", "unit_swap")


def rows_for(kind):
    """Two examples that a kind can change."""
    return (FRUIT, ROAD) if kind.name in NUMBERS else (SUM, TALK)


OTHERS = [
    example("Say yes in French, Ben.", "Oui, bien entendu, dear Ben."),
    example("Colour of grass, Cleo?", "Green."),
]


def texts(found, role):
    return [one.content for one in found.messages if one.role == role]


def test_there_are_the_kinds_that_are_promised():
    assert len(KINDS) == 19
    assert all(one.about.endswith(".") and len(one.about) < 100 for one in KINDS.values())


@every_kind
@pytest.mark.parametrize("which", [0, 1], ids=["one turn", "two turns"])
def test_a_kind_changes_an_example_and_leaves_a_conversation(kind, which):
    one = rows_for(kind)[which]
    for seed in range(20):
        found = plant(one, kind, OTHERS, seed)
        assert found is not None
        assert found.messages != one.messages
        assert found.id == content_id(found.messages).hex() != one.id
        assert found.source == one.source
        assert conversation_problem(found.messages) is None
        assert [m.role for m in found.messages] == [m.role for m in one.messages]
        assert texts(found, "system") == texts(one, "system")
        if kind.name not in ("instruction_garble", "role_swap"):
            assert texts(found, "user") == texts(one, "user")
        if kind.name == "instruction_garble":
            assert texts(found, "assistant") == texts(one, "assistant")


@every_kind
def test_the_same_key_gives_the_same_damage_and_another_seed_another(kind):
    row = rows_for(kind)[1]
    first = [plant(row, kind, OTHERS, seed) for seed in range(8)]
    random.seed(3)  # the global generator has no say
    assert first == [plant(row, kind, OTHERS, seed) for seed in range(8)]
    # These leave nothing to chance, and one sentence of TALK alone can be negated.
    chance = kind.name not in ("prompt_echo", "role_swap", "negation")
    assert (len({one.id for one in first}) > 1) is chance


def test_damage_does_not_depend_on_the_process():
    program = (
        "from selectmoe_core.data.corruption import random_of\n"
        "print(random_of('ab', 'answer_swap', 7).random())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert found == {f"{random_of('ab', 'answer_swap', 7).random()}\n"}


@every_kind
@given(data=st.data())
def test_no_text_is_too_odd(kind, data):
    """Whatever the texts are: None or another conversation, never an exception."""
    text = st.text(max_size=40)
    turns = data.draw(st.lists(text, min_size=2, max_size=6))
    one = example(*turns)
    found = plant(one, kind, [example("a", data.draw(text)), one], data.draw(st.integers(0, 99)))
    assert found is None or (
        found.messages != one.messages and conversation_problem(found.messages) is None
    )


def test_each_kind_does_what_its_name_says():
    kinds = {name: kind for name, kind in KINDS.items() if name not in NUMBERS}
    found = {name: plant(SUM, kind, OTHERS, 5) for name, kind in kinds.items()}
    answer = {name: one.response for name, one in found.items()}
    original = SUM.response
    assert answer["answer_swap"] in {other.response for other in OTHERS}
    assert sorted(answer["answer_shuffle"].split()) == sorted(original.split())
    assert original.startswith(answer["answer_truncate"])
    assert len(answer["answer_truncate"]) <= 0.67 * len(original)
    assert answer["prompt_echo"] == SUM.prompt
    assert found["role_swap"].prompt == original
    assert answer["role_swap"] == SUM.prompt
    assert re.search("[<&{]|Share|Skip", answer["html_debris"])
    assert re.search("[ÃÂâ]", answer["mojibake"])
    assert not set(answer["refusal_boilerplate"].split()) >= set(original.split())
    words = answer["answer_loop"].split()
    assert max(words.count(word) for word in words) >= 3
    digits = [len(run) for run in re.findall("[0-9]+", original)]
    changed = re.findall("[0-9]+", answer["wrong_numbers"])
    assert [len(run) for run in changed] == digits
    assert all(a != b for a, b in zip(changed, re.findall("[0-9]+", original), strict=True))
    assert re.sub("[0-9]", "", answer["wrong_numbers"]) == re.sub("[0-9]", "", original)
    garbled, asked = found["instruction_garble"].prompt.split(), SUM.prompt.split()
    assert len(garbled) == len(asked) - len(asked) // 4
    halves = original.split(". ")
    assert answer["sentence_shuffle"] == f"{halves[1]} {halves[0]}."
    was, now = (re.findall("[0-9]+", text) for text in (original, answer["number_slip"]))
    assert sum(a != b for a, b in zip(was, now, strict=True)) == 1
    assert re.sub("[0-9]", "", answer["number_slip"]) == re.sub("[0-9]", "", original)
    assert answer["name_swap"] in {original.replace("Ada", name) for name in ("Ben", "Cleo")}
    assert answer["negation"] == original.replace(" is ", " is not ")


def test_what_cannot_be_damaged_is_not():
    short = example("Sum?", "7")
    for name in ("answer_shuffle", "answer_truncate", "instruction_garble"):
        assert plant(short, KINDS[name], OTHERS, 1) is None, name
    assert plant(example("Name a colour.", "Red."), KINDS["wrong_numbers"], OTHERS, 1) is None
    assert plant(example("Again?", "Green."), KINDS["answer_swap"], OTHERS[1:], 1) is None
    assert plant(example("Yes.", "Yes."), KINDS["prompt_echo"], OTHERS, 1) is None


def test_what_is_no_conversation_any_more_counts_as_not_damaged():
    silent = Damage("silent", "Empty.", lambda one, other, chance: (one.messages[0],))
    same = Damage("same", "Same.", lambda one, other, chance: one.messages)
    assert plant(SUM, silent, OTHERS, 1) is None
    assert plant(SUM, same, OTHERS, 1) is None


def test_kinds_are_drawn_by_their_rates_and_one_that_cannot_gives_way():
    rates = dict.fromkeys(KINDS, 0.0) | {"answer_swap": 3.0, "prompt_echo": 1.0}
    drawn = [
        plant_some(example(f"Question {n}?", f"Answer {n}."), KINDS.values(), rates, OTHERS, 1).kind
        for n in range(2000)
    ]
    assert set(drawn) == {"answer_swap", "prompt_echo"}
    assert 0.71 < drawn.count("answer_swap") / len(drawn) < 0.79
    rates = dict.fromkeys(KINDS, 0.0) | {"wrong_numbers": 1e9, "prompt_echo": 1.0}
    assert plant_some(OTHERS[0], KINDS.values(), rates, OTHERS, 1).kind == "prompt_echo"
    rates = dict.fromkeys(KINDS, 0.0) | {"wrong_numbers": 1.0}
    assert plant_some(OTHERS[0], KINDS.values(), rates, OTHERS, 1) is None


def test_a_kind_left_out_does_not_change_what_the_others_do():
    rates = dict.fromkeys(KINDS, 1.0)
    order = [one.name for one in drawn_order("ab", list(KINDS.values()), rates, 1)]
    assert sorted(order) == sorted(KINDS)
    backwards = drawn_order("ab", list(KINDS.values())[::-1], rates, 1)
    assert order == [one.name for one in backwards]


class Fake:
    def __init__(self, *damages):
        self.damages = damages

    @hookspecs.hookimpl
    def selectmoe_damages(self):
        return list(self.damages)


def test_the_registry_gathers_kinds_and_names_clashes():
    manager = empty_manager()
    manager.register(Fake(*KINDS.values()), name="one")
    manager.register(Fake(Damage("burnt", "Burnt.", lambda *_: None)), name="two")
    registry = Registry(manager)
    assert set(registry.damages) == {*KINDS, "burnt"}
    assert registry.damage_plugins["burnt"] == "two"
    manager.register(Fake(Damage("burnt", "Again.", lambda *_: None)), name="three")
    with pytest.raises(PluginError, match="the damage 'burnt' is offered by two plugins"):
        _ = Registry(manager).damages
    manager = empty_manager()
    manager.register(Fake("burnt"), name="one")
    with pytest.raises(PluginError, match="not a Damage"):
        _ = Registry(manager).damages


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_a_rate_is_a_number_of_zero_or_more(rate):
    manager = empty_manager()
    manager.register(Fake(Damage("burnt", "Burnt.", lambda *_: None, rate)), name="one")
    with pytest.raises(PluginError, match="the damage 'burnt' has the rate"):
        _ = Registry(manager).damages


@pytest.mark.parametrize("teaching", ["constraint", "contrastive"])
def test_a_new_kind_makes_a_new_warm_up_where_copies_are_corrupted(tmp_path, teaching):
    recipe = read_recipe(
        Path(__file__).parents[3] / "recipes" / "default.toml",
        [f"warmup.use=select-moe-{teaching}"],
    )

    def digest(*plugins):
        manager = load_plugins()
        for plugin in plugins:
            manager.register(plugin, name="further")
        return make_plan(recipe, Registry(manager), tmp_path).nodes["warmup"].digest

    further = Fake(Damage("burnt", "Burnt.", lambda *_: None))
    assert (digest() == digest(further)) is (teaching == "constraint")


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("It is not warm.", {"It is warm."}),
        ("It isn't warm.", {"It is warm."}),
        ("It can grow.", {"It can not grow."}),
        ("Yes.", {"No."}),
        ("More of it.", {"Less of it."}),
        ("It is always so.", {"It is not always so.", "It is never so."}),
        ("Blue.", set()),
    ],
)
def test_a_negation_says_the_opposite_in_one_place(answer, wanted):
    found = [plant(example("Well?", answer), KINDS["negation"], OTHERS, seed) for seed in range(30)]
    assert {one.response for one in found if one} == wanted


def test_a_slip_is_another_number_that_is_near():
    found = {
        plant(example("Sum?", "It is 120."), KINDS["number_slip"], OTHERS, seed).response
        for seed in range(200)
    }
    numbers = {int(re.search("[0-9]+", text)[0]) for text in found}
    assert numbers == {119, 121, 122, 20, 220, 240, 210}
    for seed in range(30):
        zero = plant(example("Sum?", "0"), KINDS["number_slip"], OTHERS, seed)
        assert zero.response in {"1", "2"}
    assert plant(example("Sum?", "9" * 30), KINDS["number_slip"], OTHERS, 1) is None


def test_names_change_places_where_both_occur():
    one = example("Who?", "It was Ada who met Ben, so Ada won.")
    found = {plant(one, KINDS["name_swap"], OTHERS, seed).response for seed in range(20)}
    assert found == {"It was Ben who met Ada, so Ben won."}
    assert plant(example("Who?", "Nobody. Really not."), KINDS["name_swap"], OTHERS, 1) is None


def test_sentences_keep_their_words_and_lines():
    one = example("How?", "First do this. Then that!\nAt last stop.")
    for seed in range(20):
        found = plant(one, KINDS["sentence_shuffle"], OTHERS, seed).response
        parts = re.split(r"(?<=[.!])\s+", found)
        assert sorted(parts) == ["At last stop.", "First do this.", "Then that!"]
        assert found.count("\n") == 1
    assert plant(example("How?", "Only one."), KINDS["sentence_shuffle"], OTHERS, 1) is None


def test_a_warm_up_draws_the_kinds_without_a_rate_only_if_they_are_named():
    unrated = {name for name, kind in KINDS.items() if kind.rate == 0}
    assert unrated == {"sentence_shuffle", "number_slip", "name_swap", "negation", *NUMBERS}
    rates = {name: kind.rate for name, kind in KINDS.items()}
    drawn = {plant_some(SUM, list(KINDS.values()), rates, OTHERS, seed).kind for seed in range(400)}
    assert drawn == set(KINDS) - unrated


def answers_of(kind, one, seeds=60):
    """What a kind makes of an answer, over seeds."""
    found = [plant(one, KINDS[kind], OTHERS, seed) for seed in range(seeds)]
    return {each.response for each in found if each}


EQUATION = re.compile(r"([\d,]+) ([-+*/x]) ([\d,]+) = \$?([\d,]+)")


def is_true(a, sign, b, c):
    a, b, c = (int(number.replace(",", "")) for number in (a, b, c))
    return {"+": a + b, "-": a - b, "*": a * b, "x": a * b, "/": a / b}[sign] == c


def test_wrong_arithmetic_makes_one_true_equation_false():
    text = "12 + 7 = 19, then 19 x 2 = 38. In all 38, not 380. Wrong is 2 + 2 = 5."
    for found in answers_of("wrong_arithmetic", example("Sum?", text)):
        sums = [is_true(*parts) for parts in EQUATION.findall(found)]
        assert len(sums) == 3
        assert sums.count(False) >= 2  # that which was wrong, and one more
        assert found.endswith("not 380. Wrong is 2 + 2 = 5.")
        # The wrong result is used further on, so that the answer stays of one piece.
        if "12 + 7 = 19," in found:
            (wrong,) = re.findall("= ([0-9]+)[.]", found)[:1]
            assert f"In all {wrong}, not" in found
        else:
            (wrong,) = re.findall("12 \\+ 7 = ([0-9]+)", found)
            assert f"then {wrong} x 2" in found
    assert answers_of("wrong_arithmetic", example("Sum?", "2 + 2 = 5, 7 / 0 = 3")) == set()
    assert answers_of("wrong_arithmetic", example("Sum?", "7 / 2 = 3.5, 1.5 + 2 = 3")) == set()
    big = answers_of("wrong_arithmetic", example("Sum?", "It is 2,000 * 3 = $6,000."))
    assert big
    assert all(text.startswith("It is 2,000 * 3 = $") and "6,000" not in text for text in big)


def test_a_prompt_number_contradicts_the_prompt_wherever_it_stands():
    one = example("Ben is 31 and Cleo 8 years old.", "Cleo is 8 and Ben 31: 31 - 8 = 23.")
    found = answers_of("prompt_number", one)
    assert found
    for text in found:
        numbers = re.findall("[0-9]+", text)
        assert numbers[4] == "23"
        assert (numbers[0] == "8") is not (numbers[1] == "31")
        assert numbers[0] == numbers[3]
        assert numbers[1] == numbers[2]
        assert not {"8", "31"} >= set(numbers[:4])
    assert answers_of("prompt_number", example("How many?", "Seven, 7.")) == set()


def test_dates_move_and_units_change():
    years = answers_of("date_slip", example("When?", "In 1969 of $1969 and 19690."))
    for text in years:
        assert re.fullmatch(r"In \d{4} of \$1969 and 19690[.]", text)
        assert 10 <= abs(int(text[3:7]) - 1969) <= 99
    months = answers_of("date_slip", example("When?", "It may be in May or June."))
    assert all(re.fullmatch("It may be in May or [A-Z][a-z]+[.]", text) for text in months)
    assert "It may be in May or June." not in months
    units = answers_of("unit_swap", example("How far?", "Some 5 km, of 7 kmh, days."))
    assert units == {
        f"Some 5 {unit}, of 7 kmh, days." for unit in ("m", "cm", "mm", "miles", "feet", "inches")
    }
    assert answers_of("unit_swap", example("How far?", "Many km.")) == set()
