"""The shipped recipes: each says what it is for, and plans offline."""

import json
import os
import re
from pathlib import Path

import pytest

from selectmoe_core.cli import call
from selectmoe_core.plan.plan import make_plan
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import STAGES, read_recipe

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPES = sorted((REPOSITORY / "recipes").glob("*.toml"))
HEADER = ("# What for: ", "# What it needs: ", "# How to run: ", "# What to expect: ")
DATA = Path(os.environ.get("SELECTMOE_DATA") or REPOSITORY.parent / "shared" / "data")
LESS = DATA / "less" / "train" / "processed"
SOURCES = ("cot", "dolly", "flan_v2", "oasst1", "gpteacher", "self_instruct")

NOT_IN_EACH = {"filter", "targets", "embed"}
"""Stages that only some recipes have."""
RUN_BASELINES = {"baseline base", "baseline random"}

every_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(load_plugins())


@pytest.fixture
def less(tmp_path: Path) -> Path:
    """A pool of four rows in the layout of the LESS data."""
    for name in SOURCES:
        turns = [{"role": "user", "content": name}, {"role": "assistant", "content": "Yes."}]
        file = tmp_path / "less" / name / f"{name}_data.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"dataset": name, "messages": turns}) + "\n", encoding="utf-8")
    return tmp_path / "less"


def overrides_for(path: Path, less: Path) -> list[str]:
    """Return what points a recipe at data that is there."""
    tables = read_recipe(path).tables
    found = [f"pool.path={less}"] if tables["pool"].own.use == "less" else []
    if "targets" in tables and tables["targets"].own.use == "jsonl":
        found.append(f"targets.path={less / 'dolly' / 'dolly_data.jsonl'}")
    return found


def test_the_recipes_are_there() -> None:
    assert {path.stem for path in RECIPES} >= {
        "blend",
        "compare",
        "constraint",
        "contrastive-llama2-7b",
        "default",
        "ifd",
        "less",
        "perplexity",
        "rds",
        "router-targets",
        "select-moe-llama2-7b",
        "smollm2",
        "smollm2-less",
        "smollm2-compare",
        "smollm2-rds",
    }


