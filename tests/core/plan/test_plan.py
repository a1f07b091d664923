"""Plans: digests that change exactly when they should, arms, and costs."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROWS, rows_of, write_rows

from selectmoe_core.cost import (
    DEVICES,
    Cost,
    Shape,
    Workload,
    activation_bytes,
    forward_flops,
    optimizer_bytes,
    seconds,
    training_flops,
    weight_bytes,
)
from selectmoe_core.plugin.registry import Registry

ALL = {
    "pool",
    "convert",
    "warmup",
    "score",
    "select",
    "train",
    "evaluate",
    "evaluate@base",
    "score@random",
    "select@random",
    "train@random",
    "evaluate@random",
}
DOWN = {"select", "train", "evaluate"}
"""From the selection on, in the recipe's own arm."""
RANDOM_DOWN = {"select@random", "train@random", "evaluate@random"}


def changed(before, after):
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


# ------------------------------------------------------------------------------------ digests


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        # What only changes speed, or says when to stop, changes nothing.
        (["score.batch=64"], set()),
        (["train.batch=64"], set()),
        (["score.shard_examples=3"], set()),
        (["score.max_skipped=0.5"], set()),
        (["name=other"], set()),
        # The cut and what reads it; the random arm uses the same cut.
        (["select.fraction=0.5"], DOWN | RANDOM_DOWN),
        (["select.use=top-k", "select.k=10"], DOWN | RANDOM_DOWN),
        (["score.factor=2.0"], {"score"} | DOWN),
        (["train.epochs=2"], {"train", "evaluate", "train@random", "evaluate@random"}),
        (["evaluate.tasks=[a,b]"], {"evaluate", "evaluate@base", "evaluate@random"}),
        # A seed counts where the component draws, and below.
        (["train.seed=1"], {"train", "evaluate", "train@random", "evaluate@random"}),
        (["warmup.seed=1"], {"warmup", "score"} | DOWN),
        (["convert.seed=1"], {"convert", "warmup", "score"} | DOWN),
        (["seed=1"], ALL - {"pool", "evaluate@base"}),
        # Only the parts that read tokens know the chat format.
        (["chat.max_length=99"], ALL - {"pool", "convert", "evaluate@base"} - {"score@random"}
         - {"select@random"}),
        (["warmup.subset_ratio=0.25"], {"warmup", "score"} | DOWN),
        (["train.subset_ratio=0.25"], {"train", "evaluate", "train@random", "evaluate@random"}),
        (["pool.on_reject=skip"], ALL - {"convert", "evaluate@base"}),
        (["pool.subset_ratio=0.5"], ALL - {"convert", "evaluate@base"}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_digest_changes_exactly_where_the_result_can(project, overrides, expected):
    before = project.digests()
    assert set(before) == ALL
    assert all(before.values())
    assert changed(before, project.digests(*overrides)) == expected


def test_the_same_recipe_has_the_same_digests(project):
    assert project.digests() == project.digests()


def test_the_chat_format_counts_only_where_tokens_are_read(project):
    before = project.digests("score.reads_model=false")
    after = project.digests("score.reads_model=false", "chat.max_length=99")
    assert not {"score", "select", "pool"} & changed(before, after)
    tokens = ("score.reads_model=false", "score.reads_tokens=true")
    assert "score" in changed(
        project.digests(*tokens), project.digests(*tokens, "chat.average=example")
    )


def test_a_template_file_counts_by_its_text(project):
    template = project.folder / "c.jinja"
    template.write_text("{{ messages }}")
    project.edit("[pool]", '[chat]\ntemplate = "c.jinja"\n\n[pool]')
    before = project.digests()
    template.rename(project.folder / "d.jinja")
    project.edit("c.jinja", "d.jinja")
    assert changed(before, project.digests()) == set()
    (project.folder / "d.jinja").write_text("{{ messages[0] }}")
    assert "train" in changed(before, project.digests())


def test_a_file_counts_by_its_content_and_the_name_of_its_source(project):
    before = project.digests()
    pool = project.folder / "pool.jsonl"
    moved = project.folder / "deep" / "er" / "pool.jsonl"
    moved.parent.mkdir(parents=True)
    pool.rename(moved)
    assert changed(before, project.digests("pool.path=deep/er/pool.jsonl")) == set()
    moved.rename(moved.with_name("other.jsonl"))
    # Rows without a source of their own are named after their file.
    assert "pool" in changed(before, project.digests("pool.path=deep/er/other.jsonl"))
    write_rows(pool, rows_of(ROWS + 1))
    assert changed(before, project.digests()) == ALL - {"convert", "evaluate@base"}


def test_a_model_counts_by_its_content(project):
    before = project.digests()
    (project.folder / "base").rename(project.folder / "moved")
    project.edit('"./base"', '"./moved"')
    assert changed(before, project.digests()) == set()
    (project.folder / "moved" / "model.safetensors").write_bytes(b"others")
    assert changed(before, project.digests()) == ALL - {"pool", "score@random", "select@random"}


def test_the_baseline_of_an_adapter_is_the_model_it_was_trained_on(project):
    plain = {node["key"]: node for node in project.plan()["nodes"]}
    for name, base in (("first", project.folder / "base"), ("second", project.folder / "first")):
        (project.folder / name).mkdir()
        adapter = json.dumps({"base_model_name_or_path": str(base)})
        (project.folder / name / "adapter_config.json").write_text(adapter)
    nodes = {n["key"]: n for n in project.plan("evaluate.model=./second", "~train")["nodes"]}
    assert nodes["evaluate"]["model"] == str(project.folder / "second")
    assert nodes["evaluate@base"]["model"] == str(project.folder / "base")
    assert nodes["evaluate@base"]["digest"] == plain["evaluate@base"]["digest"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("values = lengths * self", "values = 2 * lengths * self", {"score"} | DOWN),
        ("Score by the length of the answer times", "Score by the length times", set()),
        ('"tensors": 1', '"tensors": 2', {"convert", "warmup", "score"} | DOWN),
        ('note(f"evaluate', 'note(f"measure', {"evaluate", "evaluate@base", "evaluate@random"}),
        ('note(f"train', 'note(f"learn', ALL - {"pool", "convert", "score@random", "select@random"}
         - {"evaluate@base"}),
        # Of no component of this recipe.
        ('note("blend")', 'note("blended")', set()),
    ],
)  # fmt: skip
def test_the_code_of_a_component_counts(project, fake_site, old, new, expected):
    path = fake_site / "fake_dist_module.py"
    source, before = path.read_text(encoding="utf-8"), project.digests()
    assert source.count(old) == 1
    try:
        path.write_text(source.replace(old, new), encoding="utf-8")
        assert changed(before, project.digests()) == expected
    finally:
        path.write_text(source, encoding="utf-8")


