"""The Select-MoE model: exact with the trash off, equal to a plain loop with it, its layout."""

import copy

import pytest
import torch
from olmoe_models import grown, olmoe, select_moe, tensors
from transformers import AutoConfig, AutoModelForCausalLM

from selectmoe_olmoe.model.modeling import (
    CACHE,
    SelectMoeConfig,
    SelectMoeForCausalLM,
    register,
)
from selectmoe_olmoe.model.router import select, softmax

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
BACKENDS = ["eager", "grouped_mm", "batched_mm"]


def batch(rows: int = 4, length: int = 24, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 120, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 15:] = 0  # padded on the right
    mask[1, :9] = 0  # and on the left
    return ids, mask


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@torch.no_grad()
def test_without_trash_the_logits_are_olmoes_bit_for_bit(dtype, backend):
    source = olmoe().to(dtype)
    target = grown(source)
    for model in (source, target):
        model.set_experts_implementation(backend)
        assert model.config._experts_implementation == backend
    ids, mask = batch()
    expected = source(ids, attention_mask=mask).logits
    with target.trash_disabled():
        found = target(ids, attention_mask=mask).logits
    assert torch.equal(found, expected)
    assert not torch.equal(target(ids, attention_mask=mask).logits, expected)  # and on again


@torch.no_grad()
def test_a_forward_pass_uses_nothing_deprecated(monkeypatch):
    said = []
    monkeypatch.setattr("transformers.utils.generic.logger.warning_once", said.append)
    ids, mask = batch()
    found = grown(olmoe())(ids, attention_mask=mask, use_cache=True)
    assert said == []
    assert getattr(found, CACHE).get_seq_length() == ids.shape[1]


@pytest.mark.parametrize("experts", [10, 16, 60])
@torch.no_grad()
def test_exactness_does_not_hang_on_sixty_four_experts(experts):
    source = olmoe(num_experts=experts, num_experts_per_tok=3, norm_topk_prob=True)
    target = grown(source, trash=5)
    ids, mask = batch()
    with target.trash_disabled():
        found = target(ids, attention_mask=mask).logits
    assert torch.equal(found, source(ids, attention_mask=mask).logits)


def test_ties_go_to_regular_experts_in_olmoes_order():
    probs = torch.tensor([[0.2, 0.1, 0.2, 0.1, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0, 0.5, 0.5]])
    values, outputs = select(probs, 4, 3)
    assert set(outputs[0, :2].tolist()) == {0, 2}
    assert outputs[0, 2] in (4, 5)
    assert values[0].tolist() == pytest.approx([0.2, 0.2, 0.2])
    assert outputs[1, :2].tolist() == [4, 5]
    assert outputs[1, 2] < 4


def test_selection_is_a_valid_top_k():
    logits = torch.randn(500, 72).bfloat16()  # bf16: many ties
    probs = softmax(logits, 64)
    values, outputs = select(probs, 64, 8)
    assert torch.equal(values, probs.topk(8).values)
    assert torch.equal(values, probs.gather(-1, outputs))
    assert all(len(set(row)) == 8 for row in outputs.tolist())


