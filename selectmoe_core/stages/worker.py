"""A stage in a process of its own: ``python -m selectmoe_core.stages.worker ORDER.json...``."""

import ctypes
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from selectmoe_core.artifacts import write_json
from selectmoe_core.errors import SelectMoEError
from selectmoe_core.hub import PROGRESS
from selectmoe_core.plugins import load_plugins
from selectmoe_core.registry import Registry
from selectmoe_core.stages.check import check_part
from selectmoe_core.stages.perform import perform
from selectmoe_core.stages.work import Work

BUG = 70
"""Exit code of a failure nobody foresaw (``EX_SOFTWARE``); ``run`` turns it into 1."""
INTERRUPTED = 130
PARENT_DEATH = 1
"""``PR_SET_PDEATHSIG`` of prctl(2)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one order, or with ``--check`` let the parts of many check what they can."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    checking = arguments[:1] == ["--check"]
    orders = [Work.load(Path(name)) for name in arguments[checking:]]
    first = orders[0]
    _die_with_parent()
    _prepare(first)
    try:
        registry = Registry(load_plugins(first.disabled))
        for order in orders:
            if checking:
                check_part(order, registry)
            else:
                perform(order, registry, lambda text: print(f"  {text}", file=sys.stderr))  # noqa: T201
    except KeyboardInterrupt:
        return INTERRUPTED
    except SelectMoEError as error:
        _tell(first, error)
        return error.exit_code
    except Exception as error:
        text = traceback.format_exc()
        sys.stderr.write(text)
        logging.getLogger("selectmoe").exception("a failure nobody foresaw")
        _tell(first, error)
        return BUG
    return 0


def _tell(work: Work, error: Exception) -> None:
    if work.outcome is not None:
        hint = getattr(error, "hint", "")
        what = str(error) if isinstance(error, SelectMoEError) else _short(error)
        write_json(work.outcome, {"what": what, "hint": hint})


def _short(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first[:300]}"


def _prepare(work: Work) -> None:
    """Set up logging, quiet the libraries, fix the threads. Before torch is imported."""
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if work.log is not None:
        handlers.append(logging.FileHandler(work.log, encoding="utf-8"))
    if work.verbose:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(
        level=logging.INFO,
        handlers=handlers,
        format=f"%(asctime)s %(levelname)s [{work.key}] %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.captureWarnings(True)
    # These are read when the libraries are imported; a user's own setting stays.
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "info" if work.verbose else "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }.items():
        os.environ.setdefault(name, value)
    os.environ[PROGRESS] = work.progress
    if work.device == "cpu":
        os.environ["OMP_NUM_THREADS"] = str(work.threads)


def _die_with_parent() -> None:
    """Let Linux end this process when the run dies, so that no orphan goes on writing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGTERM)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    sys.stdout.flush()
    # torch and arrow may hold threads whose clean-up takes seconds and can change nothing.
    os._exit(code)
