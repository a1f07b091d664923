"""The check of a trainer: what it leaves can be loaded, and two trainings are equal."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selectmoe_core.data.examples import Example
from selectmoe_core.models.models import ModelRef, Models, TargetModel
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.protocols import Job, Need, Trainer
from selectmoe_core.store import Facts
from selectmoe_core.testing.components import built, checked
from selectmoe_core.testing.pools import Bench, generated_examples, installed_models
from selectmoe_core.testing.requirement import (
    errors_of,
    require,
    require_facts,
    weights_of,
)
from selectmoe_core.tokens.encoding import Encoded
from selectmoe_core.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class _Source:
    """The examples of a bench as a trainer gets them."""

    bench: Bench
    job: Job

    def __len__(self) -> int:
        return len(self.bench.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.bench.examples)

    def encoded(self, tokenizer: Tokenizer) -> Encoded:
        return self.job.encoded(tokenizer)


def check_trainer(
    component: Component[Any, Any],
    *,
    model: str | Path,
    options: Mapping[str, object] | None = None,
    examples: Sequence[Example] | None = None,
    models: Models | None = None,
    job: Job | None = None,
) -> Facts:
    """Train twice on a small pool, and check the contract.

    It leaves in ``out`` either an adapter (``adapter_config.json`` and its weights) or a model that
    loads, records its training curve with ``job.metrics``, and two trainings with one seed give
    weights that are equal to the last bit.

    Args:
        component: the trainer.
        model: a small model that it can train, a folder or a reference.
        options: as a recipe would write them: few steps.
        examples: what to train on; by default eight generated ones.
        models: the loader; by default the installed plugins' models.
        job: the job with seed, device, dtype and chat format; its inputs are replaced.

    Returns:
        The facts of the training, and ``examples``, their number.

    Raises:
        AssertionError: says what the trainer did, and what the core expects.
    """
    name = component.name
    config = checked(component, Kind.TRAINER, options)
    require(Need.MODEL in component.needs(config), f"{name}: a trainer needs Need.MODEL")
    start, loader = ModelRef(str(model)), models or installed_models()
    rows = list(examples) if examples is not None else generated_examples(8)
    with tempfile.TemporaryDirectory() as place, errors_of(name):
        folder, weights = Path(place), []
        for attempt in ("first", "second"):
            curve: list[Mapping[str, float]] = []
            bench = Bench(folder / attempt, rows)
            base = (job or Job(seed=1)).changed(
                models=loader, metrics=lambda _, values, seen=curve: seen.append(values)
            )
            own = bench.job(component, config, base, start)
            part = built(component, config, Trainer)
            out = folder / attempt / "model"
            facts: Facts = part.train(start, _Source(bench, own), out, own)
            require_facts(name, "train", facts)
            _check_curve(name, curve)
            weights.append(weights_of(out))
        require(weights[0] == weights[1], f"{name}: a second training gives other weights")
        _check_result(name, out, start, loader)
    return {"examples": len(rows), **facts}


def _check_curve(name: str, curve: Sequence[Mapping[str, float]]) -> None:
    require(curve, f"{name}: it recorded nothing: call job.metrics(step, {{'loss': ...}})")
    for values in curve:
        for key, value in values.items():
            require(np.isfinite(value), f"{name}: job.metrics got {key} = {value}")


def _check_result(name: str, out: Path, start: ModelRef, loader: Models) -> None:
    require(
        out.is_dir() and any(out.iterdir()),
        f"{name}: train() left nothing in out; it must hold an adapter or a model",
    )
    if (out / "adapter_config.json").is_file():
        loader.load_target(TargetModel(start, out), dtype="float32", device="cpu")
        return
    loader.load(ModelRef(str(out)), dtype="float32", device="cpu")