def test_the_code_of_a_model_type_counts_for_those_who_may_load_it(project, monkeypatch):
    from selectmoe_core.stages.code import Code

    seen = {}
    real = Code.digest

    def digest(self, roots):
        roots = list(roots)
        # Warm-up and training have the same fake.
        if ("selectmoe_core.stages.train", "run") not in roots:
            seen[roots[1][1]] = ("selectmoe_olmoe.family", "_register_olmoe") in roots
        return real(self, roots)

    monkeypatch.setattr(Code, "digest", digest)
    project.digests()
    # The score reads what warm-up made, which may be of any type; the target's type is known.
    assert seen == {
        "JsonlReader": False,
        "FakeConverter": False,
        "FakeScorer": True,
        "RandomScorer": False,
        "TopFraction": False,
        "FakeEvaluator": False,
    }
    (project.folder / "base" / "config.json").write_text('{"model_type": "select_moe"}')
    project.digests()
    assert seen["FakeConverter"]


def test_the_version_of_the_harness_counts_for_evaluations_alone(project, monkeypatch):
    from selectmoe_core.plan import digests

    before = project.digests()
    monkeypatch.setattr(digests, "version", lambda name: "99.0")
    assert changed(before, project.digests()) == {"evaluate", "evaluate@base", "evaluate@random"}


