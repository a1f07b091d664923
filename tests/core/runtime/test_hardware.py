"""How many GPUs there are to see, without torch."""

import pytest

from selectmoe_core.runtime import hardware


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
