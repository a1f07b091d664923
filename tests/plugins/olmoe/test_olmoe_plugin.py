"""What the plugin offers, and that offering it stays cheap."""

import subprocess
import sys

import pytest

from selectmoe_core.config import parse
from selectmoe_core.errors import RecipeError
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.testing import check_plugin
from selectmoe_olmoe import plugin
from selectmoe_olmoe.config import ConstraintConfig, ContrastiveConfig, TrashcanConfig, WarmupConfig


def test_offering_imports_nothing_heavy():
    code = (
        "import sys; from selectmoe_olmoe import plugin;"
        "[*plugin.selectmoe_converters(), *plugin.selectmoe_trainers()];"
        "plugin.selectmoe_model_types();"
        "print([m for m in ('torch', 'transformers', 'peft', 'safetensors') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_plugin_conforms():
    check_plugin("selectmoe_olmoe.plugin")


def test_components_have_names_and_build():
    components = (*plugin.selectmoe_converters(), *plugin.selectmoe_trainers())
    names = [component.name for component in components]
    assert names == ["olmoe-trashcan", "select-moe-constraint", "select-moe-contrastive"]
    for component in components:
        assert isinstance(component, Component)
        assert component.about.meaning
        assert component.about.cost
        assert component.seeded
        assert component.torch
        part = component.build(component.config())
        assert part.config == component.config()
    assert callable(components[0].build(TrashcanConfig()).verify)


def test_the_name_that_both_once_had_is_refused_and_both_are_named():
    with pytest.raises(RecipeError, match="no trainer named 'select-moe-warmup'") as caught:
        Registry(load_plugins()).get(Kind.TRAINER, "select-moe-warmup", where="warmup")
    assert "'select-moe-constraint'" in caught.value.hint
    assert "'select-moe-contrastive'" in caught.value.hint


def test_the_defaults_are_the_methods():
    converter, warmup = TrashcanConfig(), ConstraintConfig()
    assert (converter.trash_can_init_mean, converter.trash_can_init_std) == (0.0, 0.02)
    assert (converter.constraint_loss_weight, converter.balance_over) == (0.01, "all")
    assert (converter.constraint_alpha, converter.constraint_beta) == (1.0, 2.0)
    assert (warmup.batch_size, warmup.learning_rate, warmup.epochs) == (4, 1e-4, 4.0)
    assert (warmup.lm_weight, warmup.balance_over) == (1.0, None)
    assert (warmup.peak_learning_rate, warmup.answer_weight) == (1e-4, 1.0)
    assert (warmup.peft_mode, warmup.trainable) == ("full_rank", "router")


@pytest.mark.parametrize(
    ("options", "rate", "weight", "over"),
    [
        ({}, 8e-3, 0.0, "regular"),
        ({"trainable": "all"}, 2e-4, 0.2, "regular"),
        ({"learning_rate": 1e-3, "balance_over": "all"}, 1e-3, 0.0, "all"),
        ({"trainable": "all", "lm_weight": 1.0}, 2e-4, 1.0, "regular"),
    ],
)
def test_the_contrast_has_defaults_of_its_own(options, rate, weight, over):
    found = parse(ContrastiveConfig, options, where="warmup")
    assert (found.peak_learning_rate, found.answer_weight) == (rate, weight)
    assert (found.balance_over, found.constraint_loss_weight) == (over, 0.0)
    assert parse(ContrastiveConfig, found.model_dump(), where="again") == found


@pytest.mark.parametrize("config", [ConstraintConfig, ContrastiveConfig])
@pytest.mark.parametrize("options", [{"lora_rank": 16}, {"lora_alpha": 8.0}])
def test_options_of_lora_without_lora_are_mistakes(config, options):
    (name,) = options
    with pytest.raises(RecipeError, match=f"'{name}' has no effect without peft_mode = \"lora\""):
        parse(config, options, where="[warmup]")
    found = parse(config, {**options, "peft_mode": "lora"}, where="[warmup]")
    assert found.lora == (16, options.get("lora_alpha", 32.0))
    assert parse(config, parse(config, {}, where="a").model_dump(), where="b") == config()


def test_each_warm_up_has_its_own_options_alone():
    common = set(WarmupConfig.model_fields)
    assert set(ConstraintConfig.model_fields) == common
    own = {"damages", "contrast_tokens", "contrast_layers", "bce_weight", "margin_weight"}
    own |= {"place_weight", "place_window"}
    assert set(ContrastiveConfig.model_fields) == common | own | {"layer_weights"}
    with pytest.raises(RecipeError, match="unknown option 'objective'"):
        parse(ConstraintConfig, {"objective": "contrastive"}, where="warmup")