# --------------------------------------------------------------------------------------- arms


def test_arms_share_what_is_the_same(project):
    nodes = {node["key"]: node for node in project.plan()["nodes"]}
    assert nodes["evaluate@base"]["reads"] == {"model": str(project.folder / "base")}
    assert nodes["train@random"]["reads"]["select"] == "select@random"
    assert nodes["select@random"]["reads"] == {"score": "score@random", "pool": "pool"}
    same = project.digests("score.use=random")
    assert same["score"] == same["score@random"]
    assert same["select"] == same["select@random"]
    assert same["evaluate"] == same["evaluate@random"]


def test_a_scorer_without_a_model_needs_neither_conversion_nor_warmup(project):
    plan = project.plan("score.use=random")
    assert set(plan["not_needed"]) - {"filter:leak"} == {"convert", "warmup"}
    assert {node["key"] for node in plan["nodes"]} == ALL - {"convert", "warmup"}
    said = project.call("plan", "recipe.toml", "score.use=random")
    assert "not needed: warmup" in said.out
    assert "dropped because 'use' changed: score.reads_model (of fake-score)" in said.out


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("pool", {"pool"}),
        ("convert", {"convert"}),
        ("warmup", {"pool", "convert", "warmup"}),
        ("score", {"pool", "convert", "warmup", "score"}),
        ("select", ALL - {k for k in ALL if k.startswith(("train", "evaluate"))}),
        ("train", {k for k in ALL if not k.startswith("evaluate")}),
        ("evaluate", ALL),
    ],
)
def test_until_leaves_out_what_comes_later(project, until, expected):
    assert {node["key"] for node in project.plan("--until", until)["nodes"]} == expected


def test_several_scores_and_the_one_to_select_by(project):
    project.edit(
        '[score]\nuse = "fake-score"\nreads_model = true\nshard_examples = 8\n',
        '[score.a]\nuse = "fake-score"\n[score.b]\nuse = "length"\n'
        '[score.mix]\nuse = "fake-blend"\nof = ["b", "a"]\n',
    )
    said = project.call("plan", "recipe.toml")
    assert said.code == 2
    assert "[select]: the recipe has several scores" in said.err
    assert 'score = "mix"' in said.err
    nodes = {node["key"]: node for node in project.plan("select.score=mix")["nodes"]}
    assert {"score:a", "score:b", "score:mix"} <= set(nodes)
    assert nodes["select"]["reads"]["score"] == "score:mix"
    reads = nodes["score:mix"]["reads"]
    assert {"score:a": "score:a", "score:b": "score:b"}.items() <= reads.items()
    before = project.digests("select.score=b")
    assert "score:mix" in changed(before, project.digests("select.score=mix", "score.b.unit=words"))
    assert "select" in changed(before, project.digests("select.score=a"))


def test_a_blend_of_a_score_that_is_not_there_is_told(project):
    project.edit(
        '[score]\nuse = "fake-score"\nreads_model = true\nshard_examples = 8\n',
        '[score.alpha]\nuse = "length"\n[score.mix]\nuse = "fake-blend"\nof = ["alfa"]\n',
    )
    said = project.call("plan", "recipe.toml", "select.score=mix")
    assert said.code == 2
    assert "there is no [score.alfa]" in said.err
    assert "did you mean 'alpha'?" in said.err


