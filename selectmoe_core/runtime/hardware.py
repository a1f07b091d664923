"""A description of this machine, for choosing a device and for the record of a run."""

import itertools
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from selectmoe_core.errors import RecipeError

PACKAGES = (
    "selectmoe",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "lm-eval",
    "safetensors",
    "tokenizers",
    "pyarrow",
    "numpy",
)


DEVICE = re.compile(r"auto|cuda(:[0-9]{1,3})?")


def resolve_device(wanted: str) -> str:
    """Return ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` means a GPU if there is one.

    Raises:
        RecipeError: another word, or a GPU that does not exist; there is no fallback to the CPU.
    """
    if wanted == "cpu":
        return "cpu"
    if not DEVICE.fullmatch(wanted):
        raise RecipeError(
            f"--device {wanted}: there is no such device", hint="use auto, cpu, cuda or cuda:N"
        )
    # torch is imported only if there is a GPU driver, because the import takes seconds.
    drivers = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/kfd")
    there = any(Path(path).exists() for path in drivers)
    if there or wanted != "auto":
        import torch

        if torch.cuda.is_available():
            named = "cuda" if wanted == "auto" else wanted
            if int(named.partition(":")[2] or 0) < torch.cuda.device_count():
                return named
    if wanted == "auto":
        return "cpu"
    raise RecipeError(
        f"--device {wanted}: torch sees no such device",
        hint="use --device cpu, or fix the driver",
    )


def visible_gpus() -> int:
    """Return how many GPUs a stage will see, without importing torch, which takes seconds.

    Counts the driver's device files; ``CUDA_VISIBLE_DEVICES`` may hide some.
    """
    there = len(list(Path("/dev").glob("nvidia[0-9]*")))
    there = there or len(list(Path("/dev/dri").glob("renderD*"))) * Path("/dev/kfd").exists()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return there
    # CUDA stops at the first number that names no GPU, such as -1.
    named = itertools.takewhile(lambda name: name and name != "-1", chosen.split(","))
    return min(there, len(list(named)))


@dataclass(frozen=True)
class Machine:
    """The machine that a run is executed on."""

    cores: int
    memory: int
    gpu: str = ""
    gpus: int = 0

    @classmethod
    def here(cls, device: str = "cpu") -> "Machine":
        """Describe this machine."""
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if not device.startswith("cuda"):
            return cls(cores, memory)
        import torch

        return cls(cores, memory, torch.cuda.get_device_name(0), torch.cuda.device_count())

    def facts(self) -> dict[str, str]:
        """Return the facts for the record of a run."""
        facts = {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": str(self.cores),
            "memory": f"{self.memory / 2**30:.0f} GiB",
        }
        if self.gpu:
            facts["gpu"] = f"{self.gpus} x {self.gpu}"
        return facts


def versions() -> Mapping[str, str]:
    """Return the versions that a result may depend on, and the working folder's git revision."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if revision := _git_revision():
        found["git"] = revision
    return found


def _git_revision() -> str:
    try:
        command = ["git", "describe", "--always", "--dirty"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
