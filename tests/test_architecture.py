"""The journeys of docs/architecture.md lead through functions that are there."""

import importlib
import re

import pytest
from documents import REPOSITORY

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
GLOSSARY = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
STEP = re.compile(r"^\| \d+ \| `([\w.]+):(\w+)` \|", re.MULTILINE)
JOURNEYS = re.split(r"^## Journey ", PAGE, flags=re.MULTILINE)[1:]


def test_there_are_three_journeys():
    assert len(JOURNEYS) == 3
    assert all(len(STEP.findall(journey)) >= 6 for journey in JOURNEYS)


@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda text: text.partition("\n")[0])
def test_every_function_of_a_journey_is_there_and_the_way_is_short(journey):
    steps = STEP.findall(journey)
    assert len({module for module, _ in steps}) <= 10
    for module, name in steps:
        found = getattr(importlib.import_module(module), name)
        assert found.__doc__, f"{module}:{name} does not say what it does"


def test_every_folder_of_the_core_is_named():
    folders = {
        path.parent.name
        for path in (REPOSITORY / "selectmoe_core").glob("*/__init__.py")
        if path.parent.name != "__pycache__"
    }
    listed = set(re.findall(r"`(\w+)`", PAGE.partition("## Journey")[0]))
    assert folders <= listed


def test_the_glossary_is_in_order_and_says_each_word_once():
    words = re.findall(r"^\| ([^|]+?) \| [A-Z]", GLOSSARY, re.MULTILINE)
    assert len(words) > 30
    assert words == sorted(set(words), key=str.lower)