def test_a_score_with_a_mistake_is_not_told_as_missing_too(project):
    project.edit(
        '[score]\nuse = "fake-score"\nreads_model = true\nshard_examples = 8\n',
        '[score.alpha]\nuse = "length"\n[score.beta]\nuse = "length"\nunits = "words"\n',
    )
    said = project.call("plan", "recipe.toml", "select.score=beta")
    assert said.code == 2
    assert "[score.beta]" in said.err
    assert "unknown option 'units'" in said.err
    assert "there is no" not in said.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["~score"], "[select]: needs a table [score]"),
        (["~select"], "[train]: needs a table [select]"),
        (["~evaluate"], "[compare]: baselines need [evaluate]"),
        (["~convert"], "[warmup]: needs a table [convert]"),
        (["~convert", "~warmup"], "[score]: fake-score needs a model"),
        (["~train.model"], "[train]: no model to start from"),
        (["~convert.model"], "[convert]: no model to start from"),
        (["select.subset_ratio=0.5"], "[select]: 'subset_ratio' has no effect here"),
        (["convert.subset_ratio=0.5"], "used in [pool], [targets], [warmup], [score], [train]"),
        # A component gets what it has a use for, and nothing else can be said to it.
        (["pool.model=./base"], "[pool]: 'model' has no effect here"),
        (["pool.revision=main"], "[pool]: 'revision' has no effect here"),
        (["pool.seed=3"], "jsonl draws nothing at random; remove it from [pool]"),
        (["score.seed=3"], "[score]: 'seed' has no effect here"),
        (["select.seed=3", "select.subset_ratio=0.5"], "[select]: 'seed' has no effect here"),
        (["score.use=length", "score.model=./base"], "length works without a model"),
        (["score.use=random", "score.trust_remote_code=true"], "'trust_remote_code' has no"),
        (["score.revision=main"], 'add model = "..." to [score]'),
        (["select.model=./base"], "[select]: 'model' has no effect here"),
        (["select.seed=3"], "top-fraction draws nothing at random"),
        (["evaluate.seed=3"], "[evaluate]: 'seed' has no effect here"),
        (["evaluate.revision=main"], 'add model = "..." to [evaluate]'),
        (["select.use=threshold", "select.min=1"], "the baseline 'random' needs a selector that"),
        (["train.model=./nowhere"], "[train]: there is no model at"),
        (["train.model=bundled:nothing"], "[train]: no plugin ships a model 'nothing'"),
        (["pool.path=nowhere.jsonl"], "there is no"),
        (["score.use=fake-scor"], "did you mean 'fake-score'?"),
        (["score.us=fake-score"], "did you mean 'use'?"),
    ],
)
def test_a_chain_that_does_not_fit_is_told(project, overrides, message):
    said = project.call("plan", "recipe.toml", *overrides)
    assert said.code == 2, said.err
    assert message in said.err
    assert "Traceback" not in said.err


def test_a_random_draw_beside_turns_of_tasks_keeps_as_many_by_top_k(project):
    turns = ["select.use=round-robin", "select.k=7", "select.per=source", "select.floor=2"]
    nodes = {node["key"]: node for node in project.plan(*turns)["nodes"]}
    assert nodes["select"]["component"] == "round-robin"
    assert nodes["select@random"]["component"] == "top-k"
    by_top_k = project.digests("select.use=top-k", *turns[1:])
    assert project.digests(*turns)["select@random"] == by_top_k["select@random"]


def test_a_hint_lists_no_key_that_the_component_has_no_use_for(project):
    said = project.call("plan", "recipe.toml", "select.zzz=1")
    assert said.code == 2
    assert "options: ceiling, floor, fraction, per, quota, score, use" in said.err


def test_keys_that_a_component_has_a_use_for_are_taken(project):
    keys = ["pool.subset_ratio=0.5", "pool.seed=3", "train.revision=main", "score.model=./base"]
    keys += ["score.trust_remote_code=true", "evaluate.model=./base", "warmup.model=./base"]
    nodes = {node["key"]: node for node in project.plan(*keys)["nodes"]}
    assert nodes["score"]["model"] == str(project.folder / "base")


