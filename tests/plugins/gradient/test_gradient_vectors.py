"""Gradients of a batch in one backward pass, beside autograd one example at a time."""

import numpy as np
import pytest
import torch
from less_reference import DENSE, adam_step, example_gradient, trainable
from llama_models import TINY
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from selectmoe_core import ModelError
from selectmoe_core.models import padded
from selectmoe_gradient import gradients as gradients_module
from selectmoe_gradient.directions import Adam, Direction
from selectmoe_gradient.gradients import ProjectedGradients
from selectmoe_gradient.projection import Projector
from selectmoe_gradient.random_signs import key_of

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
WIDTH = 96


def network(base=None, targets=ATTENTION, **options):
    torch.manual_seed(5)
    base = base or LlamaForCausalLM(LlamaConfig(**TINY))
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": list(targets)}
    made = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **chosen | options)).eval()
    with torch.no_grad():
        for weight in trainable(made).values():
            weight.normal_(0, 0.1)  # B would be zero, and with it the gradient of A
    return made


def examples(count=7, seed=4, vocabulary=260):
    chosen = np.random.default_rng(seed)
    ids = [chosen.integers(1, vocabulary, chosen.integers(3, 40)) for _ in range(count)]
    masks = [chosen.random(len(one)) < 0.4 for one in ids]
    for mask in masks:
        mask[0], mask[-1] = False, True
    return ids, masks


def reference(model, ids, masks, kind, moments=None, step=0, rule="paper"):
    rows = []
    for one, mask in zip(ids, masks, strict=True):
        found = example_gradient(model, torch.from_numpy(one), torch.from_numpy(mask))
        total = np.zeros(WIDTH)
        for name, gradient in found.items():
            taken = gradient.double()
            if moments is not None:
                taken = adam_step(gradient, *moments[name], step, rule)
            total += taken.numpy() @ DENSE[kind](key_of(3, name), len(taken), WIDTH)
        rows.append(total)
    return np.stack(rows)


def batch_of(ids, masks):
    order = np.argsort([-len(one) for one in ids], kind="stable")
    return padded(order, ids, masks, "cpu"), order


@pytest.mark.parametrize("kind", sorted(DENSE))
@pytest.mark.parametrize("targets", [ATTENTION, ("q_proj", "down_proj", "gate_proj")])
def test_plain_gradients_equal_autograd_one_example_at_a_time(kind, targets):
    model, (ids, masks) = network(targets=targets), examples()
    expected = reference(model, ids, masks, kind)
    batch, order = batch_of(ids, masks)
    made = ProjectedGradients(model, Projector(kind, WIDTH, 3, "cpu")).vectors(batch, None)
    np.testing.assert_allclose(made.numpy(), expected[order], rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("kind", sorted(DENSE))
@pytest.mark.parametrize("rule", ["paper", "released-code"])
def test_preconditioned_gradients_equal_adams_step_one_example_at_a_time(kind, rule):
    model, (ids, masks) = network(), examples(seed=9)
    generator = torch.Generator().manual_seed(1)
    moments = {
        name: (
            torch.randn(weight.numel(), generator=generator) * 1e-2,
            torch.rand(weight.numel(), generator=generator) * 1e-4,
        )
        for name, weight in trainable(model).items()
    }
    expected = reference(model, ids, masks, kind, moments, step=12, rule=rule)
    batch, order = batch_of(ids, masks)
    made = ProjectedGradients(model, Projector(kind, WIDTH, 3, "cpu"))
    factors = Adam(step=12).factors(rule, "cpu")
    directions = {
        name: Direction(*map(made.projections[name].arranged, pair), factors)
        for name, pair in moments.items()
    }
    found = made.vectors(batch, directions).numpy()
    np.testing.assert_allclose(found, expected[order], rtol=2e-4, atol=2e-3)
    assert np.abs(expected).max() > 1


def test_an_examples_vector_does_not_depend_on_its_batch_or_on_pieces(monkeypatch):
    model, (ids, masks) = network(), examples(12)
    made = ProjectedGradients(model, Projector("count-sketch", WIDTH, 3, "cpu"))
    together = torch.empty(12, WIDTH)
    batch, order = batch_of(ids, masks)
    together[order] = made.vectors(batch, None)
    monkeypatch.setattr(gradients_module, "ENTRIES", 300)  # two examples at a time
    for row in range(12):
        alone = made.vectors(padded(np.array([row]), ids, masks, "cpu"), None)[0]
        torch.testing.assert_close(alone, together[row], rtol=1e-4, atol=1e-5)
    in_pieces = made.vectors(batch, None)
    torch.testing.assert_close(in_pieces, together[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0}),
        ("granite", {"logits_scaling": 3.0}),
        ("mistral", {"sliding_window": 4}),
        ("qwen3", {"head_dim": 8}),
    ],
)
def test_other_llama_like_models_equal_autograd_too(kind, changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **TINY | changes)
    base = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model, (ids, masks) = network(base), examples(4)
    expected = reference(model, ids, masks, "count-sketch")
    batch, order = batch_of(ids, masks)
    made = ProjectedGradients(model, Projector("count-sketch", WIDTH, 3, "cpu"))
    np.testing.assert_allclose(
        made.vectors(batch, None).numpy(), expected[order], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "lora_only"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"targets": ("q_proj", "lm_head")}, "lm_head"),
        ({"targets": ("q_proj", "embed_tokens")}, "embed_tokens"),
    ],
)
def test_other_adapters_are_refused(options, said):
    with pytest.raises(ModelError, match=said):
        ProjectedGradients(network(**options), Projector("count-sketch", WIDTH, 3, "cpu"))
