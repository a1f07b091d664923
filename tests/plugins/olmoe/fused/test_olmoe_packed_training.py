"""Packed training: gradients beside transformers' path, kernels beside plain torch, the trainer."""

import numpy as np
import pytest
import torch
from olmoe_contrasts import conversations, slow_contrast
from olmoe_models import select_moe
from olmoe_stage import gradient
from peft import LoraConfig, get_peft_model
from triton_interpreter import inside, outside, skip_outside

from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.training.losses import summed_cross_entropy
from selectmoe_olmoe.fused.ops import Gate
from selectmoe_olmoe.fused.training_ops import TorchTrainingSteps
from selectmoe_olmoe.fused.training_pass import PackedTraining, obstacle, of_model
from selectmoe_olmoe.model.losses import balance_loss, constraint_per_token, trash_share
from selectmoe_olmoe.warmup import packed_losses, parts
from selectmoe_olmoe.warmup.batches import Row, collate
from selectmoe_olmoe.warmup.contrastive_losses import trash_logits
from selectmoe_olmoe.warmup.packed_rows import collate_packed, collate_packed_pairs, merged
from selectmoe_olmoe.warmup.pairs import Pair
from selectmoe_olmoe.warmup.trainable import gates

pytest_plugins = ["olmoe_fixtures"]

EPS = 1e-5
SHAPES = [(37, 64, 32, 8, 3, 4, 4), (50, 96, 48, 64, 8, 8, 6), (5, 32, 16, 4, 2, 2, 1)]
"""Tokens, hidden, intermediate, experts, trash cans, slots, heads: few are powers of two."""


def draw_rows(lengths, vocabulary, seed=0):
    random = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        weights = (random.random(length) < 0.6).astype(np.float32) * random.random(length)
        weights[0], weights[-1] = 0.0, 0.5
        answer = random.random(length) < 0.5
        answer[-1] = True
        ids = random.integers(2, vocabulary, length)
        rows.append(Row(ids, weights.astype(np.float32), answer))
    return rows


# ----------------------------------------------------------------------------- the whole model


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        error = (found[name] - grad).norm() / grad.norm()
        assert error < 2e-5, (name, error.item())


def losses_of(logits, cross_entropy, mask, config):
    """A loss that every router output and every vocabulary logit has a part in."""
    experts, top_k = config.num_experts, config.num_experts_per_tok
    taxes = (constraint_per_token(logits, experts, top_k, 2.0, 3.0) * mask).sum()
    return cross_entropy + 0.1 * taxes + 5.0 * balance_loss(logits, mask, experts, top_k)


def plain_loss(model, rows):
    batch = collate(rows)
    out = model(batch["input_ids"], output_router_logits=True, use_cache=False)
    cross_entropy = summed_cross_entropy(
        out.logits[:, :-1], batch["input_ids"][:, 1:], batch["loss_weights"][:, 1:]
    )
    mask = batch["attention_mask"].reshape(-1).float()
    return losses_of(out.router_logits, cross_entropy, mask, model.config)


def packed_loss(model, rows, **options):
    options = {"dtype": torch.float32, "recompute": False, "steps": TorchTrainingSteps()} | options
    batch = collate_packed(rows)
    out = PackedTraining(model, **options)(batch)
    mask = torch.ones(len(batch["input_ids"]))
    return losses_of(tuple(out.logits), out.cross_entropy, mask, model.config)


