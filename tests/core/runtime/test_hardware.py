"""Devices: what is named must be there, and GPUs are counted without torch."""

import pytest

from selectmoe_core.errors import RecipeError
from selectmoe_core.runtime import hardware
from selectmoe_core.runtime.hardware import resolve_device

torch = pytest.importorskip("torch")


class Devices:
    """Stands for ``Path``: a host with four NVIDIA GPUs."""

    def __init__(self, folder):
        self.folder = folder

    def glob(self, pattern):
        found = [f"nvidia{number}" for number in range(4)]
        return found if (self.folder, pattern) == ("/dev", "nvidia[0-9]*") else []

    def exists(self):
        return False


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [(None, 4), ("", 0), ("-1", 0), ("0", 1), ("2,0", 2), ("1,-1,2", 1), ("GPU-a,GPU-b", 2)],
)
def test_visible_gpus_are_those_that_cuda_will_show(monkeypatch, chosen, seen):
    monkeypatch.setattr(hardware, "Path", Devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert hardware.visible_gpus() == seen


def test_a_host_without_drivers_has_none(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(Devices, "glob", lambda *_: [])
    monkeypatch.setattr(hardware, "Path", Devices)
    assert hardware.visible_gpus() == 0


@pytest.mark.parametrize(
    "wanted", ["gpu", "mps", "CPU", "cuda:", "cuda:-1", "cuda:x", "", "cuda\n"]
)
def test_a_word_that_names_no_device_is_a_mistake(wanted):
    with pytest.raises(RecipeError, match="no such device") as caught:
        resolve_device(wanted)
    assert "cuda:N" in caught.value.hint


@pytest.mark.parametrize("wanted", ["cuda", "cuda:0", "cuda:99"])
def test_a_gpu_that_is_not_there_is_a_mistake(wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="torch sees no such device"):
        resolve_device(wanted)


def test_a_gpu_beyond_the_last_is_a_mistake(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == "cuda:1"
    with pytest.raises(RecipeError, match="cuda:2"):
        resolve_device("cuda:2")
