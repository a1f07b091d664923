"""A node in a process of its own: ``python -m selectmoe_core.runner.worker NODE.json...``."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selectmoe_core.errors import PartError, SelectMoEError
from selectmoe_core.models.hub import PROGRESS
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.runner.execute import execute_node, join_node
from selectmoe_core.runner.failures import BUG, Failure, outcome_path
from selectmoe_core.runner.preflight import check_part
from selectmoe_core.runtime.distributed import current_world, join, leave
from selectmoe_core.runtime.processes import INTERRUPTED
from selectmoe_core.runtime.terminal import LogFormatter, safe_streams
from selectmoe_core.stages.node_spec import CHECKS, SENT, NodeSpec


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute one node, or with ``--check`` let the parts of many nodes check what they can."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    checking = arguments[:1] == [CHECKS]
    paths = [Path(name) for name in arguments[checking:]]
    specs = [NodeSpec.load(path) for path in paths]
    prepare(specs[0])
    try:
        registry = Registry(load_plugins(specs[0].disabled))
        for spec in specs:
            if checking:
                check_part(spec, registry)
            else:
                _execute(spec, registry)
    except KeyboardInterrupt:
        return INTERRUPTED
    except PartError as error:
        logging.getLogger("selectmoe").exception("a plugin's part failed")
        _report(paths[0], Failure(BUG, 0, str(error), error.hint, error.traceback))
        return BUG
    except SelectMoEError as error:
        _report(paths[0], Failure(error.exit_code, what=str(error), hint=_hint(error)))
        return error.exit_code
    except Exception as error:
        logging.getLogger("selectmoe").exception("an unexpected failure")
        _report(paths[0], Failure(BUG, what=_short(error), traceback=traceback.format_exc()))
        return BUG
    return 0


def _execute(spec: NodeSpec, registry: Registry) -> None:
    """Execute a node, alone or as one of several processes, or make shards of it as a worker."""
    if spec.joins:
        join_node(spec, registry)
        return
    join(spec.device)
    execute_node(spec, registry, lambda text: print(f"  {text}", file=sys.stderr))  # noqa: T201
    leave()


def _report(spec_file: Path, failure: Failure) -> None:
    """Write the failure of this process for the process that waits for it."""
    world = current_world()
    path = outcome_path(spec_file, world.rank if world.size > 1 else None)
    replace(failure, rank=world.rank).save(path)


def _hint(error: SelectMoEError) -> str:
    return str(getattr(error, "hint", None) or "")


def _short(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first[:300]}"


def prepare(spec: NodeSpec) -> None:
    """Set up logging, quiet the libraries, fix the threads. Before torch is imported."""
    rank = current_world().rank
    place = f"{spec.key}, process {rank + 1}" if rank else spec.key
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if spec.log is not None:
        handlers.append(logging.FileHandler(spec.log, encoding="utf-8"))
    if spec.verbose:
        handlers.append(logging.StreamHandler())
    layout = f"%(asctime)s %(levelname)s [{place}] %(name)s: %(message)s"
    for handler in handlers:
        handler.setFormatter(LogFormatter(layout, "%H:%M:%S"))
    # An actor of an executor may have handlers of its library: they would keep ours out.
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.captureWarnings(True)
    # The libraries read these on import; a user's own setting is kept.
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "info" if spec.verbose else "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }.items():
        os.environ.setdefault(name, value)
    os.environ[PROGRESS] = "none" if spec.progress == SENT else spec.progress
    if spec.device == "cpu":
        os.environ["OMP_NUM_THREADS"] = str(spec.threads)


if __name__ == "__main__":
    with safe_streams():
        code = main()
        sys.stderr.flush()
        sys.stdout.flush()
    # torch and arrow may hold threads whose clean-up takes seconds and has no effect.
    os._exit(code)
