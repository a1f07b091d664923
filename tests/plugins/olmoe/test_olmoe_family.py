"""The record of a family: it says what transformers says, and a second one is one entry."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from olmoe_models import olmoe, save, tensors
from safetensors.torch import load_file, save_file
from transformers import OlmoeConfig
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from selectmoe_core import Job, ModelError, ModelRef
from selectmoe_core.cost import Shape, Workload
from selectmoe_olmoe import family as families
from selectmoe_olmoe import plugin
from selectmoe_olmoe.config import TrashcanConfig
from selectmoe_olmoe.convert import checkpoint
from selectmoe_olmoe.convert.converter import TrashcanConverter
from selectmoe_olmoe.family import OLMOE, MoeShape, family_of_selector, family_of_source
from selectmoe_olmoe.model.modeling import SelectMoeConfig, SelectMoeForCausalLM


def test_families_import_no_torch():
    code = "import sys, selectmoe_olmoe.family; print({'torch', 'transformers'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_what_config_json_leaves_out_is_what_transformers_takes():
    plain, shape = OlmoeConfig(), MoeShape.of({}, OLMOE, "config.json")
    assert shape.hidden == plain.hidden_size
    assert shape.layers == plain.num_hidden_layers
    assert shape.experts == plain.num_experts
    assert shape.top_k == plain.num_experts_per_tok
    assert (shape.tied, shape.biased) == (plain.tie_word_embeddings, plain.attention_bias)
    other = MoeShape.of({"num_local_experts": 9}, OLMOE, "config.json")
    assert other.experts == OlmoeConfig(num_local_experts=9).num_experts == 9


def test_names_of_tensors_are_those_that_transformers_writes(tmp_path):
    for options in ({}, {"attention_bias": True}):
        folder = save(olmoe(**options), tmp_path / str(len(options)))
        config = json.loads((folder / "config.json").read_text())
        shape = MoeShape.of(config, OLMOE, "config.json")
        names = list(shape.tensors(OLMOE))
        assert set(names) == set(tensors(folder))
        assert shape.count(OLMOE) == len(set(names)) == len(names)
    assert OLMOE.gates(2) == {
        "model.layers.0.mlp.gate.weight": 0,
        "model.layers.1.mlp.gate.weight": 1,
    }


def test_parts_of_names_and_classes():
    assert OLMOE.tensors.gate_parameter == "mlp.gate.weight"
    assert OLMOE.tensors.gate_module == "gate"
    assert OLMOE.tensors.attention_modules == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert OLMOE.experts() is OlmoeExperts
    assert OLMOE.architecture == SelectMoeForCausalLM.__name__
    assert SelectMoeConfig.model_type == OLMOE.selector_type
    assert (family_of_source("olmoe"), family_of_selector("select_moe")) == (OLMOE, OLMOE)
    assert family_of_source("select_moe") is family_of_selector("olmoe") is None
    assert family_of_source([]) is None


@pytest.mark.parametrize("scaled", [False, True])
def test_whether_weights_are_scaled_is_a_field_or_fixed(scaled):
    config = SelectMoeConfig(norm_topk_prob=scaled)
    assert OLMOE.normalizes(config) is scaled
    assert replace(OLMOE, top_k_normalized=True).normalizes(config) is True
    assert replace(OLMOE, top_k_normalized=False).normalizes(config) is False


OTHER = replace(
    OLMOE,
    model_type="other_moe",
    selector_type="select_other_moe",
    architecture="SelectOtherMoeForCausalLM",
    example="nobody/other",
    tensors=replace(
        OLMOE.tensors,
        gate="model.layers.{layer}.block.router.weight",
        expert=tuple(
            f"model.layers.{{layer}}.block.experts.{{expert}}.{part}.weight"
            for part in ("w1", "w2", "w3")
        ),
    ),
    names=replace(OLMOE.names, experts=("n_experts",), top_k=("n_active",)),
    defaults={},
)
"""OLMoE's weights under other names."""

RENAMED = {".mlp.gate.": ".block.router.", ".mlp.experts.": ".block.experts."}
PARTS = {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"}


def renamed(name):
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    if ".experts." in name:
        for old, new in PARTS.items():
            name = name.replace(old, new)
    return name


@pytest.fixture
def other(tmp_path, monkeypatch):
    """A checkpoint of another family, which the plugin has an entry for."""
    monkeypatch.setattr(families, "FAMILIES", (OLMOE, OTHER))
    monkeypatch.setattr(checkpoint, "FAMILIES", (OLMOE, OTHER))
    folder = save(olmoe(), tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    weights = {renamed(name): weight for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "other_moe"
    config["n_experts"], config["n_active"] = config.pop("num_experts"), 8
    del config["num_experts_per_tok"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def convert(source, out):
    return TrashcanConverter(TrashcanConfig()).convert(ModelRef(str(source)), out, Job(42))


def test_a_second_family_is_converted_by_its_entry(other, tmp_path):
    facts = TrashcanConverter(TrashcanConfig()).convert(
        ModelRef(str(other)), tmp_path / "out", Job(42)
    )
    assert (facts["experts"], facts["trash_cans"], facts["top_k"]) == (64, 8, 8)
    before, after = tensors(other), tensors(tmp_path / "out")
    grown = {name for name in before if after[name].shape != before[name].shape}
    assert grown == {f"model.layers.{layer}.block.router.weight" for layer in (0, 1)}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == "select_other_moe"
    assert config["architectures"] == ["SelectOtherMoeForCausalLM"]
    plain = shutil.copytree(save(olmoe(), tmp_path / "plain"), tmp_path / "copy")
    convert(plain, tmp_path / "olmoe")
    same = {renamed(name): weight for name, weight in tensors(tmp_path / "olmoe").items()}
    assert all(same[name].equal(after[name]) for name in same)


def test_without_its_entry_the_family_is_refused_and_the_known_ones_named(
    other, tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoint, "FAMILIES", (OLMOE,))
    with pytest.raises(ModelError, match=r"'other_moe', which is not .* \(olmoe\)") as caught:
        convert(other, tmp_path / "out")
    assert OLMOE.example in caught.value.hint


def test_costs_follow_a_familys_names(monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", (OLMOE, OTHER))
    plain = OlmoeConfig(num_experts=16, num_experts_per_tok=4).to_dict()
    named = dict(plain, model_type="other_moe", n_experts=16, n_active=4)
    del named["num_experts"], named["num_experts_per_tok"]
    converter = plugin.selectmoe_converters()[0]

    def disk(model):
        load = Workload(10, 100, estimated=False, model=model, dtype="float32")
        return converter.cost(TrashcanConfig(), load).disk

    assert disk(named) == disk(plain) > 0
    assert Shape.of(plain).experts == 16
