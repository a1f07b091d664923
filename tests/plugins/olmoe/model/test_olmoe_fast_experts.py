"""The packed decoder: each kernel beside plain torch, the whole beside transformers' path."""

import pytest
import torch
from olmoe_models import select_moe
from peft import LoraConfig, get_peft_model
from triton_interpreter import inside, outside, skip_outside

from selectmoe_olmoe.fused.ops import Gate, TorchSteps
from selectmoe_olmoe.fused.scoring_pass import PackedDecoder, obstacle, run_experts

EPS = 1e-5
SHAPES = [(37, 64, 32, 8, 3, 4, 4), (130, 96, 48, 64, 8, 8, 6), (5, 32, 16, 4, 2, 2, 1)]
"""Tokens, hidden, intermediate, experts, trash cans, slots, heads: few are powers of two."""


@pytest.fixture(scope="module")
def triton_steps():
    """The launches on Triton's interpreter: the kernels as they are, on the CPU."""
    skip_outside()
    from selectmoe_olmoe.fused.launches import TritonSteps

    return TritonSteps()


@outside
def test_kernels_on_the_interpreter():
    child = inside(__file__)
    assert child.returncode == 0, child.stdout[-3000:]
    assert " 1 skipped" in child.stdout, child.stdout[-500:]  # this test alone


