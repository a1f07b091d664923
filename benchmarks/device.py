"""The device that a benchmark runs on: its name, how long work takes it, and its ceiling."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import import_module

import torch


class OnDevice:
    """What benchmarks on one device share.

    Attributes:
        arguments: the command line.
        tiny: whether it asks for a small model on the CPU.
        device: ``cuda`` or ``cpu``.
        cuda: whether it is ``cuda``.
        dtype: bf16 on a GPU, else fp32.
        ceiling: FLOP/s of a large matrix product, once measured.
        start: when it began, by the monotonic clock.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.tiny: bool = arguments.tiny
        self.device = device_for(tiny=self.tiny)
        self.cuda = self.device == "cuda"
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.ceiling = 0.0
        self.start = time.monotonic()


def device_for(*, tiny: bool) -> str:
    """Return ``cuda`` where there is a GPU and the run is no tiny one, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() and not tiny else "cpu"


def describe(device: str, *packages: str) -> str:
    """Name the machine, and the versions of torch, transformers and further packages."""
    return f"{hardware(device)}, {versions('torch', 'transformers', *packages)}"


def hardware(device: str) -> str:
    """Name the GPU, the cores and Python."""
    gpu = torch.cuda.get_device_name(0) if device == "cuda" else "no GPU"
    return f"{gpu}, {os.cpu_count()} cores, python {platform.python_version()}"


def versions(*packages: str) -> str:
    """Name the versions of packages, "none" where one is not installed."""
    return ", ".join(f"{name} {_version(name)}" for name in packages)


def _version(package: str) -> str:
    try:
        return str(import_module(package).__version__)  # torch's tells the CUDA build as well
    except ImportError:
        return "none"


def wait(device: str) -> None:
    """Wait until the device is through."""
    if device == "cuda":
        torch.cuda.synchronize()


def wall_seconds(device: str, work: Callable[[], object], repeats: int = 20) -> float:
    """Return the median wall time of a call, launch included."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        wait(device)
        begin = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def device_seconds(device: str, work: Callable[[], object], repeats: int = 20) -> float:
    """Return the median time of a call by the device's own clock, where it has one."""
    if device != "cuda":
        return wall_seconds(device, work, repeats)
    for _ in range(3):
        work()
    wait(device)
    times = []
    for _ in range(repeats):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        first.record()
        work()
        last.record()
        last.synchronize()
        times.append(first.elapsed_time(last) / 1e3)
    return statistics.median(times)


def ceiling(
    device: str,
    dtype: torch.dtype,
    seconds: Callable[[str, Callable[[], object]], float] = wall_seconds,
) -> float:
    """Return the FLOP/s of a large matrix product."""
    size = 8192 if device == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in "ab")
    return 2 * size**3 / seconds(device, lambda: a @ b)
