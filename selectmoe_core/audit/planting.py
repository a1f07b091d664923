"""A pool for the audit: a sample of the recipe's pool, half of it damaged in labelled ways."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from selectmoe_core.audit.planning import AuditPlan, PlantConfig
from selectmoe_core.data.corruption import Damage, plant
from selectmoe_core.data.examples import Example, Message, RawExample
from selectmoe_core.data.pool import Pool, hash_ids
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.errors import StageError
from selectmoe_core.plan.node import Node
from selectmoe_core.runtime.processes import not_swallowed
from selectmoe_core.store import Artifact, Facts

ORDER = 0x5EED
"""Added to the seed for the order of the rows, which differs from that of the draw."""
LEAST = 20
"""The fewest rows of an audit."""
MOST = 10
"""A kind stops after it failed to change this many times its share of rows."""
FITS = "fits.npy"
"""Which clean rows each kind could have changed, bool ``[rows, kinds]``, kinds by name."""


@not_swallowed()
def make_pool(audit: AuditPlan, node: Node, say: Callable[[str], None]) -> Artifact:
    """Make the artifact of the damaged pool, or return what another run made meanwhile."""
    plan = audit.plan
    store, digest, config = plan.store, node.digest, node.config
    assert digest is not None
    assert isinstance(config, PlantConfig)
    with store.lock(node.stage, digest, say):
        if done := store.find(node.stage, digest):
            return done
        start = time.monotonic()
        folder = store.folder(node.stage, digest)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        facts = plant_pool(
            Pool.open(plan.folder(plan.nodes["pool"])), folder, config, audit.damages, node.seed
        )
        artifact = Artifact(
            node.stage,
            node.entry.component.name,
            digest,
            folder,
            facts,
            time.monotonic() - start,
            {"options": config.model_dump(mode="json"), "seed": node.seed},
        )
        artifact.save()
        store.publish(node.stage, digest)
        return artifact


def plant_pool(
    pool: Pool, folder: Path, config: PlantConfig, damages: Mapping[str, Damage], seed: int
) -> Facts:
    """Write the damaged pool into ``folder`` and return its facts.

    Raises:
        StageError: too few rows are left, or nothing could be damaged.
    """
    rows, excluded = shuffled_rows(pool, config, seed)
    if len(rows) < LEAST:
        raise StageError(
            f"only {len(rows)} rows are left to plant damage in ({excluded} are used by warm-up)",
            hint="use a larger pool, or lower warmup.subset_ratio",
        )
    half = min(config.sample, len(rows)) // 2
    planter = Planter(list(pool.take(rows[:half])), damages, seed)
    planter.damage(pool.take(rows[half : half * MOST]), half)
    build_pool(planter.rows(), folder, on_reject="stop")
    planted = Pool.open(folder)
    np.save(folder / FITS, planter.fits_of(planted))
    return _facts(planted, planter, excluded)


def shuffled_rows(pool: Pool, config: PlantConfig, seed: int) -> tuple[np.ndarray, int]:
    """Return the usable rows, shuffled by their ids, and the number of unusable ones.

    The rows that warm-up uses are left out: the sample has only rows that it has not seen.
    """
    rows, excluded = np.arange(len(pool)), 0
    if config.excluded_ratio is not None:
        drawn = pool.sample(config.excluded_ratio, config.excluded_seed)
        rows, excluded = np.setdiff1d(rows, drawn), len(drawn)
    # With another seed, because warm-up drew its rows in the order of this one.
    return rows[np.argsort(hash_ids(pool.ids()[rows], seed + ORDER), kind="stable")], excluded


@dataclass
class Planter:
    """Damages rows, all kinds in equal shares, and finds the clean rows that a kind could change.

    The kinds take turns, independent of the rows, and a row that the kind cannot change is left
    out. So the rows of a kind are a fair sample of those that it can change. They are compared
    with the clean rows that it could have changed: a kind that needs long answers is not compared
    with short ones.
    """

    clean: Sequence[Example]
    damages: Mapping[str, Damage]
    seed: int
    damaged: list[tuple[Example, str, tuple[Message, ...]]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    def damage(self, examples: Iterable[Example], wanted: int) -> None:
        """Damage this many of the examples, if there are enough."""
        share = -(-wanted // len(self.damages))
        left = dict.fromkeys(self.damages, share)
        turns = list(self.damages)
        for example in examples:
            if not turns or len(self.damaged) == wanted:
                return
            kind = turns.pop(0)
            if messages := self._changed(kind, example):
                self.damaged.append((example, kind, messages))
                left[kind] -= 1
            else:
                self.refused[kind] += 1
            if left[kind] and self.refused[kind] < MOST * share:
                turns.append(kind)

    def rows(self) -> Iterator[RawExample]:
        """Yield clean and damaged rows, mixed by their ids."""
        rows = [(example, "", example.messages) for example in self.clean] + self.damaged
        for example, label, messages in sorted(rows, key=lambda row: row[0].id):
            yield RawExample(example.source, messages, original_id=example.id, label=label)

    def fits_of(self, planted: Pool) -> np.ndarray:
        """Return the clean rows that each kind could have changed, bool ``[rows, kinds]``."""
        clean = {example.id: example for example in self.clean}
        own = [clean.get(original) for original in _notes(planted, "original_id")]
        kinds = sorted(self.damages)
        return np.array(
            [
                [example is not None and bool(self._changed(kind, example)) for kind in kinds]
                for example in own
            ]
        )

    def _changed(self, kind: str, example: Example) -> tuple[Message, ...] | None:
        """Return the damaged conversation, or ``None`` if this kind cannot change it."""
        planted = plant(example, self.damages[kind], self.clean, self.seed)
        return planted.messages if planted else None


def _notes(pool: Pool, name: str) -> list[str]:
    return [
        note or ""
        for batch in pool.batches()
        for note in batch.column("meta").field(name).to_pylist()
    ]


def _facts(pool: Pool, planter: Planter, excluded: int) -> Facts:
    labels = Counter(_notes(pool, "label"))
    clean = labels.pop("", 0)
    if not labels or not clean:
        raise StageError("no row could be damaged", hint="choose other kinds: --kinds A,B")
    fair = len(planter.clean) / len(planter.damages)
    short = {
        kind: f"planted in only {labels[kind]} {'row' if labels[kind] == 1 else 'rows'}; "
        f"it could not change {planter.refused[kind]}"
        for kind in planter.damages
        if labels[kind] < 0.8 * fair
    }
    return {
        "examples": len(pool),
        "clean": clean,
        "damaged": dict(sorted(labels.items())),
        "excluded": excluded,
        "left_out": planter.refused.total(),
        "short": short,
        "sources": {name: vars(counts) for name, counts in pool.sources.items()},
    }
