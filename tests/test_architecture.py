"""The journeys of docs/architecture.md lead through functions that are there."""

import importlib
import re
import tomllib

import pytest
from documents import REPOSITORY

from selectmoe_core.plugin.component import KINDS
from selectmoe_core.stages import MODULES

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
GLOSSARY = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
STEP = re.compile(r"^\| \d+ \| `([\w.]+):(\w+)` \|", re.MULTILINE)
FOLDERS, _, STAGES = PAGE.partition("## Journey")[0].partition("## The stages")
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
    core = REPOSITORY / "selectmoe_core"
    folders = {path.parent.relative_to(core).as_posix() for path in core.glob("*/**/__init__.py")}
    listed = set(re.findall(r"^\| `([\w/]+)` \|", FOLDERS, re.MULTILINE))
    assert folders == listed


def test_every_stage_is_listed_with_its_kind_and_its_module():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| `([\w/]+)\.py` \|", STAGES, re.MULTILINE)
    assert [stage for stage, _, _ in rows] == list(KINDS)
    for stage, kind, module in rows:
        assert KINDS[stage] == kind
        assert MODULES[stage] == f"selectmoe_core.{module.replace('/', '.')}"


def test_the_page_has_the_layers_that_the_linter_checks():
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    contract = tomllib.loads(text)["tool"]["importlinter"]["contracts"][0]
    layers = re.findall(r"selectmoe_core\.([a-z]\w*)", " ".join(contract["layers"]))
    sentence = next(line for line in PAGE.splitlines() if line.startswith("`cli`, then"))
    assert re.findall(r"`(\w+)`", sentence) == layers


def test_the_glossary_is_in_order_and_says_each_word_once():
    words = re.findall(r"^\| ([^|]+?) \| [A-Z]", GLOSSARY, re.MULTILINE)
    assert len(words) > 30
    assert words == sorted(set(words), key=str.lower)
