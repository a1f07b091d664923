"""What this plugin offers: a generated pool, its questions, and two nano models."""

from pathlib import Path
from typing import Any

from selectmoe_core import About, Component, Cost, Reader, Workload, hookimpl, load
from selectmoe_nano.config import NanoConfig

HERE = Path(__file__).resolve().parent
TOKENS = 27
"""Mean tokens of an example in the chat format, under the nano tokenizer."""


@hookimpl
def selectmoe_readers() -> list[Component[Any, Reader]]:
    """Offer ``nano``."""
    about = About(
        meaning="generated instruction data with known damage, for trials and audits",
        cost="nothing is read; half a kilobyte of memory and 25 microseconds per example",
    )
    return [
        Component(
            "nano",
            NanoConfig,
            load("selectmoe_nano.reader:NanoReader"),
            about,
            cost=_cost,
            seeded=True,
        )
    ]


@hookimpl
def selectmoe_bundled_models() -> dict[str, Path]:
    """Offer ``nano-olmoe``, which scores, and ``nano-llama``, which is fine-tuned."""
    return {name: HERE / "models" / name for name in ("nano-llama", "nano-olmoe")}


@hookimpl
def selectmoe_bundled_tasks() -> dict[str, Path]:
    """Offer ``nano``: multiple-choice questions that are in no pool."""
    return {"nano": HERE / "tasks"}


def _cost(config: NanoConfig, _: Workload) -> Cost:
    return Cost(examples=config.examples, tokens=TOKENS * config.examples)
