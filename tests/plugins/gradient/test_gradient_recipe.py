"""Recipes with a warm-up by LoRA: what a plan says of the checkpoints that are read."""

import pytest

from selectmoe_core.cli import call
from selectmoe_core.errors import RecipeError
from selectmoe_core.plan.plan import make_plan
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import read_recipe

RECIPE = """
format = 1
name = "gradients"
[pool]
use = "nano"
examples = 60
[targets]
use = "nano"
examples = 20
seed = 5
[warmup]
use = "llama-lora"
model = "bundled:nano-llama"
subset_ratio = 0.5
checkpoint_every = "epoch"
[embed]
use = "lora-gradients"
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(load_plugins())


def plan(registry, folder, *overrides):
    path = folder / "gradients.toml"
    path.write_text(RECIPE)
    return make_plan(read_recipe(path, list(overrides)), registry, folder / "outputs")


def digests(registry, folder, *overrides):
    nodes = plan(registry, folder, *overrides).nodes
    return {key: node.digest for key, node in nodes.items()}


def test_the_embedder_reads_the_warm_up(registry, tmp_path):
    made = plan(registry, tmp_path)
    assert made.nodes["embed"].inputs == {
        "pool": "pool",
        "model": "warmup",
        "checkpoints": "warmup",
    }
    assert made.nodes["embed:targets"].inputs["checkpoints"] == "warmup"
    assert made.nodes["embed"].seed == made.nodes["embed:targets"].seed
    assert made.origin(made.nodes["embed"]).location == "bundled:nano-llama"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["~warmup.checkpoint_every"], "llama-lora keeps none"),
        (["warmup.use=select-moe-constraint", "warmup.model=bundled:nano-olmoe"], "keeps none"),
        (
            [
                "warmup.use=select-moe-constraint",
                "warmup.model=bundled:nano-olmoe",
                "warmup.checkpoint_every=5",
            ],
            "needs Adam's moments, which select-moe-constraint does not keep",
        ),
        (["~warmup"], "needs the checkpoints of a warm-up"),
    ],
)
def test_a_warm_up_without_the_checkpoints_is_reported_by_plan(registry, tmp_path, overrides, said):
    with pytest.raises(RecipeError) as caught:
        plan(registry, tmp_path, *overrides)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("warmup.checkpoint_every=3", {"warmup", "embed", "embed:targets"}),
        ("warmup.keep_checkpoints=1", {"warmup", "embed", "embed:targets"}),
        ("embed.projection=rademacher", {"embed", "embed:targets"}),
        ("embed.preconditioner=released-code", {"embed", "embed:targets"}),
        ("embed.seed=8", {"embed", "embed:targets"}),
        ("embed.pass_tokens=100", set()),
        ("embed.compile=false", set()),
    ],
)
def test_digests_cover_the_options(registry, tmp_path, override, again):
    before, after = digests(registry, tmp_path), digests(registry, tmp_path, override)
    assert {key for key in before if before[key] != after[key]} == again


def test_the_plan_says_whose_architecture_a_models_is(registry, tmp_path):
    made = plan(registry, tmp_path, "score.use=perplexity")
    assert made.trained_from(made.nodes["score"]).location == "bundled:nano-llama"
    changes = ["convert.use=olmoe-trashcan", "convert.model=bundled:nano-olmoe", "~warmup.model"]
    changes += ["warmup.use=select-moe-constraint", "~embed", "~targets", "score.use=router"]
    converted = plan(registry, tmp_path, *changes)
    assert converted.trained_from(converted.nodes["score"]) is None
    assert converted.origin(converted.nodes["score"]).location == "bundled:nano-olmoe"


def test_a_scorer_of_routers_refuses_a_warm_up_by_lora_before_the_first_stage(tmp_path, capfd):
    path = tmp_path / "gradients.toml"
    path.write_text(RECIPE)
    out = tmp_path / "outputs"
    changes = ["score.use=router", "~embed", "~targets"]
    code = call(["run", str(path), *changes, "--outputs", str(out)])
    assert code != 0
    assert "the check before the first stage" in capfd.readouterr().err
    assert not list((out / "store").glob("warmup-*/artifact.json"))
