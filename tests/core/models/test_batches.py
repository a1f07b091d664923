"""Batches under a token budget: every row once, padding that never counts."""

import numpy as np

from selectmoe_core.models.batches import padded, within_budget


def test_batches_hold_every_row_once_within_the_budget():
    lengths = np.random.default_rng(0).integers(1, 90, size=300)
    batches = list(within_budget(lengths, 256))
    assert sorted(np.concatenate(batches)) == list(range(300))
    assert all(len(rows) * lengths[rows].max() <= 256 for rows in batches)
    assert [rows.tolist() for rows in within_budget(np.array([9, 400, 3]), 12)] == [[1], [0], [2]]
    assert len(list(within_budget(lengths, 1))) == 300


def test_padding_is_on_the_right_and_never_counts():
    ids = [np.array([5, 6], np.int32), np.array([7], np.int32), np.array([1, 2, 3], np.int32)]
    masks = [np.array([False, True]), np.array([True]), np.array([True, False, True])]
    batch = padded(np.array([2, 1]), ids, masks, "cpu")
    assert batch.ids.tolist() == [[1, 2, 3], [7, 0, 0]]
    assert batch.mask.tolist() == [[True, False, True], [True, False, False]]
    assert batch.rows.tolist() == [2, 1]
