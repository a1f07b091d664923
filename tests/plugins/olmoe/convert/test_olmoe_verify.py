"""verify: it passes a true conversion in every dtype, and finds a single changed weight."""

import json

import pytest
import torch
from olmoe_models import byte_tokenizer, olmoe, save
from safetensors.torch import load_file, save_file

from selectmoe_core.errors import StageError
from selectmoe_core.models.models import ModelRef, Models
from selectmoe_core.plugin.protocols import Job, VerifyOptions
from selectmoe_olmoe import plugin
from selectmoe_olmoe.config import TrashcanConfig
from selectmoe_olmoe.convert.converter import TrashcanConverter

CONVERTER = TrashcanConverter(TrashcanConfig())
JOB = Job(seed=42, models=Models(model_types=plugin.selectmoe_model_types()))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    model = olmoe(vocab_size=260).to(torch.bfloat16)
    save(model, folder, "150KB")
    byte_tokenizer(folder)
    return folder


@pytest.fixture
def converted(source, tmp_path):
    CONVERTER.convert(ModelRef(str(source)), tmp_path / "out", JOB)
    return tmp_path / "out"


def verify(converted, source, **how):
    return CONVERTER.verify(converted, ModelRef(str(source)), VerifyOptions(**how), JOB)


def change(folder, name, edit):
    for path in folder.glob("*.safetensors"):
        contents = load_file(path)
        if name in contents:
            contents[name] = edit(contents[name].clone())
            save_file(contents, path, {"format": "pt"})
            return
    raise AssertionError(name)


def nudge(tensor):
    tensor.view(-1)[7] += 0.01
    return tensor


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_true_conversion_is_equal(source, converted, dtype):
    facts = verify(converted, source, dtype=dtype)
    assert facts["logits"] == "equal"
    assert facts["logits_largest_difference"] == 0
    assert facts["largest_difference"] == 0
    assert facts["sample"] == "text"
    assert facts["sample_tokens"] > 100
    assert 0 <= facts["trash_share_of_slots"] <= 1
    assert facts["trash_rows_std"] == pytest.approx(0.02, rel=0.2)


def test_logits_can_be_left_out(source, converted):
    assert "logits" not in verify(converted, source, logits=False)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.mlp.experts.63.down_proj.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.1.mlp.gate.weight",
        "lm_head.weight",
    ],
)
def test_one_changed_weight_is_named(source, converted, name):
    change(converted, name, nudge)
    with pytest.raises(StageError, match=rf"1 of 4\d\d tensors differ.*{name} \(by"):
        verify(converted, source)
    verify(converted, source, tolerance=0.02, logits=False)


def test_a_change_of_bits_alone_is_found(source, converted):
    name = "model.layers.0.mlp.experts.3.up_proj.weight"
    change(converted, name, lambda weight: weight.float())
    with pytest.raises(StageError, match=name):
        verify(converted, source)


def test_implausible_trash_rows_are_found(source, converted):
    def scaled(gate):
        gate[64:] *= 3
        return gate

    change(converted, "model.layers.0.mlp.gate.weight", scaled)
    change(converted, "model.layers.1.mlp.gate.weight", scaled)
    with pytest.raises(StageError, match="trash rows have mean"):
        verify(converted, source)


def test_a_tensor_too_many_is_named(source, converted):
    path = min(converted.glob("*.safetensors"))
    save_file(load_file(path) | {"model.extra": torch.zeros(1)}, path, {"format": "pt"})
    with pytest.raises(StageError, match=r"model\.extra"):
        verify(converted, source)


def test_without_a_tokenizer_the_sample_is_drawn(tmp_path):
    bare = save(olmoe(), tmp_path / "bare")
    (bare / "tokenizer_config.json").unlink()
    CONVERTER.convert(ModelRef(str(bare)), tmp_path / "out", JOB)
    assert "random ids" in verify(tmp_path / "out", bare)["sample"]


def test_another_routing_is_found_in_the_logits(source, converted):
    config = json.loads((converted / "config.json").read_text())
    (converted / "config.json").write_text(json.dumps(config | {"norm_topk_prob": True}))
    with pytest.raises(StageError, match="logits differ"):
        verify(converted, source)
