"""Options: what a user gets wrong is told with its place, its value and a way out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field, ValidationError, field_validator, model_validator

from selectmoe_core.config import (
    Config,
    content_path,
    examine,
    execution_only,
    marked,
    parse,
    path_fields,
    suggest,
)
from selectmoe_core.errors import Problem, RecipeError


class Inner(Config):
    """Inner."""

    size: int = 1
    """A size."""


class Options(Config):
    """Options."""

    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A rate above 0."""
    mode: Literal["a", "b"] = "a"
    """A mode."""
    inner: Inner = Inner()
    """A table."""
    needed: int
    """What is needed."""
    batch: int = execution_only(4)
    """Speed only."""
    data: Path = content_path(Path("x"))
    """Data."""
    plain: Path = Path("y")
    """A path that enters by name."""
    data_list: tuple[Path, ...] = content_path(())
    """More data."""

    @field_validator("mode")
    @classmethod
    def _mode(cls, mode: str) -> str:
        if mode == "b":
            raise ValueError("'b' is out of order")
        return mode


def test_options_are_frozen_and_typed():
    options = parse(Options, {"needed": 1}, where="[x]")
    assert options.rate == 0.5
    with pytest.raises(ValidationError, match="frozen"):
        options.rate = 0.1


@pytest.mark.parametrize(
    ("table", "what", "hint"),
    [
        ({"rat": 1}, "unknown option 'rat'", "did you mean 'rate'?"),
        ({"zzz": 1}, "unknown option 'zzz'", "options: batch, data"),
        ({"rate": 2}, "option 'rate': Input should be less than or equal to 1, got 2", "A rate"),
        ({"rate": float("nan")}, "option 'rate': Input should be a finite number", "A rate"),
        ({"rate": float("inf")}, "option 'rate': Input should be a finite number", "A rate"),
        ({"rate": "x" * 200}, "option 'rate'", "A rate"),
        ({"mode": "c"}, "option 'mode': Input should be 'a' or 'b', got 'c'", "A mode"),
        ({"mode": "b"}, "option 'mode': 'b' is out of order, got 'b'", "A mode"),
        ({"inner": {"sise": 2}}, "unknown option 'inner.sise'", "did you mean 'size'?"),
        ({"inner": 3}, "option 'inner'", "A table"),
        ({"rate": "x"}, "option 'rate': Input should be a valid number, got 'x'", "A rate"),
    ],
)
def test_a_mistake_says_where_what_and_what_to_do(table, what, hint):
    found, problems = examine(Options, {"needed": 1, **table}, where="[x] y")
    assert found is None
    assert len(problems) == 1
    problem = problems[0]
    assert problem.where == "[x] y"
    assert problem.what.startswith(what)
    assert len(problem.what) < 200
    assert hint in problem.hint


class Training(Config):
    other_names: ClassVar[Mapping[str, str]] = {"gradient_accumulation": "micro_batch_size"}

    batch_size: int = 4
    """Examples of a step."""
    micro_batch_size: int = 4
    """Examples of a micro-batch."""
    lora_rank: int = 4
    learning_rate: float = 1.0
    """Peak learning rate."""
    scheduler: str = "linear"
    """How the rate falls."""


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("lr", "the option is called 'learning_rate': Peak learning rate."),
        ("r", "the option is called 'lora_rank'"),
        ("total_batch", "the option is called 'batch_size': Examples of a step."),
        ("gradient-accumulation", "the option is called 'micro_batch_size': Examples of a micro"),
        ("selection_percentage", "that option belongs to another table: select.fraction"),
        ("max_length", "that option belongs to another table: chat.max_length"),
        ("load_in_4bit", "options: batch_size, learning_rate"),  # this class cannot do that
        ("learning_rat", "did you mean 'learning_rate'?"),
    ],
)
def test_a_word_of_another_program_names_the_option(word, hint):
    found, (problem,) = examine(Training, {word: 1}, where="[train]")
    assert found is None
    assert problem.what == f"unknown option '{word}'"
    assert problem.hint.startswith(hint)


