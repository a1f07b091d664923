"""Vectors on disk: what is written is read back, in blocks and by rows; damage is found."""

import numpy as np
import pytest

from selectmoe_core.data import Vectors
from selectmoe_core.data.vectors import OPEN, finish_vectors, vectors_path, write_vectors
from selectmoe_core.errors import StageError


def written(folder, sizes, width=5, seed=0):
    """Write shards of random vectors; return all of them."""
    draw = np.random.default_rng(seed)
    parts = [draw.normal(size=(size, width)) for size in sizes]
    for number, part in enumerate(parts):
        write_vectors(folder, number, part, len(part))
    finish_vectors(folder, sizes)
    return np.concatenate(parts).astype(np.float16)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_blocks_are_all_rows_in_order(tmp_path, rows):
    expected = written(tmp_path, [4, 1, 7])
    vectors = Vectors(tmp_path)
    found = list(vectors.blocks(rows))
    assert [first for first, _ in found] == np.cumsum([0, *(len(block) for _, block in found)])[
        :-1
    ].tolist()
    assert max(len(block) for _, block in found) <= rows
    np.testing.assert_array_equal(np.concatenate([block for _, block in found]), expected)
    assert (len(vectors), vectors.width) == (12, 5)


def test_rows_are_taken_in_the_order_that_is_asked_for(tmp_path):
    expected = written(tmp_path, [3] * (OPEN + 6))
    rows = np.random.default_rng(1).permutation(len(expected))
    rows = np.append(rows, rows[:5])
    np.testing.assert_array_equal(Vectors(tmp_path).take(rows), expected[rows])
    assert Vectors(tmp_path).take([]).shape == (0, 5)
    for outside in ([-1], [len(expected)]):
        with pytest.raises(IndexError):
            Vectors(tmp_path).take(outside)


def test_blocks_are_views_of_the_file(tmp_path):
    written(tmp_path, [10])
    [(_, block)] = Vectors(tmp_path).blocks(10)
    assert not block.flags.owndata
    assert not block.flags.writeable


def test_zeros_and_equal_vectors_are_noticed(tmp_path):
    write_vectors(tmp_path, 0, np.ones((3, 2)), 3)
    write_vectors(tmp_path, 1, np.array([[1.0, 1.0], [1.0, 1.0]]), 2)
    assert finish_vectors(tmp_path, [3, 2]).all_equal()
    write_vectors(tmp_path, 1, np.array([[1.0, 1.0], [0.0, 0.0]]), 2)
    vectors = finish_vectors(tmp_path, [3, 2])
    assert not vectors.all_equal()
    assert vectors.zeros == 1


def test_widths_must_agree(tmp_path):
    write_vectors(tmp_path, 0, np.ones((3, 2)), 3)
    write_vectors(tmp_path, 1, np.ones((3, 4)), 3)
    with pytest.raises(StageError, match="2 in shard 0, 4 in shard 1"):
        finish_vectors(tmp_path, [3, 3])


@pytest.mark.parametrize("damage", ["manifest", "text", "part", "shorter", "other", "format"])
def test_damage_is_an_error_that_says_what_to_do(tmp_path, damage):
    written(tmp_path, [4, 2])
    manifest, part = tmp_path / "vectors.json", vectors_path(tmp_path, 1)
    match damage:
        case "manifest":
            manifest.unlink()
        case "text":
            manifest.write_text("[]")
        case "format":
            manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 9'))
        case "part":
            part.unlink()
        case "shorter":
            part.write_bytes(part.read_bytes()[:-3])
        case "other":
            np.save(part, np.ones((3, 5), dtype=np.float16))
    with pytest.raises(StageError) as caught:
        Vectors(tmp_path).take([5])
    assert "--fresh embed" in caught.value.hint
    assert str(part if damage in ("part", "shorter", "other") else manifest) in str(caught.value)