@every_recipe
def test_header(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("\nformat = 1\n")[0]
    lines = head.splitlines()
    assert lines, "a recipe opens with its header, then format = 1"
    assert all(line.startswith("#") or not line for line in lines)
    assert 20 < len(lines[0]) <= 100, "the first line says in a sentence what the recipe is"
    for title in HEADER:
        assert sum(line.startswith(title) for line in lines) == 1, title
    assert f"selectmoe run {path.stem}" in head


@every_recipe
def test_recipe_reads(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.problems == ()
    assert recipe.head.format == 1
    assert recipe.head.name == path.stem
    assert set(recipe.tables) | ({"score"} if recipe.scores else set()) == set(
        STAGES
    ) - NOT_IN_EACH | (set(recipe.tables) & NOT_IN_EACH)


@every_recipe
def test_plans_offline(
    path: Path, less: Path, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    recipe = read_recipe(path, overrides_for(path, less))
    plan = make_plan(recipe, registry, tmp_path / "outputs", hash_limit=1 << 20)
    arms = {node.arms for node in plan.nodes.values() if node.stage == "evaluate"}
    assert arms == {("selected",), ("base",), ("random",)}
    scores = [node for node in plan.nodes.values() if node.stage == "score"]
    selector = any("model" in node.inputs for node in scores)
    others = {f"baseline {name}" for name in recipe.compare.baselines} - RUN_BASELINES
    unread = set() if selector else {"convert", "warmup"}
    if "embed" in recipe.tables:
        unread -= set(plan.nodes["embed"].inputs.values())
    assert set(plan.not_needed) == others | unread
    assert "filter:leak" in plan.nodes


@every_recipe
def test_plan_command(
    path: Path, less: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(path), *overrides_for(path, less), "--outputs", str(tmp_path / "outputs")]
    assert call(["plan", *arguments]) == 0
    shown = capsys.readouterr().out
    for stage in set(read_recipe(path).tables) | {"score"}:
        marks = (f"{stage} ", f"{stage}:", f"not needed: {stage} ")
        assert any(f"\n{mark}" in shown for mark in marks), stage


def test_published_defaults_are_written_out(registry: Registry) -> None:
    """What the published recipe says equals the components' defaults, option for option."""
    recipe = read_recipe(REPOSITORY / "recipes" / "select-moe-llama2-7b.toml")
    kinds = {"convert": "converter", "warmup": "trainer", "train": "trainer", "select": "selector"}
    checked = 0
    for stage, kind in kinds.items():
        table = recipe.tables[stage]
        (config,) = (
            entry.component.config
            for entry in registry
            if entry.kind == kind and entry.component.name == table.own.use
        )
        for name, value in table.options.items():
            default = config.model_fields[name].get_default()
            assert value == (list(default) if isinstance(default, tuple) else default), name
            checked += 1
    assert checked >= 17
    assert recipe.tables["warmup"].own.subset_ratio == 0.05


@pytest.mark.skipif(not LESS.is_dir(), reason=f"there is no {LESS} (SELECTMOE_DATA names the data)")
@pytest.mark.parametrize("name", ["select-moe-llama2-7b", "smollm2"])
def test_plans_with_the_real_pool(name: str, tmp_path: Path, registry: Registry) -> None:
    path = REPOSITORY / "recipes" / f"{name}.toml"
    recipe = read_recipe(path, [f"pool.path={LESS}"])
    plan = make_plan(recipe, registry, tmp_path / "outputs")
    assert plan.nodes["pool"].digest


def test_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["recipes", "copy", "default", "my.toml"]) == 0
    assert (tmp_path / "my.toml").read_bytes() == (REPOSITORY / "recipes/default.toml").read_bytes()
    assert call(["recipes", "copy", "default", "my.toml"]) == 2
    assert call(["recipes", "copy", "defualt", "other.toml"]) == 2


STEPS = sorted((REPOSITORY / "recipes" / "steps").glob("*.toml"))
GIVEN = {
    "convert": ([], {"convert"}),
    "warmup": (["warmup.model=converted"], {"pool", "warmup"}),
    "score": (["score.model=converted"], {"pool", "score", "select"}),
    "train": ([], {"pool", "train"}),
    "evaluate": ([], {"evaluate"}),
}
"""What each recipe of a single step is given, and the nodes that it makes."""


@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
def test_a_recipe_of_a_step_makes_that_step_alone(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_header(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "converted").mkdir()
    (tmp_path / "converted" / "config.json").write_text('{"model_type": "select_moe"}')
    overrides, expected = GIVEN[path.stem]
    assert call(["plan", f"steps/{path.stem}", "--json", *overrides]) == 0
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    assert {node["key"] for node in nodes} == expected


SPECIAL = set("[]{}()<>*?!;|&~=")
"""What zsh takes for something else than text, at some place in a word."""


def typed(path: Path) -> list[str]:
    """Return the commands under "How to run", each on one line."""
    head = path.read_text(encoding="utf-8").partition("\nformat = 1\n")[0]
    part = head.partition("# How to run:")[2].partition("# What to expect")[0]
    lines = [line.lstrip("#").strip() for line in part.replace("\\\n", "").splitlines()]
    return [" ".join(line.replace("#", "").split()) for line in lines if line]


@pytest.mark.parametrize("path", [*RECIPES, *STEPS], ids=lambda path: path.stem)
def test_the_commands_of_a_header_can_be_typed_as_they_stand(path: Path) -> None:
    commands = typed(path)
    assert len(commands) >= 2
    for command in commands:
        assert command.startswith("selectmoe "), command
        unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", command)
        for word in unquoted.split():
            assert not SPECIAL & set(word.replace("=", "", 1) if word[0] != "=" else word), command


def test_every_step_has_a_recipe() -> None:
    assert {path.stem for path in STEPS} == GIVEN.keys()


def check_header(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("\nformat = 1\n")[0]
    for title in HEADER:
        assert sum(line.startswith(title) for line in head.splitlines()) == 1, title
    assert f"selectmoe run steps/{path.stem}" in head