def test_what_a_replaced_component_left_is_dropped_where_the_new_one_has_no_use_for_it(project):
    project.edit(
        "reads_model = true\n", 'reads_model = true\nmodel = "./base"\nmax_skipped = 0.5\n'
    )
    plain = project.digests("score.use=length", "~score.model")
    said = project.call("plan", "recipe.toml", "score.use=length")
    assert said.code == 0, said.err
    assert "dropped because 'use' changed: score.model (of fake-score)" in said.out
    assert "max_skipped" not in said.out
    assert project.digests("score.use=length") == plain
    # The same in a child recipe; a third layer may swap back, and then the model counts again.
    child = project.folder / "child.toml"
    child.write_text('extends = "recipe.toml"\n[score]\nuse = "random"\n')
    assert project.call("plan", "child.toml").code == 0
    back = ("score.use=fake-score", "score.reads_model=true")
    again = project.call("plan", "child.toml", *back, "--json")
    nodes = {node["key"]: node for node in json.loads(again.out)["nodes"]}
    assert nodes["score"]["model"] == str(project.folder / "base")
    # What is written beside the new component, or after it, is a mistake.
    for arguments in (
        ("recipe.toml", "score.use=length", "score.model=./base"),
        ("child.toml", "score.model=./base"),
    ):
        said = project.call("plan", *arguments)
        assert said.code == 2
        assert "[score]: 'model' has no effect here" in said.err


def test_what_was_dropped_is_not_in_the_recipe_of_the_run(project):
    project.edit("reads_model = true\n", 'reads_model = true\nmodel = "./base"\n')
    said = project.run("score.use=length", "--until", "select")
    assert said.code == 0, said.err
    again = project.call("run", project.runs()[-1] / "recipe.toml", "--until", "select")
    assert again.code == 0, again.err
    assert again.err.count(" reused\n") == 5  # of the random arm too


