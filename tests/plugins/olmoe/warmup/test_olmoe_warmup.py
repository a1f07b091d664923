"""The warm-up trainer: what it trains, how its loss is normalised, how it resumes and saves."""

import json
from dataclasses import replace

import pytest
import torch
from olmoe_models import tensors
from olmoe_stage import MODELS, example, gradient, part_of
from safetensors.torch import load_file

from selectmoe_core.errors import DataError, ModelError, StageError
from selectmoe_core.models.models import ModelRef
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import encode
from selectmoe_olmoe import plugin
from selectmoe_olmoe.config import ConstraintConfig
from selectmoe_olmoe.warmup.batches import LengthGroupedSampler, Split, TrainingRows, collate
from selectmoe_olmoe.warmup.trainable import gates, load_trainable

pytest_plugins = ["olmoe_fixtures"]

OFF = {"router_aux_loss_coef": 0.0}


@pytest.mark.parametrize("part", ["constraint", "cross_entropy"])
def test_accumulation_scales_nothing(stage, part):
    weight = 1e4 if part == "constraint" else 0.0  # the constraint drowns the cross-entropy
    trainer, network, rows = stage.trainer(constraint_loss_weight=weight, **OFF)
    picked = [rows[i] for i in range(8)]
    whole_loss, whole = gradient(trainer, network, picked, 8)
    for split in (1, 2, 4, 3):
        loss, accumulated = gradient(trainer, network, picked, split)
        ratio = (accumulated @ whole / (whole @ whole)).item()
        assert ratio == pytest.approx(1.0, abs=1e-4)
        torch.testing.assert_close(accumulated, whole, rtol=1e-3, atol=1e-4 * whole.abs().max())
        assert loss == pytest.approx(whole_loss, rel=1e-5)


def test_accumulation_does_not_scale_the_balance_loss(stage):
    trainer, network, rows = stage.trainer(router_aux_loss_coef=1e4, constraint_loss_weight=0.0)
    picked = [rows[0]] * 4  # equal micro-batches: the loss of the parts is the loss of the whole
    _, whole = gradient(trainer, network, picked, 4)
    _, accumulated = gradient(trainer, network, picked, 1)
    torch.testing.assert_close(accumulated, whole, rtol=1e-3, atol=1e-4 * whole.abs().max().item())


def test_processes_scale_nothing(stage, monkeypatch):
    """Two processes with equal batches: the mean of their gradients is that of one."""
    trainer, network, rows = stage.trainer(constraint_loss_weight=100.0, router_aux_loss_coef=1.0)
    picked = [rows[i] for i in range(4)]
    _, alone = gradient(trainer, network, picked, 4)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", 2)
    monkeypatch.setattr(trainer.accelerator, "reduce", lambda value, reduction: 2 * value)
    _, shared = gradient(trainer, network, picked, 4)
    torch.testing.assert_close(shared, alone)


def test_the_loss_is_the_models_documented_sum(stage):
    trainer, network, rows = stage.trainer()
    picked = [rows[i] for i in range(4)]
    loss, _ = gradient(trainer, network, picked, 4)
    batch = collate(picked)
    labels = batch["input_ids"].masked_fill(batch["loss_weights"] == 0, -100)
    out = network(
        batch["input_ids"],
        attention_mask=batch["attention_mask"],
        labels=labels,
        output_router_logits=True,
    )
    assert loss == pytest.approx(out.loss.item(), rel=1e-5)


def test_rows_weigh_by_token_or_by_example(stage, tmp_path):
    tokenizer = MODELS.tokenizer(stage.base)
    rows = TrainingRows(encode(stage.examples, tmp_path / "a", stage.chat, tokenizer))
    for i in (0, 5):
        assert rows[i].weights.sum() == len(stage.examples[i].response.strip()) + 1  # and eos
    per_example = ChatFormat.load(ChatConfig(average="example"))
    rows = TrainingRows(encode(stage.examples, tmp_path / "b", per_example, tokenizer))
    assert rows[3].weights.sum() == pytest.approx(1.0)
    everything = ChatFormat.load(ChatConfig(loss_on="everything"))
    rows = TrainingRows(encode(stage.examples, tmp_path / "c", everything, tokenizer))
    assert rows[3].weights.tolist() == [0.0] + [1.0] * (len(rows[3].ids) - 1)


def test_batches_are_random_complete_and_of_similar_length():
    lengths = torch.randint(5, 500, (1003,)).numpy()
    sampler = LengthGroupedSampler(lengths, Split(4, 1), seed=1)
    first, again = list(sampler), list(sampler)
    assert first == again
    assert sorted(first) == list(range(1003))
    sampler.set_epoch(1)
    assert list(sampler) != first
    spread = [
        lengths[first[i : i + 4]].max() - lengths[first[i : i + 4]].min() for i in range(0, 1000, 4)
    ]
    assert sum(spread) / len(spread) < 40
    means = torch.tensor([lengths[first[i : i + 4]].mean() for i in range(0, 1000, 4)])
    assert (means[:50].mean() / means[-50:].mean() - 1).abs() < 0.4  # not sorted over the epoch


