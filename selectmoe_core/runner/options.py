"""How to execute a plan; no part of it enters a digest."""

from dataclasses import dataclass, field
from pathlib import Path

from selectmoe_core.runner.launch import Launch


@dataclass(frozen=True)
class RunOptions:
    """How to execute a plan; no part of it enters a digest.

    Attributes:
        outputs: the folder of all outputs.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: ``auto`` (bfloat16 on a GPU, float32 on the CPU) or a dtype.
        threads: torch threads of a process on the CPU; 0 means one per core that it has.
        launch: how several processes of a stage are started.
        parallel: how many stages are executed at the same time.
        progress: ``none``, ``plain``, ``rich`` or ``auto``.
        verbose: show what the libraries log.
        disabled: plugins left out.
        fresh: execute this stage and everything that depends on it again.
        command: the command line, for the record.
    """

    outputs: Path
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    launch: Launch = field(default_factory=Launch)
    parallel: int = 1
    progress: str = "auto"
    verbose: bool = False
    disabled: tuple[str, ...] = ()
    fresh: str | None = None
    command: str = ""
