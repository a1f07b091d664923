"""What would fail after hours is said before the first stage, naming the row if one matters."""

import json
import os
import shutil

import pytest

torch = pytest.importorskip("torch")

from llama_models import example as turns  # noqa: E402
from llama_models import llama, options, train  # noqa: E402

from selectmoe_core.errors import ModelError  # noqa: E402
from selectmoe_core.plan.plan import make_plan  # noqa: E402
from selectmoe_core.plugin.manager import load_plugins  # noqa: E402
from selectmoe_core.plugin.registry import Registry  # noqa: E402
from selectmoe_core.recipe.recipe import read_recipe  # noqa: E402
from selectmoe_core.runner.executors import opened_executor  # noqa: E402
from selectmoe_core.runner.options import RunOptions  # noqa: E402
from selectmoe_core.runner.preflight import check_part  # noqa: E402
from selectmoe_core.runner.run import Purpose, _Run  # noqa: E402
from selectmoe_core.runner.sample_rows import load_sample, save_sample  # noqa: E402

RECIPE = """
format = 1
name = "check"
[chat]
template = "model"
[pool]
use = "jsonl"
path = "data.jsonl"
[score]
use = "length"
[select]
use = "top-fraction"
fraction = 1.0
[train]
use = "llama-lora"
model = "./llama"
"""
CHATML = (
    "{% for m in messages %}{{ '<' + m.role + '>' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
)
THINKS = CHATML.replace("'<assistant>'", "'<assistant><think>'")
DROPS = CHATML.replace("m.content +", "m.content.split('</think>')[-1] +")


def row(*texts, system=None):
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return json.dumps({"messages": messages}) + "\n"


@pytest.fixture(scope="module")
def registry():
    return Registry(load_plugins(()))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    llama(folder / "llama")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "data.jsonl").write_text(row("q", "a") + row("q", "b", system="s") + row("q", "c"))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "check")


def model_says(folder, name, **changes):
    path = folder / "llama" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def opened_run(plan, registry, folder):
    options = RunOptions(folder / "outputs", device="cpu")
    with opened_executor(plan.recipe, registry, options, print) as executor:
        return _Run(plan, registry, options, print, Purpose(), executor)


def check(folder, registry, *overrides):
    """As ``run`` does it for the trainer, without a process of its own."""
    recipe = read_recipe(folder / "recipe.toml", overrides)
    plan = make_plan(recipe, registry, folder / "outputs")
    run = opened_run(plan, registry, folder)
    sample = save_sample(run.specs.of(plan.nodes["pool"]), registry, run.folder)
    check_part(run.specs.of(plan.nodes["train"], sample), registry)
    return load_sample(sample)


TEMPLATES = {
    "none": (None, "no chat template"),
    "no system": (NO_SYSTEM, r"data\.jsonl:2: .*cannot render .*system, user.*no system"),
    "thinks": (THINKS, "ends a prompt with .*<think>"),
    "no end": (CHATML.replace("+ eos_token", ""), "writes no end after an answer"),
    "loops": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
              "was stopped"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_that_does_not_fit(folder, registry, kind):
    template, says = TEMPLATES[kind]
    if template is not None:
        (folder / "llama" / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match=says) as caught:
        check(folder, registry)
    assert "tulu" in caught.value.hint


def test_a_row_with_thoughts_that_the_template_drops_is_named(folder, registry):
    (folder / "llama" / "chat_template.jinja").write_text(DROPS)
    assert len(check(folder, registry)) == 2  # shapes: with and without a system message
    with (folder / "data.jsonl").open("a") as file:
        file.write(row("q", "<think>t</think>a"))
    with pytest.raises(ModelError, match=r"data\.jsonl:4: .*changes the text of an answer"):
        check(folder, registry)


def test_a_finished_pool_names_its_rows_too(folder, registry, cli, monkeypatch):
    (folder / "llama" / "chat_template.jinja").write_text(NO_SYSTEM)
    monkeypatch.chdir(folder)
    assert cli("run", "recipe.toml", "--until", "pool", "-q").code == 0
    with pytest.raises(ModelError, match=r"data\.jsonl:2: .*no system"):
        check(folder, registry)


@pytest.mark.parametrize("template", [NO_SYSTEM, CHATML])
def test_rows_that_fit_pass(folder, registry, template):
    (folder / "llama" / "chat_template.jinja").write_text(template)
    (folder / "data.jsonl").write_text(row("q", "a", "r", "b") + row("q", "a"))
    assert [len(one.messages) for one in check(folder, registry)] == [4, 2]


def test_no_tokenizer_and_no_end_of_sequence(folder, registry):
    model_says(folder, "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        check(folder, registry, "chat.template=tulu")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "llama" / name).unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        check(folder, registry, "chat.template=tulu")


def test_tokens_beyond_the_embedding_name_the_row(folder, registry):
    model_says(folder, "config.json", vocab_size=50)
    with pytest.raises(ModelError, match=r"data\.jsonl:1: the token .* is number .* has 50"):
        check(folder, registry, "chat.template=tulu")


def test_an_adapter_is_no_model_to_train(folder, registry, made, tmp_path):
    from selectmoe_core.models.models import ModelRef

    _, adapter = train(
        ModelRef(str(made / "llama")), [turns("q", "a")], tmp_path, options(max_steps=1)
    )
    with pytest.raises(ModelError, match=r"is an adapter of .*llama") as caught:
        check(folder, registry, "chat.template=tulu", f"train.model={adapter}")
    assert "merge = true" in caught.value.hint


def test_a_folder_around_a_model_is_taken_for_the_model(folder, registry):
    (folder / "store").mkdir()
    (folder / "llama").rename(folder / "store" / "model")
    check(folder, registry, "chat.template=tulu", f"train.model={folder / 'store'}")


def test_a_pool_that_comes_through_a_pipe_is_not_read_beforehand(folder, registry):
    (folder / "data.jsonl").unlink()
    os.mkfifo(folder / "data.jsonl")
    recipe = read_recipe(folder / "recipe.toml", ["chat.template=tulu"])
    plan = make_plan_without_files(recipe, registry, folder)
    run = opened_run(plan, registry, folder)
    sample = save_sample(run.specs.of(plan.nodes["pool"]), registry, run.folder)
    assert load_sample(sample) == []


def test_rows_that_a_reader_fails_at_are_left_to_the_pool_stage(folder, registry, monkeypatch):
    plan = make_plan(read_recipe(folder / "recipe.toml", []), registry, folder)
    run = opened_run(plan, registry, folder)
    pool = run.specs.of(plan.nodes["pool"])
    (folder / "data.jsonl").write_bytes(b"\xff\xfe\n")
    assert load_sample(save_sample(pool, registry, run.folder)) == []

    def wrong(_):
        raise AttributeError("a bug")

    (folder / "data.jsonl").write_text(row("q", "a"))
    monkeypatch.setattr("selectmoe_core.runner.sample_rows.conversation_problem", wrong)
    with pytest.raises(AttributeError, match="a bug"):
        save_sample(pool, registry, run.folder)


def make_plan_without_files(recipe, registry, folder):
    """A plan whose pool was a file when it was made."""
    (folder / "data.jsonl").rename(folder / "pipe")
    (folder / "data.jsonl").write_text(row("q", "a"))
    plan = make_plan(recipe, registry, folder / "outputs")
    (folder / "data.jsonl").unlink()
    (folder / "pipe").rename(folder / "data.jsonl")
    return plan
