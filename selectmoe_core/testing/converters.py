"""The check of a converter: the model that it leaves loads, and ``verify`` notices a change."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selectmoe_core.errors import StageError
from selectmoe_core.models.models import ModelRef, Models
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.declared import declared
from selectmoe_core.plugin.protocols import Converter, Inputs, Job, VerifyOptions
from selectmoe_core.store import Facts
from selectmoe_core.testing.components import built, checked
from selectmoe_core.testing.pools import installed_models
from selectmoe_core.testing.requirement import (
    errors_of,
    require,
    require_facts,
    weights_of,
)

SELECTOR = "selector.json"


def check_converter(
    component: Component[Any, Any],
    *,
    model: str | Path,
    options: Mapping[str, object] | None = None,
    models: Models | None = None,
    job: Job | None = None,
) -> Facts:
    """Convert a small model twice, verify it, and check the contract.

    It leaves a model that loads, with ``config.json`` and ``selector.json``; two conversions are
    equal to the last bit; ``verify`` accepts the result, and refuses it after one byte of its
    weights has changed.

    Args:
        component: the converter.
        model: a small model that it can convert, a folder or a reference.
        options: as a recipe would write them.
        models: the loader; by default the installed plugins' models.
        job: the job with seed and device; its inputs are replaced.

    Returns:
        The facts of the conversion.

    Raises:
        AssertionError: says what the converter did, and what the core expects.
    """
    name = component.name
    config = checked(component, Kind.CONVERTER, options)
    original = ModelRef(str(model))
    loader = models or installed_models()
    base = (job or Job(seed=1)).changed(models=loader, inputs=Inputs(model=original))
    part = built(component, config, Converter)
    with tempfile.TemporaryDirectory() as place, errors_of(name):
        folder = Path(place)
        own = declared(base.changed(scratch=folder / "scratch"), component, config)
        facts: Facts = part.convert(original, folder / "model", own)
        require_facts(name, "convert", facts)
        _check_model(name, folder / "model", loader)
        component.build(config).convert(original, folder / "again", own)
        require(
            weights_of(folder / "model") == weights_of(folder / "again"),
            f"{name}: a second conversion with the same seed gives other weights",
        )
        how = VerifyOptions(logits=False)
        require_facts(name, "verify", part.verify(folder / "model", original, how, own))
        _check_change(name, part, folder, original, own)
    return facts


def _check_model(name: str, out: Path, loader: Models) -> None:
    for file in ("config.json", SELECTOR):
        require((out / file).is_file(), f"{name}: convert() left no {file}")
    selector = json.loads((out / SELECTOR).read_text(encoding="utf-8"))
    require(isinstance(selector, dict), f"{name}: {SELECTOR} must hold a JSON object")
    loader.load(ModelRef(str(out)), dtype="float32", device="cpu")


def _check_change(name: str, part: Any, folder: Path, original: ModelRef, job: Job) -> None:  # noqa: ANN401
    changed = shutil.copytree(folder / "model", folder / "changed")
    largest = max(changed.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[-2] ^= 0x40  # within the last tensor
    largest.write_bytes(content)
    try:
        part.verify(changed, original, VerifyOptions(logits=False), job)
    except StageError:
        return
    raise AssertionError(f"{name}: verify() accepts a model of which one weight has changed")
