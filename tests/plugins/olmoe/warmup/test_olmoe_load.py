"""The load of experts before and after the warm-up, beside a slow count of the slots."""

import json

import numpy as np
import pytest
import torch
from olmoe_stage import MODELS

from selectmoe_core.models.models import ModelRef
from selectmoe_core.tokens.encoding import encode
from selectmoe_olmoe.warmup import load, parts
from selectmoe_olmoe.warmup.batches import TrainingRows

pytest_plugins = ["olmoe_fixtures"]

MODES = [
    {"constraint_loss_weight": 1.0},
    {"contrastive": True, "trainable": "all"},
    {"trainable": "all", "peft_mode": "lora", "lora_rank": 4, "constraint_loss_weight": 1.0},
]


def slow_load(ref, rows):
    """Count the slots of one token after another, as the model's own routers choose them."""
    model = MODELS.load(ref, dtype="float32", device="cpu").eval()
    counts = [
        torch.zeros(model.config.num_experts + model.config.num_trash_experts, dtype=torch.int64)
        for _ in model.model.layers
    ]
    for number, layer in enumerate(model.model.layers):

        def count(_module, _inputs, outputs, number=number):
            for slot in outputs[2].reshape(-1).tolist():
                counts[number][slot] += 1

        layer.mlp.gate.register_forward_hook(count)
    with torch.no_grad():
        for row in rows:
            model(torch.from_numpy(row.ids.astype(np.int64))[None])
    return [(own / own.sum()).tolist() for own in counts]


def sampled(stage, tmp_path, size):
    """Every row if there are no more than ``size``, otherwise those at equal steps."""
    rows = TrainingRows(
        encode(stage.examples, tmp_path / "rows", stage.chat, MODELS.tokenizer(stage.base))
    )
    last = len(rows) - 1
    places = (
        range(len(rows))
        if len(rows) <= size
        else [round(last * n / (size - 1)) for n in range(size)]
    )
    return [rows[place] for place in places]


@pytest.mark.parametrize("options", MODES, ids=["router", "contrastive", "lora"])
def test_it_is_the_share_of_slots_of_the_converted_and_of_the_trained_model(
    stage, tmp_path, options
):
    facts, out = stage.run(
        learning_rate=0.1,
        max_steps=8,
        micro_batch_size=2,
        batch_size=4,
        **options,
    )
    found, rows = facts["expert_load"], sampled(stage, tmp_path, 64)
    assert (found["examples"], found["experts"]) == (22, 16)
    assert found["tokens"] == sum(len(row.ids) for row in rows)
    np.testing.assert_allclose(found["before"], slow_load(stage.base, rows), atol=2e-5)
    np.testing.assert_allclose(found["after"], slow_load(ModelRef(str(out)), rows), atol=2e-3)
    assert found["before"] != found["after"]
    json.dumps(facts)


def test_a_large_sample_is_drawn_at_equal_steps(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "SAMPLE", 5)
    facts, _ = stage.run(max_steps=1)
    rows = sampled(stage, tmp_path, 5)
    assert facts["expert_load"]["examples"] == 5
    np.testing.assert_allclose(
        facts["expert_load"]["before"], slow_load(stage.base, rows), atol=2e-5
    )


def test_measuring_changes_nothing_of_the_training(stage, monkeypatch):
    _, with_it = stage.run("with", contrastive=True)
    first = list(stage.curve)
    assert "expert_load" not in stage.run("option", contrastive=True, statistics=False)[0]
    monkeypatch.setattr(parts.ExpertLoad, "_measure", lambda _: None)
    _, without = stage.run("without", contrastive=True)
    timeless = [
        {name: value for name, value in point.items() if "second" not in name} for point in first
    ]
    assert [
        {name: point[name] for name in own}
        for point, own in zip(stage.curve, timeless, strict=True)
    ] == timeless
    for name in sorted(path.name for path in with_it.glob("*.safetensors")):
        assert (with_it / name).read_bytes() == (without / name).read_bytes()


def test_a_resumed_run_measures_the_converted_model(stage):
    whole, _ = stage.run("alone", max_steps=6)
    stage.resumed(3, checkpoint_every=1)
    again, _ = stage.run(max_steps=6, checkpoint_every=1)
    assert again["expert_load"] == whole["expert_load"]
