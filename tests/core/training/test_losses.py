"""The losses that trainers share, beside their definition."""

import pytest
import torch

from selectmoe_core.training import losses
from selectmoe_core.training.losses import summed_cross_entropy, summed_head_loss

VOCABULARY, HIDDEN = 11, 6


def made(count):
    rng = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, HIDDEN, generator=rng).requires_grad_()
    head = torch.randn(VOCABULARY, HIDDEN, generator=rng).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (count,), generator=rng)
    return hidden, head, targets, torch.rand(count, generator=rng) + 0.1


@pytest.mark.parametrize("at_once", [1, 3, 10, 99])
def test_a_loss_in_parts_is_the_whole_one(monkeypatch, at_once):
    hidden, head, targets, weights = made(10)
    logs = (hidden @ head.T).log_softmax(dim=-1)
    wanted = -(logs[torch.arange(10), targets] * weights).sum()
    by_definition = torch.autograd.grad(wanted, (hidden, head))
    monkeypatch.setattr(losses, "LOGITS", at_once * VOCABULARY + VOCABULARY - 1)
    seen = []

    def project(rows):
        seen.append(len(rows))
        return rows @ head.T

    found = summed_head_loss(project, hidden, targets, weights, VOCABULARY)
    torch.testing.assert_close(found, wanted)
    grads = torch.autograd.grad(found, (hidden, head))
    for one, other in zip(grads, by_definition, strict=True):
        torch.testing.assert_close(one, other)
    assert max(seen) == min(at_once, 10)
    assert sum(seen) == 20  # once for the loss, once for the gradient


def test_bfloat16_hidden_states_give_an_fp32_loss():
    hidden, head, targets, weights = made(10)
    narrow, narrow_head = hidden.detach().bfloat16(), head.detach().bfloat16()
    found = summed_head_loss(lambda x: x @ narrow_head.T, narrow, targets, weights, VOCABULARY)
    logs = (narrow @ narrow_head.T).float().log_softmax(dim=-1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, -(logs[torch.arange(10), targets] * weights).sum())


def test_no_target_is_a_zero_that_hangs_on_the_model():
    hidden, head, targets, weights = made(0)
    found = summed_head_loss(lambda x: x @ head.T, hidden, targets, weights, VOCABULARY)
    assert found.item() == 0
    assert found.dtype == torch.float32
    assert torch.autograd.grad(found, hidden)[0].shape == (0, HIDDEN)


def test_places_without_weight_have_no_loss():
    rng = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 5, VOCABULARY, generator=rng)
    targets = torch.randint(0, VOCABULARY, (2, 5), generator=rng)
    weights = torch.rand(2, 5, generator=rng) * (torch.arange(5) % 2)
    logits[0, 0] = float("nan")
    logs = logits[:, 1::2].log_softmax(dim=-1).gather(2, targets[:, 1::2, None])[..., 0]
    wanted = -(logs * weights[:, 1::2]).sum()
    torch.testing.assert_close(summed_cross_entropy(logits, targets, weights), wanted)
