"""The losses beside cross-entropy: hand-made numbers and slow references in plain Python."""

import math

import pytest
import torch
from olmoe_models import select_moe
from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

from selectmoe_olmoe.model.losses import balance_loss, constraint_per_token, log_ratio, trash_share


def routed(layers: int = 3, tokens: int = 20, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tokens, 72, generator=generator) * 2 for _ in range(layers)]


def slow_ratio(row: list[float], experts: int, top_k: int) -> float:
    total = sum(math.exp(x) for x in row)
    probs = [math.exp(x) / total for x in row]
    return sum(sorted(probs[:experts], reverse=True)[:top_k])


def test_ratio_of_hand_made_numbers():
    probs = torch.tensor([[0.4, 0.1, 0.2, 0.3], [0.05, 0.05, 0.1, 0.8]])  # 3 experts, 1 trash can
    log_r, log_rest = log_ratio(probs.log(), 3, 2)
    assert log_r.exp().tolist() == pytest.approx([0.6, 0.15])
    assert log_rest.exp().tolist() == pytest.approx([0.4, 0.85])
    # alpha 1, beta 2: -log(1 - r); alpha 3, beta 1: -2 log r
    tax = constraint_per_token([probs.log()], 3, 2, 1.0, 2.0)
    assert tax.tolist() == pytest.approx([-math.log(0.4), -math.log(0.85)])
    reward = constraint_per_token([probs.log()], 3, 2, 3.0, 1.0)
    assert reward.tolist() == pytest.approx([-2 * math.log(0.6), -2 * math.log(0.15)])


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 2.0), (2.5, 1.5), (0.5, 3.0)])
def test_constraint_against_plain_python(alpha, beta):
    logits = routed()
    found = constraint_per_token(logits, 64, 8, alpha, beta)
    for token in range(20):
        ratios = [slow_ratio(layer[token].tolist(), 64, 8) for layer in logits]
        terms = [-((alpha - 1) * math.log(r) + (beta - 1) * math.log(1 - r)) for r in ratios]
        assert found[token].item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_the_constraint_keeps_digits_and_gradient_at_the_ends():
    low = torch.full((1, 5), -60.0)
    low[0, 4] = 0.0  # all of the mass in the trash
    high = torch.full((1, 5), -60.0)
    high[0, 0] = 0.0  # all of it on one expert
    for logits in (low, high):
        logits.requires_grad_()
        log_r, log_rest = log_ratio(logits, 4, 2)
        assert torch.isfinite(log_r).all()
        assert torch.isfinite(log_rest).all()
    constraint_per_token([high], 4, 2, 1.0, 2.0).sum().backward()
    assert high.grad[0, 0].item() == pytest.approx(1.0)
    assert low.grad is None
    constraint_per_token([low], 4, 2, 2.0, 1.0).sum().backward()
    assert low.grad[0, 4].item() == pytest.approx(1.0)


def test_the_constraint_is_a_tax_that_moves_mass_to_the_trash():
    logits = routed(1)[0].requires_grad_()
    constraint_per_token([logits], 64, 8, 1.0, 2.0).sum().backward()
    assert (logits.grad[:, 64:] < 0).all()  # a descent step raises every trash logit
    assert (logits.grad[:, :64].sum(dim=1) > 0).all()


def slow_balance(logits, mask, experts: int, top_k: int, over: str) -> float:
    width = experts if over == "regular" else logits[0].shape[1]
    slots, probs, rows = [0.0] * width, [0.0] * width, 0
    for layer in logits:
        for row, real in zip(layer[:, :width].tolist(), mask.tolist(), strict=True):
            if not real:
                continue
            total = sum(math.exp(x) for x in row)
            for output, value in enumerate(row):
                probs[output] += math.exp(value) / total
            for output in sorted(range(width), key=lambda e: -row[e])[:top_k]:
                slots[output] += 1
            rows += 1
    if over == "grouped":
        slots[experts:] = [sum(slots[experts:]) / (width - experts)] * (width - experts)
    return width * sum(f / rows * p / rows for f, p in zip(slots, probs, strict=True))


@pytest.mark.parametrize("over", ["all", "regular", "grouped"])
def test_balance_against_plain_python(over):
    logits = routed()
    mask = torch.ones(20)
    mask[3:8] = 0
    found = balance_loss(logits, mask, 64, 8, over).item()
    assert found == pytest.approx(slow_balance(logits, mask, 64, 8, over), rel=1e-5)


def test_balance_over_regular_experts_is_olmoes_own():
    logits = routed()
    mask = torch.ones(4, 5)
    mask[0, 3:] = 0
    olmoes = load_balancing_loss_func(tuple(x[:, :64] for x in logits), 64, 8, mask)
    assert balance_loss(logits, mask.reshape(-1), 64, 8, "regular").item() == pytest.approx(
        olmoes.item(), rel=1e-5
    )


def test_grouped_trash_cans_need_no_balance_among_them():
    logits = 20.0 * torch.eye(6)[[0, 1, 2, 3, 4, 4]]  # the sixth output is never used
    mask = torch.ones(6)
    both = [balance_loss([logits], mask, 4, 1, over).item() for over in ("all", "grouped")]
    assert both == pytest.approx([6 * (4 * 1 + 4) / 36, 1.0])
    # They still share the load with the experts.
    assert balance_loss([logits[4:]], mask[4:], 4, 1, "grouped").item() == pytest.approx(3.0)


def test_even_routing_has_the_smallest_balance_loss():
    eye = 20.0 * torch.eye(6)  # every token has an output of its own
    assert balance_loss([eye], torch.ones(6), 4, 1).item() == pytest.approx(1.0)
    assert balance_loss([eye[:1]], torch.ones(1), 4, 1).item() == pytest.approx(6.0)


def test_trash_share_counts_slots_of_real_tokens():
    logits = torch.tensor([[9.0, 8, 0, 0], [0.0, 1, 8, 9], [9.0, 1, 8, 2], [0.0, 1, 9, 9]])
    mask = torch.tensor([1, 1, 1, 0])
    assert trash_share([logits, -logits], mask, 2, 2).tolist() == pytest.approx([3 / 6, 3 / 6])


def test_the_model_sums_the_documented_terms():
    model = select_moe(constraint_loss_weight=0.3, router_aux_loss_coef=0.2, balance_over="regular")
    ids = torch.randint(2, 120, (3, 12), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    mask[0, 8:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    out = model(ids, attention_mask=mask, labels=labels, output_router_logits=True)
    flat = mask.reshape(-1)
    kept = [layer[flat.bool()] for layer in out.router_logits]
    ratios = [slow_ratio(row, 64, 8) for layer in kept for row in layer.tolist()]
    constraint = -sum(math.log(1 - r) for r in ratios) / len(ratios)
    assert out.constraint_loss.item() == pytest.approx(constraint, rel=1e-4)
    balance = slow_balance(out.router_logits, flat, 64, 8, "regular")
    assert out.aux_loss.item() == pytest.approx(balance, rel=1e-4)
    plain = model(ids, attention_mask=mask, labels=labels)
    assert out.ce_loss.item() == pytest.approx(plain.loss.item(), rel=1e-6)
    total = out.ce_loss.item() + 0.2 * balance + 0.3 * constraint
    assert out.loss.item() == pytest.approx(total, rel=1e-4)
