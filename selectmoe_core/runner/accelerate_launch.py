"""A stage in several processes on this host, started by accelerate.

``python -m selectmoe_core.runner.accelerate_launch NODE.json PROCESSES THREADS [CONFIG]`` is what
``accelerate launch`` does, except that it reports in one message which process failed and why,
where ``accelerate launch`` prints its own traceback.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from selectmoe_core.runner.failures import Failure, cause, outcome_path
from selectmoe_core.runtime.processes import INTERRUPTED, bound
from selectmoe_core.stages.node_spec import WORKER


def main(arguments: Sequence[str] | None = None) -> int:
    """Launch the processes, wait for them, and return 0 or what ended the first that failed."""
    node, processes, threads, *config = sys.argv[1:] if arguments is None else arguments
    # Which process failed is reported once, below.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    command = launch_command_parser().parse_args(
        [*flags(int(processes), int(threads), *config), *bound(WORKER, node)]
    )
    try:
        launch_command(command)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        found = cause(
            Failure.of(outcome_path(Path(node), rank), code, rank) for rank, code in codes.items()
        )
        found.save(outcome_path(Path(node)))
        return 1
    except SignalException:
        return INTERRUPTED
    return 0


def flags(processes: int, threads: int, config: str | None = None) -> list[str]:
    """Return accelerate's options; the configuration file may set the others."""
    common = ["--num_processes", str(processes), "--main_process_port", "0"]
    common += ["--num_cpu_threads_per_process", str(threads)]
    if config is not None:
        return ["--config_file", config, *common]
    # accelerate starts several processes on one host by this name, on CPUs too. No option is
    # left to the configuration file that the user may have for other work.
    plain = ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
    return [*common, *plain, "--dynamo_backend", "no"]


if __name__ == "__main__":
    sys.exit(main())
