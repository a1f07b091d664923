"""Options in words: types and defaults as a recipe would write them."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Len
from conftest import LEFT_OUT
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, PositiveInt, StringConstraints

from selectmoe_core import Config
from selectmoe_core.cli.describe import describe
from selectmoe_core.cli.option_text import default_text, type_text
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry

ENTRIES = list(Registry(load_plugins(LEFT_OUT[1::2])))
PYTHON = re.compile(
    r"\b(None|True|False|typing|Annotated|Literal|Optional|class)\b|<|PosixPath|\bstr\b"
)


class Inner(Config):
    """A table within."""

    prompt: str = "prompt"
    """The question's column."""


class Many(Config):
    """One option of each type."""

    text: str = "a"
    name: Annotated[str, StringConstraints(min_length=1)] = "a"
    maybe: str | None = None
    switch: bool = True
    count: PositiveInt = 1
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    rate: Annotated[float, Field(ge=0, lt=1)] = 0.5
    percent: Annotated[float, Field(gt=0, lt=100)] = 50
    free: float = 0
    one: Literal["a", "b"] = "a"
    auto: PositiveInt | Literal["auto"] = "auto"
    folder: Path = Path("x")
    paths: Path | Annotated[tuple[Path, ...], Len(min_length=1)] = Path("x")
    names: tuple[str, ...] = ()
    some: tuple[Literal["x", "y"], ...] = ()
    weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    rates: Mapping[str, float] | None = None
    layers: str | tuple[Annotated[int, Field(ge=0)], ...] = "all"
    columns: Inner = Inner()
    several: tuple[Inner, ...] = ()
    kinds: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("text", "text"),
        ("name", "text"),
        ("maybe", "text"),
        ("switch", "true or false"),
        ("count", "whole number above 0"),
        ("share", "number from 0 to 1"),
        ("rate", "number of at least 0 and below 1"),
        ("percent", "number above 0 and below 100"),
        ("free", "number"),
        ("one", 'one of "a", "b"'),
        ("auto", 'whole number above 0, or "auto"'),
        ("folder", "path"),
        ("paths", "path, or list of paths"),
        ("names", "list of text"),
        ("some", 'list of any of "x", "y"'),
        ("weights", "list of numbers above 0"),
        ("rates", "table of numbers"),
        ("layers", "text, or list of whole numbers of at least 0"),
        ("columns", "table"),
        ("several", "list of tables"),
        ("kinds", "list of text"),
    ],
)
def test_a_type_in_words(option, words):
    assert type_text(Many.model_fields[option]) == words


def test_every_type_of_the_test_is_looked_at():
    (mark,) = test_a_type_in_words.pytestmark
    assert {option for option, _ in mark.args[1]} == set(Many.model_fields)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a", '"a"'),
        (True, "true"),
        (3, "3"),
        (2e-05, "2e-05"),
        (Path("data/pool"), '"data/pool"'),
        ((), "[]"),
        (("a", "b"), '["a", "b"]'),
        (frozenset({"b", "a"}), '["a", "b"]'),
        ({"answer_swap": 2.0, "with space": 1}, '{ answer_swap = 2.0, "with space" = 1 }'),
        ({}, "{}"),
        (Inner(), '{ prompt = "prompt" }'),
    ],
)
def test_a_default_as_a_recipe_writes_it(value, written):
    assert default_text(value) == written


values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(values)
def test_a_default_is_toml_of_the_same_value(value):
    assert tomllib.loads(f"option = {default_text(value)}") == {"option": value}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.component.name)
def test_a_component_is_described_without_python(entry):
    lines = describe(entry).splitlines()
    fields = entry.component.config.model_fields
    for name, field in fields.items():
        place = next(n for n, line in enumerate(lines) if re.match(rf"  {name}( = |  \(|$)", line))
        assert lines[place + 1].strip()
        shown = lines[place].strip().partition("  (")[0]
        assert not PYTHON.search(f"{shown} {type_text(field)}")
        if " = " in shown:
            assert entry.component.config.__name__
            assert tomllib.loads(shown).keys() == {name}


def test_options_within_an_option_have_lines_of_their_own():
    entry = next(entry for entry in ENTRIES if entry.component.name == "jsonl")
    text = describe(entry)
    assert '\n      columns.prompt = "prompt"\n          text\n' in text
    assert '\n      columns.source = ["dataset", "source", "category"]\n' in text
