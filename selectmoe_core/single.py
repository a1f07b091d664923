"""Conversion and verification on their own, outside a recipe."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from selectmoe_core.config import parse
from selectmoe_core.errors import StageError
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.component import KINDS
from selectmoe_core.plugin.protocols import Job, VerifyOptions
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.overrides import parse_value
from selectmoe_core.runtime.progress import make_progress
from selectmoe_core.store import Facts


def convert_model(
    registry: Registry,
    model: str,
    revision: str | None,
    out: Path,
    options: tuple[str, ...],
    use: str,
    seed: int,
) -> Facts:
    """Convert a model into a folder that must not hold anything yet."""
    if out.exists() and any(out.iterdir()):
        raise StageError(f"{out} is not empty", hint="name a new folder")
    part = _part(registry, use, _table(options))
    with tempfile.TemporaryDirectory() as scratch:
        facts: Facts = part.convert(
            ModelRef(model, revision), out, _job(registry, seed, Path(scratch))
        )
    return facts


def verify_model(
    registry: Registry,
    converted: Path,
    original: str,
    revision: str | None,
    use: str,
    how: VerifyOptions,
) -> Facts:
    """Compare a converted model with its original."""
    part = _part(registry, use, {})
    with tempfile.TemporaryDirectory() as scratch:
        job = _job(registry, 0, Path(scratch))
        facts: Facts = part.verify(converted, ModelRef(original, revision), how, job)
    return facts


def print_facts(facts: Facts) -> None:
    """Print facts a line each."""
    for name, value in facts.items():
        click.echo(f"{name}: {_short(value)}")


def _short(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    return str(value)


def _table(options: tuple[str, ...]) -> dict[str, Any]:
    pairs = (option.partition("=") for option in options)
    return {key.strip(): parse_value(value.strip()) for key, _, value in pairs}


def _part(registry: Registry, use: str, table: Mapping[str, Any]) -> Any:  # noqa: ANN401
    entry = registry.get(KINDS["convert"], use, where="--use")
    return entry.component.build(parse(entry.component.config, table, where=use))


def _job(registry: Registry, seed: int, scratch: Path) -> Job:
    return Job(seed=seed, models=registry.models, scratch=scratch, progress=make_progress("auto"))