def shaken(model):
    """Norms that are no ones, as in a trained model."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    return model.train()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 3},
        {"norm_topk_prob": True},
        {"num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 2},
        {"trash_std": 3.0},
    ],
    ids=["three layers", "normed", "grouped queries, few experts", "much trash"],
)
def test_gradients_of_all_parameters_equal_the_plain_models(changes, recompute):
    model = shaken(select_moe(**changes))
    rows = draw_rows((5, 17, 2, 30), model.config.vocab_size)
    wanted_loss = plain_loss(model, rows)
    wanted = gradients(model, wanted_loss)
    loss = packed_loss(model, rows, recompute=recompute)
    found = gradients(model, loss)
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-6)
    assert len(wanted) == len(list(model.parameters()))
    assert_same(found, wanted)


def test_only_what_is_trained_gets_a_gradient():
    model = shaken(select_moe()).requires_grad_(requires_grad=False)
    for gate in gates(model):
        gate.weight.requires_grad_()
    rows = draw_rows((9, 4), model.config.vocab_size)
    wanted = gradients(model, plain_loss(model, rows))
    found = gradients(model, packed_loss(model, rows))
    assert {name.split(".", 3)[-1] for name in found} == {"mlp.gate.weight"}
    assert_same(found, wanted)


# ---------------------------------------------------------------------------------- the losses


@pytest.mark.parametrize("over", ["all", "regular", "grouped"])
def test_losses_of_joined_micro_batches_are_the_sums_of_each(over):
    torch.manual_seed(5)
    experts, trash, top_k, layers = 12, 3, 4, 3
    rows = draw_rows((7, 3, 11, 5, 2), 50)
    splits = [collate_packed(rows[:2]), collate_packed(rows[2:3]), collate_packed(rows[3:])]
    (whole,) = merged(splits, 1000)
    logits = torch.randn(layers, 28, experts + trash)
    index = torch.stack(
        [
            TorchTrainingSteps()
            .route(layer, Gate(torch.eye(experts + trash), experts, top_k, normed=False))
            .index
            for layer in logits
        ]
    )
    taxes = constraint_per_token(tuple(logits), experts, top_k, 2.0, 3.0)
    found = packed_losses.constraint_sum(logits, whole["micro"], experts, top_k, 2.0, 3.0)
    assert found.item() == pytest.approx(taxes.sum().item(), rel=1e-5)
    wanted, first, share = 0.0, 0, torch.zeros(layers)
    for batch in splits:
        size = len(batch["input_ids"])
        part = tuple(logits[:, first : first + size])
        ones = torch.ones(size)
        wanted += size * balance_loss(part, ones, experts, top_k, over).item()
        share += size * trash_share(part, ones, experts, top_k)
        first += size
    found = packed_losses.balance_sum(logits, index, whole["micro"], experts, over)
    assert found.item() == pytest.approx(wanted, rel=1e-5)
    found = packed_losses.trash_sum(index, whole["micro"], experts)
    torch.testing.assert_close(found, share)


def test_trash_logits_of_packed_rows_are_those_of_padded_ones():
    rows = draw_rows((6, 9, 2), 50)
    packed = collate_packed_pairs([Pair(rows[0], rows[1]), Pair(rows[2], None)])
    logits = torch.randn(2, 17, 10, requires_grad=True)
    padded = torch.zeros(2, 2, 9, 10)
    padded[:, 0, :6], padded[:, 1, :9] = logits[:, :6], logits[:, 8:]
    answers = torch.zeros(2, 9, dtype=torch.bool)
    for place, row in enumerate(rows[:2]):
        answers[place, : len(row.answer)] = torch.from_numpy(row.answer)
    wanted = trash_logits(tuple(padded.flatten(1, 2)), answers, 7)
    wanted.square().sum().backward()
    slope, logits.grad = logits.grad, None
    found = torch.cat(
        [
            packed_losses.trash_logits(
                logits, packed[f"{half}_tokens"], packed[f"{half}_pairs"], packed["pairs"], 7
            )
            for half in ("clean", "corrupted")
        ],
        dim=1,
    )
    torch.testing.assert_close(found, wanted)
    found.square().sum().backward()
    torch.testing.assert_close(logits.grad, slope)


def test_rows_that_end_and_begin_with_a_counted_token_stay_apart():
    """The last token of one and the first of the next are neighbours in a pass."""
    random = np.random.default_rng()
    rows = draw_rows(random.integers(2, 9, size=8), 50, seed=int(random.integers(1 << 30)))
    for row in rows:
        row.answer[0] = row.answer[-1] = True
    pairs = [Pair(rows[number], rows[number + 4]) for number in range(4)]
    (whole,) = merged([collate_packed_pairs(pairs[:2]), collate_packed_pairs(pairs[2:])], 10**6)
    order = [rows[number] for number in (0, 1, 4, 5, 2, 3, 6, 7)]
    starts = np.cumsum([0, *(len(row.ids) for row in order)])
    logits = torch.randn(3, int(starts[-1]), 10)
    for half, places in (("clean", (0, 1, 4, 5)), ("corrupted", (2, 3, 6, 7))):
        found = packed_losses.trash_logits(
            logits, whole[f"{half}_tokens"], whole[f"{half}_pairs"], whole["pairs"], 7
        )
        for pair, place in enumerate(places):
            own = logits[:, starts[place] : starts[place + 1]].double().softmax(-1)
            mass = own[:, order[place].answer, 7:].sum(-1).mean(-1)
            torch.testing.assert_close(found[:, pair].double(), mass.logit(), rtol=1e-4, atol=1e-5)


def test_micro_batches_join_up_to_the_budget_and_keep_their_meaning():
    rows = draw_rows((4, 6, 3, 9, 2, 5), 50)
    copy = draw_rows((7, 8), 50, seed=1)
    batches = [
        collate_packed_pairs([Pair(rows[0], copy[0]), Pair(rows[1], None)]),
        collate_packed_pairs([Pair(rows[2], None)]),
        collate_packed_pairs([Pair(rows[3], None), Pair(rows[4], copy[1])]),
        collate_packed_pairs([Pair(rows[5], None)]),
    ]
    sizes = [len(batch["input_ids"]) for batch in batches]
    assert [len(one["input_ids"]) for one in merged(batches, 20)] == [20, 19, 5]
    assert [len(one["input_ids"]) for one in merged(batches, 1)] == sizes
    (whole,) = merged(batches, 1000)
    every = [rows[0], rows[1], copy[0], rows[2], rows[3], rows[4], copy[1], rows[5]]
    starts = np.cumsum([0, *(len(row.ids) for row in every)])
    assert whole["starts"].tolist() == starts.tolist()
    assert whole["input_ids"].tolist() == np.concatenate([row.ids for row in every]).tolist()
    assert whole["longest"] == 9
    assert whole["pairs"] == 2
    for at, label, weight in zip(
        whole["predicts"], whole["labels"], whole["label_weights"], strict=True
    ):
        owner = int(np.searchsorted(starts, at.item(), side="right")) - 1
        place = at.item() + 1 - starts[owner]
        assert every[owner].ids[place] == label
        assert every[owner].weights[place] == pytest.approx(weight.item())
    for half, wanted in (("clean", [0, 5]), ("corrupted", [2, 6])):
        for pair, owner in enumerate(wanted):
            tokens = whole[f"{half}_tokens"][whole[f"{half}_pairs"] == pair].numpy()
            assert (tokens - starts[owner]).tolist() == every[owner].answer.nonzero()[0].tolist()
    assert whole["micro"].sum(dim=1).tolist() == [10, 3, 11, 5]
    assert whole["micro"].sum(dim=0).max() == 1


# --------------------------------------------------------------------------------- the trainer


@pytest.fixture
def packed(monkeypatch):
    """Let the packed path run on the CPU, on plain steps."""
    monkeypatch.setattr(parts, "obstacle", lambda *_: None)
    monkeypatch.setattr(
        "selectmoe_olmoe.fused.training_pass.TritonTrainingSteps", TorchTrainingSteps
    )


MODES = [
    {},
    {"trainable": "all", "activation_checkpointing": True},
    {"trainable": "all", "peft_mode": "lora", "lora_rank": 4},
    {"contrastive": True, "trainable": "all", "layer_weights": (1, 3)},
    {
        "contrastive": True,
        "contrast_tokens": "response",
        "contrast_layers": "each",
        "lm_weight": 1.0,
    },
    {"contrastive": True, "lm_weight": 0.0, "router_aux_loss_coef": 0.0},
    {"contrastive": True, "place_weight": 0.5, "balance_over": "grouped"},
    {"balance_over": "regular", "constraint_loss_weight": 1.0, "constraint_alpha": 2.0},
]
IDS = [
    "router",
    "all",
    "lora",
    "contrastive",
    "answers, each layer",
    "no language model",
    "places, grouped",
    "constraint",
]


@pytest.mark.parametrize("options", MODES, ids=IDS)
def test_both_paths_log_the_same_losses_over_twenty_steps(stage, request, options):
    options = {"max_steps": 20, "batch_size": 9, "micro_batch_size": 3, **options}
    options["learning_rate"] = 1e-3
    facts, _ = stage.run("plain", **options)
    assert facts["kernel"] == "transformers"
    plain = list(stage.curve)
    request.getfixturevalue("packed")
    facts, _ = stage.run("packed", pass_tokens=200, **options)
    assert facts["kernel"] == "packed: torch steps, padded attention, grouped_mm"
    assert len(stage.curve) == 20
    for found, wanted in zip(stage.curve, plain, strict=True):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert found[name] == pytest.approx(value, rel=2e-3, abs=1e-5), name


@pytest.mark.parametrize("options", MODES[:4], ids=IDS[:4])
def test_both_paths_measure_the_same_load_of_experts(stage, request, options):
    options = {"max_steps": 1, "batch_size": 4, "learning_rate": 1e-9, **options}
    plain, _ = stage.run("plain", **options)
    request.getfixturevalue("packed")
    packed, _ = stage.run("packed", **options)
    for when in ("before", "after"):
        wanted = np.array(plain["expert_load"][when])
        found = np.array(packed["expert_load"][when])
        # A tie in rounding may give a slot to another output.
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_a_resumed_packed_run_ends_with_the_same_bytes(stage, packed):
    options = {
        "contrastive": True,
        "trainable": "all",
        "batch_size": 8,
        "micro_batch_size": 4,
        "checkpoint_every": 2,
        "pass_tokens": 100,
    }
    whole, resumed, curve = stage.resumed(3, **options)
    assert [point["step"] for point in stage.curve] == [3, 4, 5, 6]
    for point in stage.curve:
        assert point == curve[point["step"]]
    for path in whole.iterdir():
        assert path.read_bytes() == (resumed / path.name).read_bytes(), path.name


def test_a_pass_of_no_example_gives_no_gradient_and_no_nan(stage, packed):
    trainer, network, rows = stage.trainer(name="probe", pass_tokens=1)
    _, wanted = gradient(trainer, network, [rows[0], rows[1]], 1)
    found_loss, found = gradient(trainer, network, [rows[0], rows[1], Row.nothing()], 1)
    assert np.isfinite(found_loss)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("tokens", ["end", "response"])
@pytest.mark.parametrize("layers", ["together", "each"])
def test_the_packed_contrast_is_that_of_the_slow_way(stage, packed, tokens, layers):
    stage.chat = ChatFormat.load(ChatConfig(max_length=150))
    options = {"contrast_tokens": tokens, "contrast_layers": layers, "layer_weights": (1, 3)}
    off = {"lm_weight": 0.0, "router_aux_loss_coef": 0.0, "bce_weight": 0.7, "margin_weight": 1.3}
    examples = conversations(np.random.default_rng(), 12)
    for budget in (1, 10**6):
        trainer, network, pairs = stage.trainer(
            examples, contrastive=True, pass_tokens=budget, **options, **off
        )
        with torch.no_grad():  # else every mass is near T / E
            for gate in gates(network):
                gate.weight.mul_(20)
        loss, _ = gradient(trainer, network, [pairs[i] for i in range(12)], 5)
        network.packed_training = None  # the reference reads by the plain path
        bce, ranking = slow_contrast(network, pairs, range(12), options)
        assert loss == pytest.approx(0.7 * bce + 1.3 * ranking, rel=1e-4)
        assert trainer.kernel.startswith("packed")


@pytest.mark.parametrize("tokens", ["end", "response"])
def test_joining_passes_changes_no_gradient(stage, packed, tokens):
    found = []
    for budget in (1, 10**6):
        trainer, network, pairs = stage.trainer(
            name=f"probe{budget}",
            contrastive=True,
            pass_tokens=budget,
            contrast_tokens=tokens,
        )
        found.append(gradient(trainer, network, [pairs[i] for i in range(9)], 2))
        assert trainer.trained_tokens == sum(len(pairs[i].clean.ids) for i in range(9))
    (one_loss, one), (other_loss, other) = found
    assert one_loss == pytest.approx(other_loss, rel=1e-6)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * one.abs().max().item())


def test_what_stands_in_the_way_is_named():
    model = select_moe()
    assert "the model is on cpu" in obstacle(model, torch.bfloat16)
    assert "head size" in of_model(model)  # 8
    fits = select_moe(hidden_size=64)
    assert of_model(fits) is None
    with fits.trash_disabled():
        assert "switched off" in of_model(fits)
    assert "clip_qkv" in of_model(select_moe(hidden_size=64, clip_qkv=1.0))
    attention = LoraConfig(target_modules=["q_proj"], modules_to_save=["gate"])
    assert of_model(get_peft_model(fits, attention).get_base_model()) is None
    for name in ("gate.weight", "experts.down_proj"):
        adapter = LoraConfig(target_modules=[], target_parameters=[f"mlp.{name}"])
        model = get_peft_model(select_moe(hidden_size=64), adapter)
        assert "adapter" in of_model(model.get_base_model())


# --------------------------------------------------------------------------------- the kernels


@pytest.fixture(scope="module")
def triton_steps():
    """The launches on Triton's interpreter: the kernels as they are, on the CPU."""
    skip_outside()
    from selectmoe_olmoe.fused.training_launches import TritonTrainingSteps

    return TritonTrainingSteps()