def test_mistakes_of_all_tables_and_of_binding_are_told_together(project):
    said = project.call(
        "plan",
        "recipe.toml",
        "score.facto=2",
        "select.fraction=2",
        "train.model=./nowhere",
        "sed=1",
        "pool.path=none.jsonl",
    )
    assert said.code == 2
    assert said.err.count("Error: ") == 5, said.err
    assert said.err.count("Hint: ") == 5, said.err


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("train.use=fake-tran", "[train]: there is no trainer named 'fake-tran'"),
        ("train.rat=0.1", "[train] fake-train: unknown option 'rat'"),
        ("evaluate.answers=many", "[evaluate] fake-eval: option 'answers'"),
        ("select.seed=3", "[select]: 'seed' has no effect here"),
        ('train.data={ use = "josnl", path = "x" }', "there is no reader named 'josnl'"),
        ('train.data={ use = "jsonl", pth = "x" }', "[train.data] jsonl: unknown option"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_mistake_in_a_table_after_until_is_told_before_anything_runs(
    project, command, change, what
):
    said = project.call(command, "recipe.toml", change, "--until", "pool")
    assert said.code == 2, said.err
    assert what in said.err
    assert not project.store.exists()


def test_a_mistake_in_a_table_that_is_replaced_is_told_too(project):
    said = project.call("plan", "recipe.toml", "train.data=pool.jsonl", "score.facto=2")
    assert said.code == 2
    assert "[score] fake-score: unknown option 'facto'" in said.err


def test_what_later_stages_need_may_come_later(project):
    for change in ("evaluate.model=./nowhere", "train.data=none.jsonl"):
        said = project.call("plan", "recipe.toml", change, "--until", "pool")
        assert said.code == 0, said.err


def test_a_model_of_the_tables_own_comes_before_the_one_above(project):
    nodes = {node["key"]: node for node in project.plan("score.model=./base")["nodes"]}
    assert nodes["score"]["reads"] == {"pool": "pool", "model": str(project.folder / "base")}
    assert "warmup" not in nodes


# -------------------------------------------------------------------------------------- costs

TINY = {
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "intermediate_size": 4,
    "vocab_size": 10,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_trash_experts": 2,
}


def test_the_shape_of_a_tiny_model_by_hand():
    shape = Shape.of(TINY)
    assert shape.head_size == 4
    # q 8x8, k 8x4, v 8x4, o 8x8
    assert shape.attention == 64 + 32 + 32 + 64
    assert shape.expert == 3 * 8 * 4
    assert shape.router == 8 * 6
    assert shape.parameters == 2 * (192 + 4 * 96 + 48) + 2 * 80
    assert shape.active == 2 * (192 + 2 * 96 + 48)
    assert Shape.of({**TINY, "tie_word_embeddings": True}).parameters == shape.parameters - 80


def test_a_shape_agrees_with_a_real_model():
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    counted = sum(p.numel() for name, p in model.named_parameters() if "norm" not in name)
    assert Shape.of(config.to_dict()).parameters == counted


def test_the_formulas_by_hand():
    shape = Shape.of(TINY)
    # 10 tokens: 2 FLOPs a weight, and 2 x 2 x (5 / 2) x 2 heads x 4 x 2 layers of attention
    forward = 10 * (2 * 864 + 2 * 5 * 2 * 2 * 4)
    assert forward_flops(shape, 10, 5, head=False) == forward
    with_head = forward + 10 * 2 * 80
    assert forward_flops(shape, 10, 5, head=True) == with_head
    assert training_flops(shape, 10, 5, frozen=True, recompute=False) == 2 * with_head
    assert training_flops(shape, 10, 5, frozen=False, recompute=False) == 3 * with_head
    assert training_flops(shape, 10, 5, frozen=False, recompute=True) == 4 * with_head
    assert weight_bytes(shape, "bfloat16") == 2 * shape.parameters
    assert weight_bytes(shape, "float32") == 4 * shape.parameters
    assert optimizer_bytes(100) == 1200
    assert activation_bytes(shape, 3, "bfloat16", recompute=True) == 3 * (2 * 2 * 8 + 4 * 10)
    kept = 2 * (8 * 8 + 3 * 4 * 2)
    assert activation_bytes(shape, 3, "bfloat16", recompute=False) == 3 * (2 * kept + 4 * 10)


def test_seconds_are_work_over_the_stated_share():
    h100 = DEVICES["h100"]
    assert seconds(Cost(flops=h100.flops * h100.share * 3), h100) == pytest.approx(3)
    cpu = DEVICES["cpu"]
    assert seconds(Cost(flops=cpu.flops * cpu.share * 3), cpu, cores=2) == pytest.approx(1.5)
    assert seconds(Cost(), cpu) is None


def test_every_device_says_where_its_figures_come_from():
    assert len(DEVICES) >= 3
    assert all(device.source and 0 < device.share <= 1 for device in DEVICES.values())


def test_the_length_of_an_empty_workload_is_no_division_by_zero():
    assert Workload(0, 0, estimated=True, model=None, dtype="").length == 0


def test_estimates_follow_the_pool_and_its_samples(project):
    assert project.run("--until", "pool").code == 0
    rows = rows_of(ROWS)
    characters = sum(len(m["content"]) for row in rows for m in row["messages"])
    nodes = {node["key"]: node for node in project.plan()["nodes"]}
    assert nodes["pool"]["state"] == "cached"
    assert nodes["score"]["state"] == "to do"
    # Half of the pool, four characters a token.
    assert nodes["warmup"]["cost"]["tokens"] == pytest.approx(characters / 4 / 2)
    assert nodes["warmup"]["cost"]["flops"] == 1e9 * ROWS / 2
    assert nodes["warmup"]["shown"]["tokens"].startswith("~")
    assert nodes["score"]["shown"]["tokens"] == "?"
    # A quarter is selected, whatever it will be.
    assert nodes["train"]["cost"]["flops"] == pytest.approx(1e9 * ROWS / 4)
    assert nodes["train"]["estimated"]


def test_a_model_that_the_formulas_do_not_know_is_unknown_not_a_crash(project):
    (project.folder / "base" / "config.json").write_text('{"model_type": "gpt2", "n_head": 2}')
    said = project.call(
        "plan", "recipe.toml", "convert.use=olmoe-trashcan", "warmup.use=select-moe-constraint",
        "train.use=llama-lora", "score.use=router",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "?" in said.out


@pytest.mark.parametrize("error", [KeyError("hidden_size"), RuntimeError("odd"), None])
def test_a_cost_formula_that_fails_is_named_with_its_plugin(project, monkeypatch, error):
    from fake_chain import selectmoe_scorers

    from selectmoe_core.plugin.registry import Entry

    def formula(config, workload):
        if error is not None:
            raise error
        return 3

    (component,) = (found for found in selectmoe_scorers() if found.name == "fake-score")
    broken = replace(component, cost=formula)
    real = Registry.get

    def get(self, kind, name, *, where):
        entry = real(self, kind, name, where=where)
        return Entry(kind, broken, entry.plugin) if name == "fake-score" else entry

    monkeypatch.setattr(Registry, "get", get)
    said = project.call("plan", "recipe.toml")
    assert said.code == 0, said.err
    assert "the cost formula of fake-score (plugin fake) failed" in said.err
    assert said.err.count("Warning") == 1
    (row,) = (line for line in said.out.splitlines() if line.startswith("score  "))
    assert "?" in row


@pytest.mark.parametrize("outputs", ["file/below", "closed/outputs"])
def test_a_plan_needs_no_folder_that_can_be_written(project, monkeypatch, outputs):
    (project.folder / "file").write_text("")
    expected = project.plan()
    real = Path.mkdir

    def mkdir(self, *arguments, **options):
        if "closed" in self.parts:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert project.plan("--outputs", outputs) == expected
    assert not (project.folder / "closed").exists()


def test_a_file_too_large_to_hash_in_passing_is_said_to_be(project, monkeypatch):
    from selectmoe_core.cli import plan

    monkeypatch.setattr(plan, "HASH_LIMIT", 10)
    nodes = {node["key"]: node for node in project.plan()["nodes"]}
    assert nodes["pool"]["digest"] is None
    assert nodes["pool"]["state"] == "after hashing"
    assert nodes["evaluate@random"]["digest"] is None
    assert "hash?" in project.call("plan", "recipe.toml").out
    whole = project.plan("--hash")
    assert all(node["digest"] for node in whole["nodes"])
    # What is hashed once is known from then on.
    assert project.plan() == whole


# ------------------------------------------------------------------------------ light and quiet


def test_a_plan_imports_nothing_heavy_and_touches_no_network(project):
    program = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "from selectmoe_core.cli import call\n"
        "code = call(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'datasets', 'lm_eval', 'peft', 'accelerate'}\n"
        "print('loaded', sorted(heavy & set(sys.modules)), code)\n"
    )
    project.edit(
        '[train]\nuse = "fake-train"\nmodel = "./base"',
        '[train]\nuse = "fake-train"\nmodel = "some/hub-id"',
    )
    from conftest import LEFT_OUT

    done = subprocess.run(
        [sys.executable, "-c", program, *LEFT_OUT, "plan", "recipe.toml", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_CACHE": str(project.folder / "cache")},
    )
    assert done.returncode == 0, done.stderr
    text, _, last = done.stdout.strip().rpartition("\n")
    assert last == "loaded [] 0", done.stderr
    assert len(json.loads(text)["nodes"]) == len(ALL)


def test_the_fixture_really_refuses_the_network():
    with pytest.raises(OSError, match=r".*"):
        socket.create_connection(("127.0.0.1", 1), timeout=0.2)
