"""The projections: their random numbers, their matrices, and the inner products they keep."""

import numpy as np
import pytest
import torch
from less_reference import DENSE, adam_step, split_mix

from selectmoe_gradient.directions import Adam, Direction, direction
from selectmoe_gradient.projection import Projector
from selectmoe_gradient.random_signs import below, key_of, signs, words

KINDS = ("count-sketch", "rademacher")


def projection(kind, entries, width, seed=3, name="w"):
    return Projector(kind, width, seed, "cpu").weights({name: entries})[name]


def test_numbers_are_those_published_for_splitmix64():
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    made = [number % (1 << 64) for number in words(1234567, torch.arange(4)).tolist()]
    assert made == known == split_mix(1234567, 4)


@pytest.mark.parametrize("key", [0, -1, 1 << 62, -(1 << 63), 987654321])
def test_numbers_wrap_as_unsigned_ones_do(key):
    made = [number % (1 << 64) for number in words(key, torch.arange(50)).tolist()]
    assert made == split_mix(key, 50)


def test_rows_of_signs_do_not_depend_on_the_block_they_are_made_in():
    whole = signs(11, 0, 40, 100, "cpu")
    assert torch.equal(whole[13:29], signs(11, 13, 16, 100, "cpu"))
    assert abs(whole.float().mean()) < 0.05
    assert set(whole.unique().tolist()) == {-1, 1}


def test_numbers_below_a_bound_are_spread_evenly():
    drawn = below(5, torch.arange(100_000), 10)
    assert drawn.min() >= 0
    assert drawn.max() <= 9
    counts = torch.bincount(drawn, minlength=10)
    assert counts.sub(10_000).abs().max() < 500


def test_every_seed_and_weight_has_its_own_key():
    keys = {key_of(seed, name) for seed in range(20) for name in ("a", "b", "a b")}
    assert len(keys) == 60


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("entries", "width"), [(300, 64), (64, 64), (10, 64), (129, 128), (70, 7)])
def test_a_projection_is_the_product_with_its_dense_matrix(kind, entries, width):
    gradients = torch.randn(5, entries)
    found = projection(kind, entries, width).project(gradients, None)
    matrix = DENSE[kind](key_of(3, "w"), entries, width)
    np.testing.assert_allclose(found.numpy(), gradients.numpy() @ matrix, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["paper", "released-code"])
def test_a_preconditioned_projection_is_that_of_adams_step(kind, rule):
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn(4, 300, generator=generator) * 1e-3
    first = torch.randn(300, generator=generator) * 1e-3
    second = torch.rand(300, generator=generator) * 1e-6
    made = projection(kind, 300, 64)
    factors = Adam(step=9).factors(rule, "cpu")
    chosen = Direction(made.arranged(first), made.arranged(second), factors)
    steps = np.stack([adam_step(g, first, second, 9, rule).numpy() for g in gradients])
    matrix = DENSE[kind](key_of(3, "w"), 300, 64)
    np.testing.assert_allclose(
        made.project(gradients, chosen).numpy(), steps @ matrix, rtol=1e-4, atol=1e-4
    )


def test_the_papers_direction_is_what_adamw_does_next():
    weight = torch.nn.Parameter(torch.randn(50, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=0.5, weight_decay=0.0)
    for _ in range(3):
        weight.grad = torch.randn(50, dtype=torch.float64)
        optimizer.step()
    state = {name: value.clone() for name, value in optimizer.state[weight].items()}
    before, gradient = weight.detach().clone(), torch.randn(50, dtype=torch.float64)
    weight.grad = gradient
    optimizer.step()
    factors = Adam(step=3).factors("paper", "cpu")
    found = direction(gradient, state["exp_avg"].float(), state["exp_avg_sq"].float(), factors)
    # The moments are rounded to fp32, so that a number near 0 has fewer digits.
    wanted = (before - weight.detach()) / 0.5
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["flat", "a few large", "one column", "one block"])
def test_inner_products_are_kept_within_the_theoretical_error(kind, shape):
    """Over 400 seeds: no bias, and a variance as the theory says, also for uneven gradients."""
    width, rows, columns, seeds = 32, 24, 40, 400
    generator = np.random.default_rng(8)
    weights = np.ones((rows, columns))
    if shape == "a few large":
        weights = np.where(generator.random((rows, columns)) < 0.02, 30.0, 0.1)
    elif shape == "one column":
        weights[:, 3] = 40.0  # one input with very large activations
    elif shape == "one block":
        weights[2:] = 0.01
    pair = generator.normal(size=(2, rows, columns)) * weights
    pair[1] += 0.7 * pair[0]
    x, y = torch.from_numpy(pair.reshape(2, -1)).float()
    errors = []
    for seed in range(seeds):
        a, b = projection(kind, rows * columns, width, seed).project(torch.stack([x, y]), None)
        errors.append(float(a @ b - x @ y))
    bound = float((x @ x) * (y @ y) + (x @ y) ** 2) / width
    assert abs(np.mean(errors)) < 4 * (bound / seeds) ** 0.5
    assert np.var(errors) < bound * (1 + 5 * (2 / seeds) ** 0.5)
    assert np.var(errors) > bound / 20  # and the test could see an error


def test_cosines_at_the_default_width_are_within_a_few_hundredths():
    generator = torch.Generator().manual_seed(2)
    gradients = torch.randn(6, 200_000, generator=generator)
    gradients[1:] += 0.3 * gradients[0]
    unit = torch.nn.functional.normalize
    exact = unit(gradients) @ unit(gradients).T
    for kind in KINDS:
        made = unit(projection(kind, 200_000, 8192).project(gradients, None))
        assert (made @ made.T - exact).abs().max() < 4 / 8192**0.5
