"""The check of a reader: each row is an example or a reject with a reason, the same every time."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selectmoe_core.data.examples import RawExample, RawPair, Reject
from selectmoe_core.data.pairs import build_pairs
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.declared import declared
from selectmoe_core.plugin.protocols import Job, Reader
from selectmoe_core.testing.components import built, checked
from selectmoe_core.testing.requirement import errors_of, require


def check_reader(
    component: Component[Any, Any],
    *,
    options: Mapping[str, object] | None = None,
    job: Job | None = None,
    pairs: Mapping[str, object] | None = None,
) -> tuple[RawExample | Reject, ...]:
    """Read everything twice and check the contract.

    It yields examples and rejects one by one; each names its place and its source, and a reject its
    reason; two reads are equal; a pool can be built from them; the files that it names exist.

    Args:
        component: the reader.
        options: as a recipe would write them, with paths to a small data set.
        job: the job with seed and bundled folders.
        pairs: options with paths to a small set of preference pairs, to check these too.

    Returns:
        The rows, for further checks.

    Raises:
        AssertionError: says what the reader did, and what the core expects.
    """
    name = component.name
    config = checked(component, Kind.READER, options)
    for path in component.files(config) if component.files is not None else ():
        require(path.exists(), f"{name}: files() names {path}, which does not exist")
    job = declared(job or Job(seed=1), component, config)
    part = built(component, config, Reader)
    says = "says" if component.pairs else "does not say"
    require(
        component.pairs == hasattr(part, "pairs"),
        f"{name}: its component {says} that it reads pairs, and the part has "
        f"{'a' if hasattr(part, 'pairs') else 'no'} method pairs(job)",
    )
    if pairs is not None:
        _check_pairs(component, pairs, job)
    with errors_of(name):
        rows = part.read(job)
        require(isinstance(rows, Iterator), f"{name}: read() must yield row by row")
        read = tuple(rows)
        again = tuple(component.build(config).read(job))
    require(read, f"{name}: it read nothing")
    for row in read:
        _check_row(name, row)
    require(read == again, f"{name}: a second read returns other rows")
    with tempfile.TemporaryDirectory() as folder, errors_of(name):
        build_pool(read, Path(folder), on_reject="skip")
    return read


def _check_pairs(component: Component[Any, Any], options: Mapping[str, object], job: Job) -> None:
    """Read preference pairs twice; a table of pairs can be made of them."""
    name = component.name
    config = checked(component, Kind.READER, options)
    with errors_of(name):
        rows = component.build(config).pairs(job)
        require(isinstance(rows, Iterator), f"{name}: pairs() must yield row by row")
        read, again = tuple(rows), tuple(component.build(config).pairs(job))
    require(read, f"{name}: it read no pair")
    require(read == again, f"{name}: a second read returns other pairs")
    for row in read:
        require(
            isinstance(row, RawPair | Reject),
            f"{name}: pairs() yielded a {type(row).__name__}, not a RawPair or Reject",
        )
        for half in (row.chosen, row.rejected) if isinstance(row, RawPair) else (row,):
            _check_row(name, half)
    with tempfile.TemporaryDirectory() as folder, errors_of(name):
        build_pairs(read, Path(folder), on_reject="skip")


def _check_row(name: str, row: object) -> None:
    require(
        isinstance(row, RawExample | Reject),
        f"{name}: it yielded a {type(row).__name__}, not a RawExample or Reject",
    )
    assert isinstance(row, RawExample | Reject)
    require(row.source, f"{name}: a row has no source: {row}")
    require(row.where, f"{name}: a row does not say where it was found: {row}")
    if isinstance(row, Reject):
        require(row.reason, f"{name}: a reject has no reason: {row}")
