"""From packed examples to a loss, for every model type, compiled and not."""

from functools import partial

import pytest
import torch
from llama_models import TINY, Examples, conversations, job, options, tokenizer
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.functional import log_softmax
from transformers import AutoConfig, AutoModelForCausalLM

from selectmoe_core.models import LLAMA_LIKE
from selectmoe_core.models.models import ModelRef
from selectmoe_core.training import head_logits
from selectmoe_llama.adapter import with_lora
from selectmoe_llama.attention import PADDED, Attention, attention_for
from selectmoe_llama.batches import Collator, Place, TrainingRows
from selectmoe_llama.packed_model import PackedModel
from selectmoe_llama.trainer import COMPILING_PAYS, compiles

TOLD = {
    "logit_scale": 0.3,
    "logits_scaling": 3.0,
    "final_logit_softcapping": 2.0,
    "attn_logit_softcapping": 1.5,
    "query_pre_attn_scalar": 12,
    "embedding_multiplier": 1.7,
    "residual_multiplier": 0.6,
    "attention_multiplier": 0.4,
    "sliding_window": 5,
}
"""Where a type has the option, a value that shows: by default many do nothing at this size."""


def of_type(kind, **changes):
    shape = TINY | {"head_dim": 8, "num_hidden_layers": 2}
    known = AutoConfig.for_model(kind, **shape).to_dict()
    told = {name: value for name, value in TOLD.items() if known.get(name) is not None}
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **shape | told | changes)
    return AutoModelForCausalLM.from_config(config).eval()


def rows_of(folder, count=5):
    made = job(folder, chat={"loss_on": "everything"})
    source = Examples(conversations(count), folder / "encoded", made.chat)
    return TrainingRows(source.encoded(tokenizer()))


@pytest.mark.parametrize("kind", sorted(LLAMA_LIKE))
def test_logits_are_what_the_model_itself_returns(kind):
    model = of_type(kind)
    ids = torch.randint(1, 257, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        hidden = model.get_decoder()(ids, use_cache=False).last_hidden_state
        torch.testing.assert_close(head_logits(model, hidden), model(ids, use_cache=False).logits)
        plain = model.get_output_embeddings()(hidden)
    changed = kind in {"cohere", "granite", "gemma2"}
    assert changed != torch.equal(plain, head_logits(model, hidden))


@pytest.mark.parametrize("kind", sorted(LLAMA_LIKE))
def test_a_packed_loss_is_that_of_the_examples_alone(kind, tmp_path):
    """Windows, caps, scales and positions of every type, through the attention of this machine."""
    rows = rows_of(tmp_path)
    model = of_type(kind)
    wanted = 0.0
    for number in range(len(rows)):
        ids = torch.from_numpy(rows[Place(number)].ids.astype("int64"))
        with torch.no_grad():
            logs = log_softmax(model(ids[None], use_cache=False).logits[0], dim=-1)
        counted = torch.from_numpy(rows[Place(number)].weights)[1:]
        wanted -= float((logs[:-1].gather(1, ids[1:, None])[:, 0] * counted).sum())
    attention = attention_for(model.config, "cpu", "float32", packing=True)
    (one,) = Collator(attention)([rows[Place(n)] for n in range(len(rows))])["passes"]
    network = with_lora(model, ModelRef("random"), options(lora_dropout=0.0))
    with torch.no_grad():
        found = PackedModel(network, attention).eval()(**one)
    assert found.item() == pytest.approx(wanted, rel=2e-5)


@pytest.mark.parametrize("recomputed", [False, True])
def test_compiled_equals_uncompiled_and_all_layers_are_the_same_code(
    tmp_path, monkeypatch, recomputed
):
    rows = rows_of(tmp_path)
    attention = Attention(PADDED, packed=False, compiles=True)
    passes = [Collator(attention)([rows[Place(n)] for n in of])["passes"][0]
              for of in ((0, 1), (2, 3, 4))]  # fmt: skip
    counts = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counts))
    torch.compiler.reset()
    found = {}
    for compiled in (False, True):
        network = with_lora(of_type("llama"), ModelRef("random"), options(lora_dropout=0.0))
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
        model = PackedModel(network, attention, compiled=compiled, recomputed=recomputed).train()
        with torch._dynamo.config.patch(error_on_recompile=True):
            losses = [model(**one) for one in passes]
            sum(losses).backward()
        grads = {n: w.grad for n, w in network.named_parameters() if w.requires_grad}
        found[compiled] = (torch.stack(losses), grads)
        assert (counts.frame_count > 0) == compiled
    torch.testing.assert_close(found[True][0], found[False][0])
    for name, grad in found[False][1].items():
        torch.testing.assert_close(found[True][1][name], grad, atol=1e-4, rtol=1e-4)
        assert grad.abs().max() > 0


class Network:
    """Stands for a model of so many parameters."""

    def __init__(self, parameters):
        self.parameters = parameters

    def get_base_model(self):
        return self

    def num_parameters(self):
        return self.parameters


def test_compiling_has_to_pay(tmp_path):
    rows = rows_of(tmp_path)
    able = Attention(PADDED, packed=False, compiles=True)
    made = job(tmp_path)
    tokens = int(rows.lengths.sum())

    def chosen(parameters, attention=able, **changes):
        config = options(**{"epochs": 3, "max_steps": None, "batch_size": 5} | changes)
        return compiles(config, attention, Network(parameters), rows, made)

    enough = COMPILING_PAYS / (3 * tokens)
    assert chosen(enough * 1.01)
    assert not chosen(enough * 0.99)
    assert chosen(enough * 3.03, max_steps=1)
    assert not chosen(enough * 2.97, max_steps=1)
    assert not chosen(enough * 9, attention=Attention(PADDED, packed=False))
    assert not chosen(enough * 9, quantization="nf4")
    assert not chosen(enough * 9, compile=False)
    assert chosen(1, compile=True)
