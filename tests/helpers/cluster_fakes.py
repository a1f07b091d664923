"""A scorer for tests on clusters: it notes each shard that it begins, and dies where it is told to.

Files in the folder that ``CLUSTER_FAKES`` names say what goes wrong: ``slow`` (seconds that a shard
takes), ``raise-3`` and ``kill-3`` (at shard 3). Each shard that is begun is a file in ``begun``:
its number, its process and the moment.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from selectmoe_core import Component, Config, Job, Need, Shard, ShardScores, hookimpl


class MarkedConfig(Config):
    """Score by the length of the answer."""


class MarkedScorer:
    def __init__(self, config: MarkedConfig) -> None:
        self.control = Path(os.environ["CLUSTER_FAKES"])

    @contextmanager
    def open(self, job: Job) -> Iterator["MarkedScorer"]:
        (self.control / "begun").mkdir(exist_ok=True)
        if (self.control / "no-open").exists():
            raise RuntimeError("told not to open")
        yield self

    def score(self, shard: Shard) -> ShardScores:
        control, number = self.control, shard.number
        (control / "begun" / f"{number}-{os.getpid()}-{time.time_ns()}").touch()
        if (control / f"raise-{number}").exists():
            raise RuntimeError(f"told to fail at {number}")
        if (control / f"kill-{number}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if (control / "slow").exists():
            time.sleep(float((control / "slow").read_text()))
        lengths = np.array([len(one.response) for one in shard.examples], dtype=float)
        return ShardScores(lengths, details={"half": lengths / 2})


@hookimpl
def selectmoe_scorers() -> list[Any]:
    needs = frozenset({Need.POOL})
    return [Component("marked", MarkedConfig, MarkedScorer, needs=lambda _: needs, torch=True)]
