"""Frozen weights in 4 bits: what is quantised, what is trained, what is merged."""

import json
from importlib.util import find_spec

import pytest
import torch
from llama_models import (
    ADAPTER,
    Examples,
    conversations,
    job,
    llama,
    options,
    tokenizer,
    train,
)
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from selectmoe_core.errors import ModelError, StageError
from selectmoe_core.models.models import ModelRef
from selectmoe_llama import quantized
from selectmoe_llama.adapter import load_with_lora
from selectmoe_llama.batches import TrainingRows
from selectmoe_llama.config import LoraTrainingConfig
from selectmoe_llama.trainer import LlamaLora, build_trainer

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> ModelRef:
    return llama(tmp_path_factory.mktemp("llama"), hidden_size=64, intermediate_size=128)


def narrow(**changes):
    return options(**{"quantization": "nf4", "lora_dropout": 0.0} | changes)


# ------------------------------------------------------------------------ what needs no library


def test_a_quantised_base_is_never_compiled():
    with pytest.raises(
        ValidationError, match="'compile' cannot be used with quantization = \"nf4\""
    ):
        LoraTrainingConfig(quantization="nf4", compile=True)
    assert LoraTrainingConfig(quantization="nf4", compile=False).compile is False


def test_a_missing_library_is_said_before_anything_is_loaded(base, tmp_path, monkeypatch):
    monkeypatch.setattr(quantized, "find_spec", lambda _: None)
    with pytest.raises(StageError, match="needs bitsandbytes, which is not installed") as caught:
        LlamaLora(narrow()).check(job(tmp_path, base))
    assert "selectmoe[qlora]" in caught.value.hint
    LlamaLora(options()).check(job(tmp_path, base))


class Broken:
    """Stands for a release of bitsandbytes that was not built for this device."""

    @staticmethod
    def quantize_4bit(numbers, quant_type):
        raise RuntimeError("no kernel\n image for sm_12")


def test_a_device_that_it_cannot_work_on_is_said(base, tmp_path, monkeypatch):
    monkeypatch.setattr(quantized, "find_spec", lambda _: True)
    monkeypatch.setattr(quantized, "import_module", lambda _: Broken)
    with pytest.raises(StageError, match="cannot work on cpu: no kernel image for sm_12") as caught:
        load_with_lora(base, narrow(), job(tmp_path, base))
    assert "release of bitsandbytes" in caught.value.hint


def test_a_gguf_file_is_not_quantised_again(base, tmp_path, monkeypatch):
    monkeypatch.setattr(quantized, "find_spec", lambda _: True)
    monkeypatch.setattr(quantized, "_check_device", lambda _: None)
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="can only quantise models in safetensors"):
        load_with_lora(ModelRef(str(file)), narrow(), job(tmp_path, base))


# --------------------------------------------------------------------------------- what needs it


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_are_in_4_bits_and_the_rest_is_as_ever(base, tmp_path, dtype):
    model = load_with_lora(base, narrow(), job(tmp_path, base, dtype=dtype))
    packed = []
    for name, weight in model.named_parameters():
        if "lora_" in name:
            assert weight.dtype == torch.float32
            assert weight.requires_grad
        elif "_proj" in name:
            state = weight.quant_state
            assert (weight.dtype, state.quant_type, state.nested) == (torch.uint8, "nf4", True)
            assert state.dtype == getattr(torch, dtype)
            assert not weight.requires_grad
            packed.append(name)
        else:  # embeddings, norms and head
            assert weight.dtype == getattr(torch, dtype)
            assert not weight.requires_grad
    assert len(packed) == 2 * 7


@needs_bitsandbytes
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_step_is_that_of_the_dequantised_model(base, tmp_path, recomputed):
    """The plain way: the same numbers, spread out into fp32 weights, without any 4-bit product."""
    from bitsandbytes.functional import dequantize_4bit

    made = job(tmp_path, base)
    source = Examples(conversations(8), tmp_path / "encoded", made.chat)
    rows = TrainingRows(source.encoded(tokenizer()))
    found = {}
    for quantization in ("nf4", "none"):
        config = options(
            quantization=quantization,
            dropout=0.0,
            pass_tokens=300,
            activation_checkpointing=recomputed,
        )
        model = load_with_lora(base, config, made)
        weights = dict(model.named_parameters())
        with torch.no_grad():
            if quantization == "nf4":
                spread = {
                    name: dequantize_4bit(weight.data, weight.quant_state)
                    for name, weight in weights.items()
                    if weight.dtype == torch.uint8
                }
                changed = max((spread[n] - plain).abs().max() for n, plain in plain_weights(base))
                assert changed > 0.01  # four bits are few
            else:
                for name, weight in spread.items():
                    weights[name].copy_(weight)
            for name, weight in weights.items():
                if "lora_" in name:
                    rng = torch.Generator().manual_seed(len(name))
                    weight.normal_(std=0.05, generator=rng)
        trainer = build_trainer(config, model, rows, made)
        batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, "cpu")
        assert len(batches[0]["passes"]) > 1
        loss = trainer.training_step(trainer.model, batches[0])
        grads = {n: w.grad for n, w in model.named_parameters() if w.requires_grad}
        found[quantization] = (loss, grads)
    torch.testing.assert_close(found["nf4"][0], found["none"][0])
    for name, grad in found["none"][1].items():
        torch.testing.assert_close(found["nf4"][1][name], grad, atol=2e-5, rtol=1e-4)
        assert grad.abs().max() > 0


def plain_weights(base):
    """The base's own weights under the names of PEFT's model."""
    for name, weight in load_file(f"{base.location}/model.safetensors").items():
        if "_proj" in name:
            stem = name.removesuffix(".weight")
            inner = ".base_layer" if stem.endswith(("q_proj", "k_proj", "v_proj", "o_proj")) else ""
            yield f"base_model.model.{stem}{inner}.weight", weight


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lora_weights_are_merged_into_the_weights_as_they_were_read(base, tmp_path, dtype):
    config = narrow(merge=True, max_steps=6)
    facts, out = train(base, conversations(19), tmp_path, config, dtype=dtype)
    assert facts["final_loss"] < facts["first_loss"]
    assert facts["compiled"] is False
    adapter = load_file(out / ADAPTER)
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}
    before = load_file(f"{base.location}/model.safetensors")
    merged = load_file(out.parent / "merged" / "model.safetensors")
    assert merged.keys() == before.keys()
    precise = dtype == "float32"
    for name, weight in merged.items():
        assert weight.dtype == getattr(torch, dtype)
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        wanted = before[name]
        if f"{stem}.lora_A.weight" in adapter:
            product = adapter[f"{stem}.lora_B.weight"] @ adapter[f"{stem}.lora_A.weight"]
            assert product.abs().max() > 1e-3
            wanted = wanted + 4 * product
        torch.testing.assert_close(
            weight.float(), wanted, atol=1e-5 if precise else 5e-3, rtol=1e-5 if precise else 1e-2
        )
    config = json.loads((out.parent / "merged" / "config.json").read_text())
    assert "quantization_config" not in config
    AutoModelForCausalLM.from_pretrained(out.parent / "merged")
    named = json.loads((out / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == base.location