def test_a_missing_option_says_what_it_is():
    _, problems = examine(Options, {}, where="[x]")
    assert problems == (Problem("[x]", "option 'needed' is missing", "What is needed."),)


class Pair(Config):
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _in_order(self):
        if self.low > self.high:
            raise ValueError("'low' is above 'high'")
        return self


def test_a_mistake_of_the_whole_table_does_not_repeat_the_table():
    with pytest.raises(RecipeError) as caught:
        parse(Pair, {"low": 3}, where="[score]")
    hint = "correct the options of [score], or the KEY=VALUE given"
    assert caught.value.problems == (Problem("[score]", "'low' is above 'high'", hint),)


def test_every_mistake_is_told():
    with pytest.raises(RecipeError) as caught:
        parse(Options, {"a": 1, "rate": 3, "mode": "q"}, where="[x]")
    assert len(caught.value.problems) == 4
    assert str(caught.value).count("\n") == 3


def test_marks_are_found():
    assert marked(Options, "execution_only") == {"batch"}
    assert marked(Options, "content_path") == {"data", "data_list"}
    assert path_fields(Options) == {"data", "plain", "data_list"}


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("fracton", ["fraction", "k"], "did you mean 'fraction'?"),
        ("top-old", ["top-abc", "top-old2", "k"], "did you mean 'top-old2'?"),
        (
            "moe-router-old",
            ["moe-router-abc", "moe-router-xyz"],
            "did you mean 'moe-router-abc' or 'moe-router-xyz'?",
        ),
        ("zebra", ["b", "a", "a"], "known: a, b"),
        ("zebra", [], "known: none"),
    ],
)
def test_a_suggestion_is_the_closest_names_or_all(word, known, hint):
    assert suggest(word, known) == hint


@pytest.mark.parametrize("value", ["", " ", ["x", ""]])
@pytest.mark.parametrize("name", ["data", "plain", "data_list", "perhaps"])
def test_an_empty_path_is_an_error(name, value):
    class More(Options):
        """More options."""

        perhaps: Path | None = None
        """A path that may be left out."""

    if isinstance(value, list) != (name == "data_list"):
        value = [value] if name == "data_list" else ""
    parsed, problems = examine(More, {"needed": 1, "rate": 7, name: value}, where="[x]")
    assert parsed is None
    assert problems[0].what == f"option '{name}' is empty"
    assert "'rate'" in problems[1].what
    assert examine(More, {"needed": 1, name: value}, where="[x]")[0] is None


class Listing(Config):
    """Hold lists."""

    names: tuple[str, ...] = ()
    """Texts."""
    numbers: tuple[int, ...] = ()
    """Numbers."""
    kinds: tuple[Literal["a", "b"], ...] = ()
    """Some of two."""
    one_or_more: str | tuple[str, ...] = ""
    """May hold a comma."""
    paths: tuple[Path, ...] = ()
    """May hold commas."""


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"names": "cot, dolly"}, {"names": ("cot", "dolly")}),
        ({"names": "cot"}, {"names": ("cot",)}),
        ({"numbers": "1,2,3"}, {"numbers": (1, 2, 3)}),
        ({"kinds": "a,b"}, {"kinds": ("a", "b")}),
        ({"one_or_more": "a,b"}, {"one_or_more": "a,b"}),
        ({"names": ["a,b"]}, {"names": ("a,b",)}),
    ],
)
def test_text_with_commas_is_a_list_where_only_a_list_can_be(table, expected):
    parsed = parse(Listing, table, where="[x]")
    assert {name: getattr(parsed, name) for name in expected} == expected


def test_a_path_may_hold_a_comma():
    with pytest.raises(RecipeError):
        parse(Listing, {"paths": "a,b"}, where="[x]")
