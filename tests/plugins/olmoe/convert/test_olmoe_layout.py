"""What the converter does below tensors: layouts, copies, and torch's numbers without torch."""

import os
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selectmoe_olmoe.convert.file_copy import copy_run, same_bytes
from selectmoe_olmoe.convert.layout import Layout, Place, Run
from selectmoe_olmoe.convert.trash_rows import encoded, standard_normal

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int8)


def random_tensors(random):
    found = {}
    for number in range(int(random.integers(1, 12))):
        shape = random.integers(1, 9, size=int(random.integers(1, 4))).tolist()
        dtype = DTYPES[int(random.integers(len(DTYPES)))]
        values = torch.from_numpy(random.normal(size=shape) * 9)
        found[f"näme {number}"] = values.to(dtype)
    return found


@pytest.mark.parametrize("metadata", [{"format": "pt"}, {"format": "pt", "by": "a test"}])
def test_a_grown_layout_is_what_safetensors_writes(tmp_path, metadata):
    random = np.random.default_rng()
    for _ in range(40):
        tensors = random_tensors(random)
        names = random.choice(list(tensors), size=int(random.integers(0, len(tensors) + 1)))
        more = {str(name): int(random.integers(1, 5)) for name in set(names.tolist())}
        save_file(tensors, tmp_path / "source", metadata)
        before = Layout.read(tmp_path / "source")
        assert before.size == (tmp_path / "source").stat().st_size
        after = before.grown(more)
        (tmp_path / "target").write_bytes(after.header().ljust(after.size, b"\0"))
        runs = list(before.runs(after))
        for run in runs:
            for piece in run.pieces(int(random.integers(1, 99))):
                copy_run(tmp_path / "source", tmp_path / "target", piece)
        assert len(runs) <= len(more) + 1
        found = load_file(tmp_path / "target")
        grown = {
            name: torch.cat([tensor, tensor.new_zeros(more.get(name, 0), *tensor.shape[1:])])
            for name, tensor in tensors.items()
        }
        assert found.keys() == grown.keys()
        assert all(torch.equal(found[name], grown[name]) for name in grown)
        if len(metadata) == 1:  # the order of several notes is not fixed
            save_file(grown, tmp_path / "plain", metadata)
            assert (tmp_path / "target").read_bytes() == (tmp_path / "plain").read_bytes()


def test_a_file_without_notes_gets_the_one_that_transformers_needs(tmp_path):
    save_file({"a": torch.zeros(2, 2)}, tmp_path / "bare")
    before = Layout.read(tmp_path / "bare")
    assert before.metadata == {}
    assert before.places == {"a": Place("F32", (2, 2), 0, 16)}
    assert before.grown({}).metadata == {"format": "pt"}


@pytest.mark.parametrize("platform", ["linux", "another"])
def test_stretches_are_copied_whole(tmp_path, monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    random = np.random.default_rng()
    content = random.bytes(9 << 20)
    (tmp_path / "source").write_bytes(content)
    for _ in range(5):
        start, stop = sorted(random.integers(0, len(content), size=2).tolist())
        (tmp_path / "target").write_bytes(b"head")
        assert copy_run(tmp_path / "source", tmp_path / "target", Run(start, 4, stop - start)) == (
            stop - start
        )
        assert (tmp_path / "target").read_bytes() == b"head" + content[start:stop]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is sent by the kernel")
def test_a_kernel_that_copies_less_than_asked_is_asked_again(tmp_path, monkeypatch):
    random = np.random.default_rng()
    content, send, asked = random.bytes(1 << 16), os.sendfile, []

    def short(to, source, place, size):
        asked.append(size)
        return send(to, source, place, int(random.integers(1, size // 2 + 2)))

    monkeypatch.setattr(os, "sendfile", short)
    (tmp_path / "source").write_bytes(content)
    (tmp_path / "target").write_bytes(b"head")
    assert copy_run(tmp_path / "source", tmp_path / "target", Run(5, 4, 60000)) == 60000
    assert (tmp_path / "target").read_bytes() == b"head" + content[5:60005]
    assert len(asked) > 1
    assert all(one > other for one, other in pairwise(asked))


def test_one_byte_makes_a_difference(tmp_path):
    random = np.random.default_rng()
    content = random.bytes(9 << 20)
    (tmp_path / "one").write_bytes(content)
    (tmp_path / "same").write_bytes(b"head" + content)
    for _ in range(5):
        place = int(random.integers(len(content) - 1))
        other = bytes([content[place] ^ 1])
        (tmp_path / "other").write_bytes(b"he" + content[:place] + other + content[place + 1 :])
        start = int(random.integers(place + 1))
        run = Run(start, start + 4, int(random.integers(place - start + 1, len(content) - start)))
        assert same_bytes(tmp_path / "one", tmp_path / "same", run)
        run = Run(start, start + 2, run.size)
        assert not same_bytes(tmp_path / "one", tmp_path / "other", run)
        assert same_bytes(
            tmp_path / "one", tmp_path / "other", Run(start, start + 2, place - start)
        )
    assert not same_bytes(tmp_path / "one", tmp_path / "same", Run(1, 1, 10))
    assert not same_bytes(tmp_path / "one", tmp_path / "same", Run(len(content) - 1, 5, 4))


@pytest.mark.parametrize("platform", ["linux", "another"])
def test_a_source_that_shrinks_is_noticed(tmp_path, monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    (tmp_path / "source").write_bytes(b"short")
    (tmp_path / "target").write_bytes(b"")
    with pytest.raises(EOFError, match="became shorter"):
        copy_run(tmp_path / "source", tmp_path / "target", Run(0, 0, 6))


def test_numbers_are_torchs():
    random = np.random.default_rng()
    for _ in range(30):
        seed = int(random.integers(1 << 62))
        count = 16 * int(random.integers(1, 200))
        plain = torch.randn(count, generator=torch.Generator().manual_seed(seed)).numpy()
        found = standard_normal(count, seed)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=3e-6)
        np.testing.assert_array_equal(standard_normal(count - 5, seed), found[:-5])


def test_numbers_are_finite_and_normal():
    found = standard_normal(1 << 20, 1).astype(np.float64)
    assert np.isfinite(found).all()
    assert abs(found.mean()) < 0.005
    assert found.std() == pytest.approx(1, abs=0.005)
    assert np.mean(np.abs(found) > 2) == pytest.approx(0.0455, abs=0.002)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("BF16", torch.bfloat16),
        ("F16", torch.float16),
        ("F32", torch.float32),
        ("F64", torch.float64),
    ],
)
def test_values_are_rounded_as_torch_rounds_them(name, dtype):
    random = np.random.default_rng()
    values = random.normal(size=4096).astype(np.float32)
    ties = (random.integers(-(1 << 15), 1 << 15, size=4096) * 2 + 1).astype(np.float32) / 512
    values = np.concatenate([values, ties, np.float32([0, -0.0, 1e-30, -1e-41])])
    plain = torch.from_numpy(values).to(dtype).view(torch.uint8).numpy().tobytes()
    assert encoded(values, name) == plain
