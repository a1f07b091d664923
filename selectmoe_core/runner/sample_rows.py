"""A few rows of the pool, read before the first stage, so that checks can render them."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from selectmoe_core.data.examples import (
    Example,
    Message,
    RawExample,
    content_id,
    conversation_problem,
)
from selectmoe_core.data.pool import Pool
from selectmoe_core.errors import SelectMoEError
from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.runner.job import bound, make_job
from selectmoe_core.runtime.distributed import World
from selectmoe_core.runtime.progress import NoProgress
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.store import MANIFEST, write_json
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat

MOST_READ, MOST_KEPT, MOST_SECONDS = 2000, 48, 2.0
"""Rows that are looked at, rows of different shapes that are kept, and how long it may take."""


@dataclass(frozen=True)
class SampleRow:
    """A row of the pool.

    Attributes:
        where: where it was found, as in ``data.jsonl:2``.
        messages: its turns.
    """

    where: str
    messages: tuple[Message, ...]

    @property
    def example(self) -> Example:
        """The row as an example."""
        return Example(content_id(self.messages).hex(), "", self.messages)


def save_sample(pool: NodeSpec, registry: Registry, run_folder: Path) -> Path:
    """Write rows of different shapes from the beginning of a pool or of targets, as JSON."""
    path = run_folder / "work" / f"sample-{pool.key}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, [asdict(row) for row in _different(_rows(pool, registry))])
    return path


def save_samples(
    plan: Plan, spec_of: Callable[[Node], NodeSpec], registry: Registry, run_folder: Path
) -> dict[str, Path]:
    """Write rows of the pool and of the targets; return the files by the keys of their nodes."""
    return {
        key: save_sample(spec_of(plan.nodes[key]), registry, run_folder)
        for key in ("pool", "targets")
        if key in plan.nodes and not plan.nodes[key].uses_torch
    }


def load_sample(path: Path) -> list[SampleRow]:
    """Read what ``save_sample`` wrote."""
    return [
        SampleRow(row["where"], tuple(Message(**message) for message in row["messages"]))
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]


def _different(rows: Iterable[SampleRow]) -> Iterator[SampleRow]:
    """Yield the first row of each shape: which roles follow one another, and what thoughts."""
    seen: set[tuple[object, ...]] = set()
    end = time.monotonic() + MOST_SECONDS
    for row in islice(rows, MOST_READ):
        thoughts = any("</think>" in message.content for message in row.messages)
        shape = (thoughts, *(message.role for message in row.messages[:6]))
        if shape not in seen:
            seen.add(shape)
            yield row
        if len(seen) == MOST_KEPT or time.monotonic() > end:
            return


def _rows(spec: NodeSpec, registry: Registry) -> Iterator[SampleRow]:
    if (spec.folder / MANIFEST).is_file():
        pool = Pool.open(spec.folder)
        for number, example in enumerate(pool.examples(0, min(MOST_READ, len(pool)))):
            yield SampleRow(pool.meta(number).get("where") or example.id, example.messages)
        return
    entry, config = bound(spec, registry)
    files = list(entry.component.files(config)) if entry.component.files else []
    # What is fetched is not read beforehand, and what comes through a pipe can be read once only.
    if not files or not all(path.is_file() or path.is_dir() for path in files):
        return
    chat = ChatFormat.load(ChatConfig.model_validate(spec.chat))
    part = entry.build(config, where=spec.where)
    job = make_job(spec, registry, World(), chat, NoProgress())
    try:
        for row in part.read(job):
            if isinstance(row, RawExample) and conversation_problem(row.messages) is None:
                yield SampleRow(row.where, row.messages)
    except (OSError, SelectMoEError):
        return  # the pool stage reads the same rows and reports it