def test_training_lowers_the_constraint_and_logs_every_term(stage):
    facts, _ = stage.run(max_steps=12, constraint_loss_weight=1.0, batch_size=8)
    assert facts["steps"] == 12
    assert facts["final"]["constraint"] < facts["first"]["constraint"] - 0.05
    assert facts["final"]["trash_share"] > facts["first"]["trash_share"]
    assert [point["step"] for point in stage.curve] == list(range(1, 13))
    wanted = {"loss", "cross_entropy", "balance", "constraint", "trash_share", "learning_rate"}
    layers = {"trash_share/layer_00", "trash_share/layer_01"}
    for point in stage.curve:
        assert wanted | layers <= point.keys()
        total = point["cross_entropy"] + 0.01 * point["balance"] + 1.0 * point["constraint"]
        assert point["loss"] == pytest.approx(total, rel=1e-4)
        mean = sum(point[layer] for layer in layers) / 2
        assert point["trash_share"] == pytest.approx(mean)
    json.dumps(facts)


def test_router_only_saves_the_gates_and_a_pointer(stage):
    facts, out = stage.run()
    assert sorted(path.name for path in out.iterdir()) == [
        "partial.json",
        "partial.safetensors",
        "selector.json",
    ]
    saved = load_file(out / "partial.safetensors")
    assert {tuple(weight.shape) for weight in saved.values()} == {(20, 32)}
    assert facts["trainable_parameters"] == 2 * 20 * 32
    original = tensors(stage.folder.__class__(stage.base.location))
    loaded = stage.load(out).state_dict()
    fresh = MODELS.load(stage.base, dtype="float32", device="cpu").state_dict()
    for name, weight in loaded.items():
        if name in saved:
            assert torch.equal(weight, saved[name])
            assert not torch.equal(weight, original[name])
        else:
            assert torch.equal(weight, fresh[name]), name
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in out.glob("*.safetensors"))


@pytest.mark.parametrize("peft_mode", ["full_rank", "lora"])
@pytest.mark.parametrize("trainable", ["router", "all"])
def test_modes_train_what_they_say(stage, peft_mode, trainable):
    lora = {"lora_rank": 4} if peft_mode == "lora" else {}
    _, out = stage.run(peft_mode=peft_mode, trainable=trainable, max_steps=3, **lora)
    loaded = stage.load(out)
    assert loaded.config.model_type == "select_moe"
    assert loaded.config.use_cache is True
    fresh = MODELS.load(stage.base, dtype="float32", device="cpu").state_dict()
    changed = {n for n, w in loaded.state_dict().items() if not torch.equal(w, fresh[n])}
    gate = {name for name in fresh if name.endswith("mlp.gate.weight")}
    attention = {n for n in fresh if ".self_attn." in n and n.endswith("_proj.weight")}
    expected = {
        ("full_rank", "router"): gate,
        ("lora", "router"): gate,
        ("lora", "all"): gate | attention,
        ("full_rank", "all"): set(fresh),
    }[peft_mode, trainable]
    assert changed == expected
    if trainable == "all":
        assert json.loads((out / "config.json").read_text())["use_cache"] is True
        assert MODELS.tokenizer(ModelRef(str(out))).eos_token == "<eos>"
        assert "model.layers.0.mlp.experts.3.up_proj.weight" in tensors(out)
    assert (out / "selector.json").is_file()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"trainable": "all", "batch_size": 6, "micro_batch_size": 3},
        {"peft_mode": "lora", "trainable": "all", "activation_checkpointing": True},
    ],
    ids=["router", "all", "lora"],
)
def test_a_resumed_run_ends_with_the_same_bytes(stage, options):
    options = {"max_steps": 8, "batch_size": 3, "checkpoint_every": 2, **options}

    def write_half():
        half = stage.folder / "run" / "checkpoints" / "checkpoint-6"
        half.mkdir(exist_ok=True)  # a checkpoint that was being written
        (half / "partial.safetensors").write_bytes(b"half")

    whole, resumed, curve = stage.resumed(5, write_half, **options)
    assert min(point["step"] for point in stage.curve) == 5
    for point in stage.curve:
        assert point == curve[point["step"]]
    files = sorted(path.name for path in whole.iterdir())
    assert files == sorted(path.name for path in resumed.iterdir())
    for name in files:
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
    kept = {path.name for path in (stage.folder / "run" / "checkpoints").glob("checkpoint-*")}
    assert kept == {f"checkpoint-{n}" for n in (2, 4, 6, 8)}


def test_only_the_newest_checkpoint_is_kept_unless_asked(stage):
    stage.run(checkpoint_minutes=1e-6)
    left = [path.name for path in (stage.folder / "run" / "checkpoints").glob("checkpoint-*")]
    assert left == ["checkpoint-6"]