@outside
def test_kernels_on_the_interpreter():
    child = inside(__file__, "-k", "kernels_compute")
    assert child.returncode == 0, child.stdout[-3000:]
    assert "skipped" not in child.stdout, child.stdout[-500:]


def near(found, wanted, dtype):
    if wanted is None:
        assert found is None
        return
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    error = (found.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-9)
    assert error < (1e-5 if dtype == torch.float32 else 2e-3)


def all_near(found, wanted, dtype):
    for one, other in zip(found, wanted, strict=True):
        near(one, other, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("wide", [False, True], ids=["", "wide residual"])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_compute_norms_like_plain_torch(triton_steps, shape, dtype, wide):
    tokens, hidden, _, _, _, _, heads = shape
    plain, kind = TorchTrainingSteps(), torch.float32 if wide else dtype
    x, behind = torch.randn(tokens, hidden).to(kind), torch.randn(tokens, hidden).to(kind)
    delta, grad = torch.randn(tokens, hidden).to(dtype), torch.randn(tokens, hidden).to(dtype)
    weight = (torch.rand(hidden) + 0.5).to(kind)
    for one in (delta, None):
        results = [s.add_norm(x, one, weight, EPS, dtype) for s in (triton_steps, plain)]
        all_near(*results, dtype)
    for weighted in (False, True):
        for one in (behind, None):
            results = [
                s.norm_backward(x, weight, grad, one, EPS, weighted=weighted)
                for s in (triton_steps, plain)
            ]
            all_near(*results, dtype)
    size = hidden // heads
    if size & (size - 1):
        return
    angles = torch.randn(50, size // 2)
    tables = (angles.cos(), angles.sin())
    places = torch.randint(50, (tokens,), dtype=torch.int32)
    part = torch.randn(tokens, 3 * hidden).to(dtype)[:, hidden : 2 * hidden]
    part = part.unflatten(1, (heads, size))
    grad = grad.unflatten(1, (heads, size))
    near(*(s.norm_rotary(part, weight, tables, places, EPS) for s in (triton_steps, plain)), dtype)
    for weighted in (False, True):
        results = [
            s.norm_rotary_backward(part, weight, tables, places, grad, EPS, weighted=weighted)
            for s in (triton_steps, plain)
        ]
        all_near(*results, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_compute_routing_and_experts_like_plain_torch(triton_steps, shape, normed, dtype):
    tokens, hidden, width, experts, trash, top_k, _ = shape
    plain, x = TorchTrainingSteps(), torch.randn(tokens, hidden)
    gate = Gate(torch.randn(experts + trash, hidden), experts, top_k, normed)
    routing, wanted = (s.route(x, gate) for s in (triton_steps, plain))
    torch.testing.assert_close(routing.logits, wanted.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(routing.scores, wanted.scores, rtol=1e-5, atol=1e-6)
    assert torch.equal(routing.index.long(), wanted.index)
    assert torch.equal(routing.position, wanted.position)
    assert torch.equal(routing.ends, wanted.ends)
    regular = wanted.position >= 0
    assert 0 < regular.sum() < regular.numel()
    scores, logits = torch.randn(tokens, top_k) * regular, torch.randn(tokens, experts + trash)
    for first, second in ((scores, logits), (scores, None), (None, logits)):
        near(
            triton_steps.route_backward(routing, first, second, normed=normed),
            plain.route_backward(wanted, first, second, normed=normed),
            torch.float32,
        )
    last = int(wanted.ends[-1])
    position, ends = wanted.position, wanted.ends
    rows = x.to(dtype)
    spread = [s.spread(rows, position)[:last] for s in (triton_steps, plain)]
    assert torch.equal(*spread)
    both = torch.randn(tokens * top_k, 2 * width).to(dtype)
    near(*(s.silu_times(both, ends)[:last] for s in (triton_steps, plain)), dtype)
    pairs, grad = torch.randn(tokens * top_k, hidden).to(dtype), torch.randn(len(both), width)
    for one in (pairs, grad):
        one[last:] = float("nan")  # rows that no expert wrote must not be read
    for base in (None, x, rows):
        results = [s.combine(base, pairs, position, wanted.scores) for s in (triton_steps, plain)]
        near(*results, dtype)
    for weighted in (False, True):
        found = triton_steps.silu_times_backward(
            both, grad.to(dtype), position, wanted.scores, weighted=weighted
        )
        other = plain.silu_times_backward(
            both, grad.to(dtype), position, wanted.scores, weighted=weighted
        )
        near(found[0][:last], other[0][:last], dtype)
        near(found[1], other[1], dtype)
        if weighted:
            near(found[2][:last], other[2][:last], dtype)
        else:
            assert found[2] is other[2] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("vocabulary", [7, 120, 9000])
def test_kernels_compute_cross_entropy_like_plain_torch(triton_steps, vocabulary, dtype):
    logits = (torch.randn(11, vocabulary) * 5).to(dtype)
    labels, weights = torch.randint(vocabulary, (11,)), torch.rand(11)
    for wanted in (True, False):
        changed = [logits.clone(), logits.clone()]
        losses = [
            s.cross_entropy_(one, labels, weights, gradient=wanted)
            for s, one in zip((triton_steps, TorchTrainingSteps()), changed, strict=True)
        ]
        near(*losses, torch.float32)
        near(*changed, dtype)
        assert torch.equal(changed[0], logits) != wanted
