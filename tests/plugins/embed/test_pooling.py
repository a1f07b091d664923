"""Weights and means of tokens: hand-made numbers, and packed batches like padded ones."""

import pytest
import torch

from selectmoe_embed.pooling import packed_mean, packed_weights, padded_mean, padded_weights

VALUES = [torch.tensor([[1.0, 0.0], [4.0, 3.0], [7.0, 0.0]]), torch.tensor([[5.0, -1.0]])]
EXPECTED = {
    "position": [[(1 + 8 + 21) / 6, 6 / 6], [5.0, -1.0]],
    "mean": [[4.0, 1.0], [5.0, -1.0]],
    "last": [[7.0, 0.0], [5.0, -1.0]],
}


@pytest.mark.parametrize("pooling", EXPECTED)
def test_hand_made_numbers(pooling):
    starts = torch.tensor([0, 3, 4], dtype=torch.int32)
    positions = torch.tensor([0, 1, 2, 0], dtype=torch.int32)
    weights = packed_weights(pooling, positions, starts)
    found = packed_mean(torch.cat(VALUES), weights, starts)
    torch.testing.assert_close(found, torch.tensor(EXPECTED[pooling]))
    values = torch.full((2, 3, 2), 99.0)
    values[0], values[1, :1] = VALUES[0], VALUES[1]
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = padded_mean(values, padded_weights(pooling, mask))
    torch.testing.assert_close(found, torch.tensor(EXPECTED[pooling]))


def test_weights_of_zero_give_zeros():
    starts = torch.tensor([0, 2])
    assert packed_mean(torch.ones(2, 3), torch.zeros(2), starts).tolist() == [[0.0, 0.0, 0.0]]
    assert padded_mean(torch.ones(1, 2, 3), torch.zeros(1, 2)).tolist() == [[0.0, 0.0, 0.0]]


def test_half_precision_is_summed_in_single():
    values = torch.full((3000, 1), 1.0, dtype=torch.bfloat16)
    starts = torch.tensor([0, 3000])
    assert packed_mean(values, torch.ones(3000), starts).item() == 1.0
