"""The docs are tests: code runs, recipes plan, commands exist, links lead somewhere."""

import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import tomli_w
from documents import PAGES, REPOSITORY, Block, blocks, links

from selectmoe_core import Job
from selectmoe_core.cli import call, cli
from selectmoe_core.config import plain_text
from selectmoe_core.data.examples import RawExample
from selectmoe_core.errors import RecipeError
from selectmoe_core.plan.plan import make_plan
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.overrides import RESERVED
from selectmoe_core.recipe.recipe import (
    HEAD,
    OPTIONS,
    STAGES,
    TABLES,
    AuditConfig,
    CompareConfig,
    StageOptions,
    read_recipe,
)
from selectmoe_readers.config import JsonlConfig
from selectmoe_readers.jsonl import JsonlReader

LANGUAGES = {"python", "toml", "sh", "jsonl", "text"}
GENERATED = ("hooks.md", "components.md", "cli.md")
CHEAP = {"plan", "list", "describe", "plugins", "recipes"}
OTHER_COMMANDS = {"pip", "pytest", "uv", "git", "just", "ruff", "mypy", "cog", "lint-imports"} | {
    "python",
    "accelerate",
    "torchrun",
    "srun",
    "ray",
}
BASE = """
format = 1
name = "base"
[pool]
use = "jsonl"
path = "pool.jsonl"
[convert]
use = "olmoe-trashcan"
model = "allenai/OLMoE-1B-7B-0125"
[warmup]
use = "select-moe-constraint"
[score]
use = "router"
[select]
use = "top-fraction"
[train]
use = "llama-lora"
model = "meta-llama/Llama-2-7b-hf"
[evaluate]
use = "lm-eval"
tasks = ["arc_easy"]
"""
ROW = {"messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with all that the docs take for granted."""
    row = json.dumps(ROW) + "\n"
    for name in ("pool", "targets", "preferences", "pairs", "graded"):
        (tmp_path / f"{name}.jsonl").write_text(row, encoding="utf-8")
    for name in ("cot", "dolly", "flan_v2", "oasst1"):
        file = tmp_path / "less" / "train" / "processed" / name / f"{name}_data.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text(row, encoding="utf-8")
    for name in ("converted", "warmed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "select_moe"}')
    (tmp_path / "adapter").mkdir()
    base = {"base_model_name_or_path": "bundled:nano-llama"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(base), encoding="utf-8")
    (tmp_path / "full_rank_weights.pt").write_bytes(b"tensors")
    for name in ("recipe", "tuned"):  # as `selectmoe init` writes them
        text = f'format = 1\nname = "{name}"\nextends = "default"\n'
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    for name in ("selected_data.jsonl", "chats.jsonl", "labels.jsonl"):
        (tmp_path / name).write_text(row, encoding="utf-8")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "recipes").symlink_to(REPOSITORY / "recipes")
    monkeypatch.setenv("SELECTMOE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(load_plugins())


def test_there_is_something_to_test() -> None:
    assert {page.name for page in PAGES} >= {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
    assert len(list((REPOSITORY / "docs").glob("*.md"))) >= 11
    assert len(blocks("python")) >= 4
    assert len(blocks("toml")) >= 9
    assert len(blocks("jsonl")) >= 5
    assert len(list(commands())) >= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_has_a_language_that_is_checked(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = [block for block in blocks() if block.page == page]
    assert text.count("\n```") == 2 * len(found)
    for block in found:
        assert block.language in LANGUAGES, f"{block}: {block.language!r}"


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs(block: Block, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(desk))
    files = [one for one in blocks("python") if one.page == block.page and one.file]
    for one in files:
        assert one.file is not None
        (desk / one.file).write_text(one.text, encoding="utf-8")
    modules = [Path(one.file or "").stem for one in files]
    try:
        if block.file is None:
            exec(compile(block.text, str(block), "exec"), {"__name__": "block"})
        else:
            module = importlib.import_module(Path(block.file).stem)
            for name in [name for name in vars(module) if name.startswith("test_")]:
                getattr(module, name)()
    finally:
        for name in modules:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_fits(block: Block, desk: Path, registry: Registry) -> None:
    """A recipe plans; a part of one plans when it is laid over a whole one."""
    table = tomllib.loads(block.text)
    if not set(table) <= {*HEAD, *TABLES}:
        assert block.file == "pyproject.toml"
        return
    base = tomllib.loads(BASE)
    if "use" not in table.get("score", {"use": ""}):
        del base["score"]  # several scores stand in place of one
    for name in ("base.toml", "default.toml"):
        (desk / name).write_text(tomli_w.dumps(base), encoding="utf-8")
    whole = {"format", "extends"} & set(table)
    text = block.text if whole else f'extends = "base.toml"\n{block.text}'
    (desk / "recipe.toml").write_text(text, encoding="utf-8")
    recipe = read_recipe(desk / "recipe.toml")
    plan = make_plan(recipe, registry, desk / "outputs", hash_limit=1 << 20)
    assert plan.nodes


@pytest.mark.parametrize("block", blocks("jsonl"), ids=str)
def test_rows_can_be_read(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(block.text, encoding="utf-8")
    reader = JsonlReader(JsonlConfig(path=path))
    if '"chosen"' in block.text:
        pairs = list(reader.pairs(Job(seed=0)))
        assert len({found.rejected.messages for found in pairs}) == 1, pairs
        return
    rows = list(reader.read(Job(seed=0)))
    assert rows
    for row in rows:
        assert isinstance(row, RawExample), row
        assert row.messages[-1].role == "assistant"


def commands() -> Iterator[tuple[Block, list[str]]]:
    """Yield every command of every ``sh`` block as words."""
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                place = words.index("&&")
                yield block, words[:place]
                words = words[place + 1 :]
            if words:
                yield block, words


def _id(value: object) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


@pytest.mark.parametrize(("block", "words"), list(commands()), ids=_id)
def test_commands_work(block: Block, words: list[str], desk: Path) -> None:
    """Cheap commands run; of the others the options must exist and the recipe must plan."""
    name, *arguments = words
    if name != "selectmoe":
        assert name in OTHER_COMMANDS, f"{block}: {name}"
        return
    if arguments[0] in CHEAP or "--help" in arguments:
        assert call(arguments) == 0
        return
    if any(word.startswith("s3://") for word in words):
        pytest.importorskip("s3fs")
    command = cli.get_command(click.Context(cli), arguments[0])
    assert command is not None
    context = command.make_context(arguments[0], arguments[1:], parent=click.Context(cli))
    if arguments[0] == "run" and not any("variety" in word for word in arguments):
        for stage in (context.params["until"], context.params["fresh"]):
            assert stage is None or stage in STAGES
        overrides = [one for one in context.params["overrides"] if not _elsewhere(one, desk)]
        assert call(["plan", str(context.params["recipe"]), *overrides]) == 0


def _elsewhere(override: str, desk: Path) -> bool:
    """Return whether an override names the reader's own data, which is not here."""
    return override.startswith("pool.path=") and not (desk / override[len("pool.path=") :]).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def _anchors(page: Path) -> set[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    titles = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_index_names_every_page() -> None:
    docs = REPOSITORY / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - {"index.md"}
    assert pages <= set(links(docs / "index.md"))


def test_the_site_shows_every_page_once() -> None:
    """``zensical build --strict`` checks links, but not whether a page is in the navigation."""
    docs = REPOSITORY / "docs"
    pages = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    assert (
        sorted(re.findall(r"^ +- (?:(?:Home|Plugins): )?(\S+\.md)$", text, re.MULTILINE)) == pages
    )


@pytest.mark.parametrize("name", GENERATED)
def test_generated_pages_are_up_to_date(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", "--diff", str(REPOSITORY / "docs" / name)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, f"run cog -r docs/*.md\n{done.stdout}{done.stderr}"


def test_every_component_and_option_is_documented(registry: Registry) -> None:
    text = (REPOSITORY / "docs" / "components.md").read_text(encoding="utf-8")
    words = " ".join(text.split())
    own = [
        entry for entry in registry if entry.component.config.__module__.startswith("selectmoe_")
    ]
    assert len(own) >= 12
    for entry in own:
        assert f"## {entry.kind}: {entry.component.name}\n" in text
        for field in entry.component.config.model_fields.values():
            assert field.description, entry
            assert plain_text(field) in words


def test_every_stage_key_is_documented() -> None:
    text = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
    keys = set(RESERVED) | set(CompareConfig.model_fields) | set(StageOptions.model_fields)
    keys |= set(AuditConfig.model_fields)
    for options in OPTIONS.values():
        keys |= set(options.model_fields)
    for key in keys:
        assert f"`{key}`" in text or f"\n{key} =" in text, key


def test_a_wrong_block_is_noticed(desk: Path, registry: Registry) -> None:
    """The checks above can fail."""
    block = Block(Path("x.md"), 1, "toml", "[select]\nfractoin = 0.2\n")
    with pytest.raises(RecipeError, match="fractoin"):
        test_toml_fits(block, desk, registry)
    with pytest.raises(click.NoSuchOption):
        test_commands_work(block, ["selectmoe", "run", "default", "--untl", "score"], desk)
