"""A plugin for tests: kinds of damage, scorers that notice them or not, a trainer that saw some."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from selectmoe_core import Component, Config, Job, Need, Shard, ShardScores, hookimpl
from selectmoe_core.data.corruption import Damage


class EyesConfig(Config):
    """Notice the marks of some kinds of damage."""

    sees: tuple[str, ...] = ("<broken>", "<cut>")
    """The marks it notices."""
    skips: tuple[str, ...] = ()
    """The marks whose rows get no score."""
    after_warmup: bool = False
    """Read the selector model, as a scorer does that warm-up taught."""


class Eyes:
    def __init__(self, config: EyesConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job) -> Iterator["Eyes"]:
        yield self

    def score(self, shard: Shard) -> ShardScores:
        score, reasons = [], []
        for example in shard.examples:
            text = " ".join(message.content for message in example.messages)
            skip = any(mark in text for mark in self.config.skips)
            noise = int(example.id[:6], 16) / (1 << 24)
            seen = any(mark in text for mark in self.config.sees)
            score.append(np.nan if skip else noise - 1.0 * seen)
            reasons.append("too ugly" if skip else None)
        return ShardScores(np.array(score), reasons)


class ShownConfig(Config):
    """Pretend to train on damaged copies."""

    kinds: tuple[str, ...] = ()
    """The kinds shown."""
    everything: bool = False
    """Show all that have a rate."""


class ShownTrainer:
    def __init__(self, config: ShownConfig) -> None:
        self.config = config

    def train(self, model: Any, examples: Any, out: Path, job: Job) -> dict[str, Any]:
        out.mkdir(parents=True, exist_ok=True)
        (out / "rows").write_text("\n".join(example.id for example in examples))
        return {"steps": 1, "loss": 1.0}


def _marking(mark: str):
    def apply(example, other, rng):
        *before, last = example.messages
        return (*before, replace(last, content=f"{mark} {last.content}"))

    return apply


def _rarely(example, other, rng):
    """Change a row in ten."""
    return _marking("<rare>")(example, other, rng) if int(example.id[:2], 16) < 26 else None


def _long(example, other, rng):
    """Change a sign of long answers, and not their length."""
    *before, last = example.messages
    if len(last.content) < 40:
        return None
    return (*before, replace(last, content=last.content[:-1] + "!"))


def _swapped(example, other, rng):
    *before, last = example.messages
    return (*before, replace(last, content=f"{other.messages[-1].content} "))


@hookimpl
def selectmoe_damages() -> list[Damage]:
    return [
        Damage("broken", "marks the answer", _marking("<broken>")),
        Damage("cut", "marks it otherwise", _marking("<cut>")),
        Damage("foreign", "takes another answer", _swapped, rate=0.0),
        Damage("long", "needs long answers", _long),
        Damage("rare", "changes few rows", _rarely),
        Damage("never", "changes nothing", lambda example, other, rng: None),
    ]


@hookimpl
def selectmoe_scorers() -> list[Any]:
    def needs(config: EyesConfig) -> frozenset[Need]:
        return frozenset({Need.POOL, Need.MODEL} if config.after_warmup else {Need.POOL})

    return [Component("eyes", EyesConfig, Eyes, needs=needs, max_skipped=lambda config: 0.0)]


@hookimpl
def selectmoe_trainers() -> list[Any]:
    needs = frozenset({Need.MODEL, Need.POOL})
    return [
        Component(
            "shown-train",
            ShownConfig,
            ShownTrainer,
            needs=lambda _: needs,
            seeded=True,
            damages=lambda config: None if config.everything else config.kinds,
        )
    ]