def naive_block(block, hidden: torch.Tensor) -> torch.Tensor:
    """Slot by slot in plain Python: trash cans add nothing."""
    experts, out = block.experts, torch.zeros_like(hidden)
    probs = torch.softmax(hidden @ block.gate.weight.T, dim=-1)
    for token, row in enumerate(probs):
        for output in sorted(range(len(row)), key=lambda e: -row[e].item())[:8]:
            if output < 64:
                gate, up = (experts.gate_up_proj[output] @ hidden[token]).chunk(2)
                value = experts.down_proj[output] @ (torch.nn.functional.silu(gate) * up)
                out[token] += row[output] * value
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@torch.no_grad()
def test_trash_against_a_naive_loop(backend):
    model = select_moe(trash_std=1.0)
    model.set_experts_implementation(backend)
    block = model.model.layers[0].mlp
    hidden = torch.randn(1, 30, 32)
    _, _, outputs = block.gate(hidden)
    assert 0.1 < (outputs >= 64).float().mean() < 0.9
    torch.testing.assert_close(
        block(hidden)[0], naive_block(block, hidden[0]), atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_token_all_of_trash_is_zero_and_has_a_gradient(backend):
    model = select_moe()
    model.set_experts_implementation(backend)
    block = model.model.layers[0].mlp
    with torch.no_grad():
        block.gate.weight[64:] = 10.0
    hidden = (torch.rand(2, 5, 32) + 0.5).requires_grad_()
    out = block(hidden)
    assert torch.equal(out, torch.zeros_like(out))
    (hidden + out).sum().backward()
    assert torch.equal(hidden.grad, torch.ones_like(hidden))


def test_slots_in_the_trash_reach_no_expert():
    model = select_moe(trash_std=1.0)
    seen = []
    experts = model.model.layers[0].mlp.experts
    experts.register_forward_hook(lambda _, inputs, __: seen.append(inputs[1]))
    routed = []
    gate = model.model.layers[0].mlp.gate
    gate.register_forward_hook(lambda _, __, outputs: routed.append(outputs[2]))
    model(batch()[0])
    assert (seen[0] < 64).all()
    assert seen[0].numel() == (routed[0] < 64).sum() < routed[0].numel()


@pytest.mark.parametrize("backend", ["eager", "grouped_mm"])
def test_gradients_of_the_backends_and_a_plain_formula_agree(backend):
    model = select_moe(trash_std=0.5).double() if backend == "eager" else select_moe(trash_std=0.5)
    model.set_experts_implementation(backend)
    reference = select_moe(trash_std=0.5).double()
    reference.set_experts_implementation("batched_mm")
    ids, mask = batch()
    for one in (model, reference):
        one(ids, attention_mask=mask, labels=ids, output_router_logits=True).loss.backward()
    for (name, a), b in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("backend", ["eager", "grouped_mm"])
def test_checkpointing_keeps_loss_and_gradients(backend):
    plain, checkpointed = select_moe(), select_moe()
    ids, mask = batch()
    enable = getattr(checkpointed, "activation_checkpointing_enable", None)
    (enable or checkpointed.gradient_checkpointing_enable)()
    losses = []
    for model in (plain, checkpointed):
        model.set_experts_implementation(backend)
        model.train()
        model.requires_grad_(False)
        for layer in model.model.layers:
            layer.mlp.gate.weight.requires_grad_(True)
        out = model(
            ids, attention_mask=mask, labels=ids, output_router_logits=True, use_cache=False
        )
        out.loss.backward()
        losses.append(out.loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for a, b in zip(plain.model.layers, checkpointed.model.layers, strict=True):
        assert a.mlp.gate.weight.grad.abs().max() > 0
        torch.testing.assert_close(a.mlp.gate.weight.grad, b.mlp.gate.weight.grad)


@torch.no_grad()
def test_padding_changes_nothing():
    model = select_moe()
    ids = batch()[0][2:3, :10]
    alone = model(ids, labels=ids, output_router_logits=True)
    for left, right in ((0, 7), (7, 0)):
        padded = torch.nn.functional.pad(ids, (left, right))
        mask = torch.nn.functional.pad(torch.ones_like(ids), (left, right))
        labels = torch.nn.functional.pad(ids, (left, right), value=-100)
        labels[:, left] = -100  # padding on the left would predict it
        out = model(padded, attention_mask=mask, labels=labels, output_router_logits=True)
        kept = out.logits[:, left : left + 10]
        torch.testing.assert_close(kept, alone.logits, atol=1e-5, rtol=1e-5)
        for term in ("ce_loss", "constraint_loss", "aux_loss", "loss"):
            assert getattr(out, term).item() == pytest.approx(getattr(alone, term).item(), rel=1e-5)


@torch.no_grad()
def test_generation_with_and_without_cache_and_padding():
    model = select_moe()
    ids = batch()[0][2:3, :6]
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    cached = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=True, **options)
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **options)
    assert torch.equal(cached, plain)
    assert cached.shape == (1, 14)
    padded = torch.nn.functional.pad(ids, (5, 0))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (5, 0))
    left = model.generate(padded, attention_mask=mask, use_cache=True, **options)
    assert torch.equal(left[:, 5:], cached)


def test_save_and_load_keep_every_bit_in_olmoes_layout(tmp_path):
    register()
    register()  # twice does no harm
    model = select_moe(num_trash_experts=5).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    saved = tensors(tmp_path)
    assert saved["model.layers.0.mlp.gate.weight"].shape == (69, 32)
    assert saved["model.layers.1.mlp.experts.63.down_proj.weight"].shape == (32, 16)
    assert not any("gate_up_proj" in name for name in saved)
    loaded, info = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(info.values())
    assert type(loaded) is SelectMoeForCausalLM
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is SelectMoeConfig
    assert config.num_trash_experts == 5


def test_new_trash_rows_follow_the_configuration():
    model = select_moe(trash_std=0.01, trash_can_init_mean=3.0)
    weight = model.model.layers[1].mlp.gate.weight
    assert weight[64:].mean().item() == pytest.approx(3.0, abs=0.01)
    assert weight[64:].std().item() == pytest.approx(0.01, rel=0.2)
    assert weight[:64].std().item() == pytest.approx(0.2, rel=0.1)


def test_as_many_trash_cans_as_slots_unless_told():
    assert SelectMoeConfig(num_experts_per_tok=6).num_trash_experts == 6
    for changes in ({"num_trash_experts": 0}, {"balance_over": "none"}):
        with pytest.raises(Exception, match=next(iter(changes))):
            SelectMoeConfig(**changes)


@torch.no_grad()
def test_fp32_gates_in_a_bf16_model_route_like_bf16_gates():
    model = grown(olmoe().to(torch.bfloat16))
    mixed = copy.deepcopy(model)
    for layer in mixed.model.layers:
        layer.mlp.gate.weight.data = layer.mlp.gate.weight.data.float()
    ids, mask = batch()
    assert torch.equal(
        mixed(ids, attention_mask=mask).logits, model(ids, attention_mask=mask).logits
    )
