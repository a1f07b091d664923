"""The check of an executor: what it reports of its place, and which of its runs it executes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.executor import Executor, NodeRun, OpenExecutor, Place, Site
from selectmoe_core.testing.components import built, checked
from selectmoe_core.testing.requirement import errors_of, require, require_methods

PROGRAM = "selectmoe_core.testing.noting_program"
"""A program that notes its process in a folder, and ends with the code that it is given."""


class Record:
    """What an executor asks of the core for one node."""

    def __init__(self) -> None:
        self.here = 0
        self.driven: list[str] = []
        self.codes: list[Mapping[int, int]] = []

    def run(self, folder: Path, processes: int, device: str, code: int = 0) -> NodeRun:
        """Return a node whose processes note that they ran."""
        return NodeRun(
            key="checked",
            stage="score",
            device=device,
            processes=processes,
            threads=1,
            program=(PROGRAM, str(folder), str(code)),
            here=self._here,
            drive=self._drive,
            ended=self.codes.append,
        )

    @property
    def asked(self) -> bool:
        """Whether the core was asked to execute the node."""
        return bool(self.here or self.driven)

    def _here(self) -> None:
        self.here += 1

    def _drive(self, maker: str, options: Mapping[str, Any], skip_failed: bool) -> None:  # noqa: ARG002
        self.driven.append(maker)


def check_executor(
    component: Component[Any, Any],
    *,
    options: Mapping[str, object] | None = None,
    site: Site | None = None,
    folder: Path,
) -> None:
    """Open an executor on the CPU, let it execute nodes that note their processes, and check both.

    A gang has a process for each rank, which all get the variables of torchrun; the executor
    passes on how each ended. Shards are executed here, or are driven by a maker that exists.

    Args:
        component: the executor.
        options: as a recipe would write them.
        site: what the run asks; by default the CPU.
        folder: an empty folder that all processes can see.

    Raises:
        AssertionError: what the executor did, and what the core relies on.
    """
    config = checked(component, Kind.EXECUTOR, options)
    part, name = built(component, config, Executor), component.name
    with errors_of(name), part.open(site or Site("cpu", 1, lambda _: None)) as opened:
        require_methods(name, opened, OpenExecutor)
        place = opened.place()
        require(isinstance(place, Place | None), f"{name}: place() gave {place!r}, no Place")
        processes = place.processes if place is not None else 2
        device = place.device if place is not None else "cpu"
        _check_map(name, opened.map, folder, device)
        for number, count in enumerate(dict.fromkeys((1, processes))):
            own = folder / f"gang-{number}"
            own.mkdir()
            _check_gang(name, opened.gang, own, count, device)


def _check_map(name: str, call: Callable[[NodeRun], None], folder: Path, device: str) -> None:
    from selectmoe_core.plugin.loading import load

    record = Record()
    call(record.run(folder, 1, device))
    require(record.asked, f"{name}: map() must call run.here() or run.drive()")
    for maker in record.driven:
        require(callable(load(maker).resolve()), f"{name}: there is no {maker}")


def _check_gang(
    name: str, call: Callable[[NodeRun], None], folder: Path, count: int, device: str
) -> None:
    record = Record()
    call(record.run(folder, count, device))
    if record.here:
        return
    notes = sorted(path.read_text(encoding="utf-8") for path in folder.iterdir())
    wanted = [f"{rank} of {count}" for rank in range(count)]
    require(notes == wanted, f"{name}: gang() ran processes {notes}, expected {wanted}")
    _require_codes(name, record.codes, dict.fromkeys(range(count), 0))
    failing = Record()
    call(failing.run(folder, count, device, code=7))
    failed = [code for codes in failing.codes for code in codes.values()]
    require(7 in failed, f"{name}: gang() must pass the exit code of a process to run.ended()")


def _require_codes(
    name: str, found: Sequence[Mapping[int, int]], wanted: Mapping[int, int]
) -> None:
    require(
        [dict(codes) for codes in found] == [dict(wanted)],
        f"{name}: gang() passed {list(found)} to run.ended(), expected {dict(wanted)}",
    )