def _near(found, wanted, dtype):
    error = (found.double() - wanted.double()).norm() / wanted.double().norm()
    assert error < (1e-6 if dtype == torch.float32 else 2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_compute_what_plain_torch_does(triton_steps, shape, dtype):
    tokens, hidden, wide, experts, trash, top_k, heads = shape
    plain, size = TorchSteps(), hidden // heads
    x, delta, weight = (
        torch.randn(tokens, hidden).to(dtype),
        torch.randn(tokens, hidden).to(dtype),
        torch.rand(hidden).to(dtype),
    )
    _near(triton_steps.norm(x, weight, EPS), plain.norm(x, weight, EPS), dtype)
    pairs = (s.add_norm(x.clone(), delta, weight, EPS) for s in (triton_steps, plain))
    for found, wanted in zip(*pairs, strict=True):
        _near(found, wanted, dtype)

    angles = torch.randn(50, size // 2)
    places = torch.randint(50, (tokens,), dtype=torch.int32)
    qkv = torch.randn(tokens, 3 * hidden).to(dtype)
    turned = []
    for steps in (triton_steps, plain):
        one = qkv.clone()
        part = one[:, hidden : 2 * hidden].unflatten(1, (heads, size))
        steps.norm_rotary_(part, weight, (angles.cos(), angles.sin()), places, EPS)
        turned.append(one)
    _near(*turned, dtype)
    assert torch.equal(turned[0][:, :hidden], qkv[:, :hidden])

    routed = plain.route(
        x, Gate(torch.randn(experts + trash, hidden).to(dtype), experts, top_k, False)
    )
    last = int(routed.ends[-1])
    rows = triton_steps.spread(x, routed.position)
    assert torch.equal(rows[:last], plain.spread(x, routed.position)[:last])
    both = torch.randn(tokens * top_k, 2 * wide).to(dtype)
    _near(
        triton_steps.silu_times(both, routed.ends)[:last],
        plain.silu_times(both, routed.ends)[:last],
        dtype,
    )
    outputs = torch.randn(tokens * top_k, hidden).to(dtype)
    outputs[last:] = float("nan")  # rows that no expert wrote must not be read
    for base, gain in ((x, weight), (None, None)):
        results = [
            steps.combine(None if base is None else base.clone(), outputs, routed, gain, EPS)
            for steps in (triton_steps, plain)
        ]
        _near(results[0][0], results[1][0], dtype)
        assert (results[0][1] is None) == (gain is None)
        if gain is not None:
            _near(results[0][1], results[1][1], dtype)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_routing_kernels_choose_and_order_like_plain_torch(triton_steps, shape, normed):
    tokens, hidden, _, experts, trash, top_k, _ = shape
    x = torch.randn(tokens, hidden)
    x[1] = 0.0  # all logits tie: the regular experts come first, lowest number first
    gate = Gate(torch.randn(experts + trash, hidden), experts, top_k, normed)
    found, wanted = triton_steps.route(x, gate), TorchSteps().route(x, gate)
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.scores, wanted.scores, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.position, wanted.position)
    assert torch.equal(found.ends, wanted.ends)
    assert (found.position[1] >= 0).all()


def test_plain_steps_agree_with_a_loop_over_slots():
    model = select_moe().model
    block, config = model.layers[0].mlp, model.config
    x = torch.randn(23, config.hidden_size)
    gate = Gate(block.gate.weight.detach(), config.num_experts, config.num_experts_per_tok, False)
    steps = TorchSteps()
    routed = steps.route(x, gate)
    experts = block.experts
    pairs = run_experts(steps, x, routed, experts.gate_up_proj.detach(), experts.down_proj.detach())
    found, _ = steps.combine(None, pairs, routed, None, EPS)
    probs = torch.softmax(x @ gate.weight.t(), dim=-1)
    wanted = torch.zeros_like(x)
    for token in range(len(x)):
        for expert in probs[token].argsort(descending=True)[: gate.top_k].tolist():
            if expert < gate.experts:
                left, right = (x[token] @ experts.gate_up_proj[expert].t()).chunk(2)
                out = (torch.nn.functional.silu(left) * right) @ experts.down_proj[expert].t()
                wanted[token] += probs[token, expert] * out
    assert 0 < int(routed.ends[-1]) < x.shape[0] * gate.top_k  # some slots are trash, some not
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def _packed(lengths, vocabulary):
    rows = [torch.randint(vocabulary, (length,)) for length in lengths]
    positions = torch.cat([torch.arange(length) for length in lengths]).to(torch.int32)
    starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return rows, torch.cat(rows), positions, starts


@pytest.mark.parametrize("steps", ["torch", "triton"])
@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({"num_hidden_layers": 3}, (0, 1, 2)),
        ({"num_hidden_layers": 3}, (1,)),
        ({"norm_topk_prob": True, "num_key_value_heads": 2}, (0, 1)),
    ],
)
def test_packed_sequences_route_like_transformers(steps, changes, layers, request):
    model = select_moe(**changes)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    lengths = (5, 17, 1, 30)
    rows, ids, positions, starts = _packed(lengths, model.config.vocab_size)
    with torch.no_grad():
        each = [
            model.model(row[None], output_router_logits=True, use_cache=False).router_logits
            for row in rows
        ]
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    made = TorchSteps() if steps == "torch" else request.getfixturevalue("triton_steps")
    found = {}
    PackedDecoder(model.model, made).read(
        ids, positions, starts, max(lengths), layers, found.__setitem__
    )
    assert tuple(found) == layers
    for layer in layers:
        wanted = torch.cat([logits[layer] for logits in each])
        torch.testing.assert_close(found[layer], wanted, rtol=1e-4, atol=1e-4)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_one_layer_equals_transformers_layer():
    model = select_moe().model
    length, hidden = 9, model.config.hidden_size
    x = torch.randn(2, length, hidden)
    places = torch.arange(length)
    angles = model.rotary_emb(x, places[None])
    with torch.no_grad():
        wanted = model.layers[1](x, position_embeddings=angles, attention_mask=None)
    found = PackedDecoder(model, TorchSteps()).layer(
        1,
        x.flatten(0, 1),
        places.repeat(2).to(torch.int32),
        torch.tensor([0, length, 2 * length], dtype=torch.int32),
        length,
    )
    torch.testing.assert_close(found.view_as(x), wanted, rtol=1e-4, atol=1e-4)


def test_what_stands_in_the_way_is_named(monkeypatch):
    model = select_moe().model
    assert "the model is on cpu" in obstacle(model)
    assert model.packed_decoder() == (None, obstacle(model))
    monkeypatch.setattr("selectmoe_olmoe.fused.scoring_pass.of_machine", lambda *_: None)
    assert "head size" in obstacle(model)  # 8
    fits = select_moe(hidden_size=64)
    assert obstacle(fits.model) is None
    with fits.trash_disabled():
        assert "switched off" in obstacle(fits.model)
    assert "clip_qkv" in obstacle(select_moe(hidden_size=64, clip_qkv=1.0).model)
    adapted = get_peft_model(fits, LoraConfig(target_modules=["q_proj"]))
    assert "adapter" in obstacle(adapted.get_base_model().model)