def test_a_checkpoint_is_a_model_of_its_own(stage):
    stage.run(checkpoint_every=2)
    loaded = stage.load(stage.folder / "run" / "checkpoints" / "checkpoint-2")
    fresh = MODELS.load(stage.base, dtype="float32", device="cpu")
    pairs = zip(gates(loaded), gates(fresh), strict=True)
    assert all(not torch.equal(a.weight, b.weight) for a, b in pairs)


def test_bf16_keeps_fp32_masters_and_saves_what_the_forward_pass_saw(stage):
    options = {"learning_rate": 1e-5, "scheduler": "constant_with_warmup", "warmup_ratio": 0.0}
    _, out = stage.run(dtype="bfloat16", max_steps=40, checkpoint_every=40, **options)
    saved = load_file(out / "partial.safetensors")
    masters = load_file(
        stage.folder / "run" / "checkpoints" / "checkpoint-40" / "partial.safetensors"
    )
    start = tensors(stage.folder.__class__(stage.base.location))
    for name, weight in saved.items():
        assert weight.dtype == torch.bfloat16
        assert masters[name].dtype == torch.float32
        assert torch.equal(masters[name].bfloat16(), weight)
        moved = (masters[name] - start[name].bfloat16().float()).abs()
        # 40 steps of 1e-5; a bf16 weight of 0.2 would have rounded every one of them away.
        assert moved.median().item() > 1e-4
    loaded = stage.load(out, dtype="bfloat16")
    assert next(gates(loaded)).weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "options", [{"trainable": "all"}, {"peft_mode": "lora", "trainable": "all"}]
)
def test_bf16_trains_every_mode_from_fp32_weights(stage, options):
    facts, out = stage.run(dtype="bfloat16", max_steps=2, checkpoint_every=2, **options)
    checkpoint = stage.folder / "run" / "checkpoints" / "checkpoint-2" / "partial.safetensors"
    assert {weight.dtype for weight in load_file(checkpoint).values()} == {torch.float32}
    assert {weight.dtype for weight in tensors(out).values()} == {torch.bfloat16}
    assert facts["final"]["loss"] > 0


def test_overrides_reach_the_loss(stage):
    trainer, _, _ = stage.trainer(
        constraint_alpha=3.0, constraint_beta=4.0, balance_over="regular", router_aux_loss_coef=0.5
    )
    assert (trainer.terms.alpha, trainer.terms.beta) == (3.0, 4.0)
    assert (trainer.terms.balance_over, trainer.terms.balance_weight) == ("regular", 0.5)
    assert trainer.terms.constraint_weight == 0.01  # the converted model's


def test_statistics_can_be_left_out(stage):
    facts, _ = stage.run(statistics=False, max_steps=2)
    assert "trash_share" not in facts["final"]
    assert "constraint" in facts["final"]


def test_examples_without_a_counted_token_are_counted_not_trained(stage):
    stage.chat = ChatFormat.load(ChatConfig(max_length=80))
    far = [example("x" * 100, "never reached")] * 3
    facts, _ = stage.run(examples=stage.examples[:5] + far, max_steps=1)
    assert facts["examples_without_a_counted_token"] == 3
    assert facts["examples"] == 5
    with pytest.raises(DataError, match="no token of the 3 examples counts"):
        stage.run("other", examples=far)


def test_what_cannot_be_trained_is_said(stage, base):
    source = ModelRef(str(stage.folder.__class__(base.location).parent / "olmoe"))
    with pytest.raises(ModelError, match="'olmoe'") as caught:
        load_trainable(source, ConstraintConfig(), stage.job())
    assert "convert" in caught.value.hint
    with pytest.raises(StageError, match="float16"):
        part_of().check(stage.job(dtype="float16"))
    with pytest.raises(StageError, match="not finite"):
        stage.run(constraint_loss_weight=1e38, learning_rate=1e38)


def test_checkpoints_of_other_circumstances_are_not_mixed(stage):
    stage.run(max_steps=2)
    with pytest.raises(StageError, match="bfloat16"):
        stage.run(max_steps=3, dtype="bfloat16")
    with pytest.raises(StageError, match="other trained tensors"):
        stage.run(max_steps=3, trainable="all")


def test_costs_and_needs_are_import_light_numbers(stage, base):
    from selectmoe_core.cost import Workload

    shape = MODELS.config(base)
    work = Workload(examples=100, tokens=5000, estimated=False, model=shape, dtype="float32")
    for component in (*plugin.selectmoe_trainers(), *plugin.selectmoe_converters()):
        cost = component.cost(component.config(), work)
        assert cost.disk > 0
        component.cost(component.config(), replace(work, model=None))
    trainer = plugin.selectmoe_trainers()[0]
    router = trainer.cost(ConstraintConfig(), work)
    whole = trainer.cost(ConstraintConfig(trainable="all"), work)
    assert router.tokens == 20_000
    assert whole.flops == pytest.approx(1.5 * router.flops)
    assert whole.memory > router.memory
    assert trainer.cost(ConstraintConfig(max_steps=1), work).tokens == 200
