"""What the plugin offers, and that offering it stays cheap."""

import subprocess
import sys

import pytest

from selectmoe_core.config import parse
from selectmoe_core.errors import RecipeError
from selectmoe_core.plugin.component import Component
from selectmoe_core.testing import check_plugin
from selectmoe_olmoe import plugin
from selectmoe_olmoe.config import TrashcanConfig, WarmupConfig


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
    converter, trainer = *plugin.selectmoe_converters(), *plugin.selectmoe_trainers()
    assert (converter.name, trainer.name) == ("olmoe-trashcan", "select-moe-warmup")
    for component in (converter, trainer):
        assert isinstance(component, Component)
        assert component.about.meaning
        assert component.about.cost
        assert component.seeded
        assert component.torch
        part = component.build(component.config())
        assert part.config == component.config()
    assert callable(converter.build(TrashcanConfig()).verify)


def test_the_defaults_are_the_methods():
    converter, warmup = TrashcanConfig(), WarmupConfig()
    assert (converter.trash_can_init_mean, converter.trash_can_init_std) == (0.0, 0.02)
    assert (converter.constraint_loss_weight, converter.balance_over) == (0.01, "all")
    assert (converter.constraint_alpha, converter.constraint_beta) == (1.0, 2.0)
    assert (warmup.batch_size, warmup.learning_rate, warmup.epochs) == (4, 1e-4, 4.0)
    assert (warmup.lm_weight, warmup.balance_over) == (1.0, None)
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
    found = parse(WarmupConfig, {"objective": "contrastive"} | options, where="warmup")
    assert (found.learning_rate, found.lm_weight, found.balance_over) == (rate, weight, over)
    assert parse(WarmupConfig, found.model_dump(), where="again") == found


@pytest.mark.parametrize("value", ["nope", ["router"]])
def test_a_wrong_value_beside_the_contrast_is_told(value):
    with pytest.raises(RecipeError, match="option 'trainable'"):
        parse(WarmupConfig, {"objective": "contrastive", "trainable": value}, where="warmup")
