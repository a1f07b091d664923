"""What the checks of components that read a pool shard by shard share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from selectmoe_core.config import Config, marked
from selectmoe_core.data.examples import Example
from selectmoe_core.models.models import ModelRef, Models
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.protocols import Job, Need, Shard
from selectmoe_core.stages.scoring.cuts import cuts
from selectmoe_core.testing.components import checked
from selectmoe_core.testing.pools import Bench, generated_examples, installed_models
from selectmoe_core.testing.requirement import require


@dataclass(frozen=True)
class Given:
    """What a trial begins with.

    Attributes:
        config: the options.
        base: the job, without inputs.
        pool: the examples.
        model: the model, for a component that needs one.
    """

    config: Config
    base: Job
    pool: list[Example]
    model: ModelRef | None


def given(
    component: Component[Any, Any],
    kind: Kind,
    options: Mapping[str, object] | None,
    *,
    examples: Sequence[Example] | None,
    model: str | Path | None,
    models: Models | None,
    job: Job | None,
) -> Given:
    """Check a component's description; replace what is ``None`` by what the checks use then."""
    config = checked(component, kind, options)
    needs = component.needs(config)
    require(
        model is not None or Need.MODEL not in needs,
        f"{component.name} needs a model: check_{kind}(..., model=...)",
    )
    base = job or Job(seed=1)
    if Need.MODEL in needs or models is not None:
        base = replace(base, models=models or installed_models())
    pool = list(examples) if examples is not None else generated_examples()
    return Given(config, base, pool, ModelRef(str(model)) if model is not None else None)


def shard_by_shard(
    opened: object, work: Callable[[Shard], Any], bench: Bench, size: int, *, plainly: bool
) -> Iterator[tuple[int, int, int, Any]]:
    """Yield the number, the bounds and the result of each shard, as the core asks for it.

    Args:
        opened: what computes shards, possibly with ``begin``.
        work: its method for one shard.
        bench: the pool.
        size: examples of a shard.
        plainly: call ``work`` even where there is ``begin``, which the core calls; a check does it
            both ways, and they must agree.
    """
    begin = None if plainly else getattr(opened, "begin", None)
    for number, start, stop in cuts(len(bench.pool), size):
        shard = Shard(number, np.arange(start, stop), list(bench.pool.examples(start, stop)))
        yield number, start, stop, begin(shard)() if begin else work(shard)


def execution_variants(config: Config) -> list[tuple[str, Config]]:
    """Return the options with one execution-only option changed: to 1, or a switch inverted."""
    variants = []
    for name in sorted(marked(type(config), "execution_only")):
        value = getattr(config, name)
        other: object = not value if isinstance(value, bool) else 1
        if (value is None or isinstance(value, int)) and other != value:
            variants.append((name, config.model_copy(update={name: other})))
    return variants
