"""The folder of a run, named by date and time, and its log."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selectmoe_core.errors import StageError
from selectmoe_core.remote.cache import is_free
from selectmoe_core.runtime.terminal import LogFormatter


def new_folder(outputs: Path, name: str) -> Path:
    """Make the run's folder, named by date and time; runs of one second also get a number."""
    base = outputs / name / time.strftime("%Y-%m-%d") / time.strftime("%H-%M-%S")
    return folder_like(base, lambda folder: is_free(outputs, folder))


def folder_like(base: Path, is_free: Callable[[Path], bool] = lambda _: True) -> Path:
    """Make a folder; where its name is taken, its name also gets a number.

    Args:
        base: the folder without a number.
        is_free: returns whether a folder that was made here is free elsewhere too.

    Raises:
        StageError: no folder can be made there.
    """
    for number in range(1000):
        folder = base if not number else base.with_name(f"{base.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except FileNotFoundError:  # a file system on which no folder can be made, such as /proc
            break
        if is_free(folder):
            return folder.resolve()
    raise StageError(
        f"cannot make a folder for this run at {base}", hint="name another folder with --outputs"
    )


def write_recipe(folder: Path, resolved: Mapping[str, Any]) -> None:
    """Write the recipe as it was resolved into a run's folder."""
    import tomli_w

    (folder / "recipe.toml").write_text(tomli_w.dumps(dict(resolved)), encoding="utf-8")


def link(folder: Path, key: str, artifact: Path) -> None:
    """Link an artifact from a run's folder, by the name of its node."""
    place = folder / "artifacts" / key.replace(":", "-")
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(os.path.relpath(artifact, place.parent))


class _RunLog(logging.FileHandler):
    """Writes a run's log; where it cannot, the run says so itself at what it writes next."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Print no traceback of logging on top of the run's own error."""


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Also write selectmoe's log messages into a file while the block runs."""
    handler = _RunLog(path, encoding="utf-8")
    handler.setFormatter(
        LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
    )
    logger = logging.getLogger("selectmoe")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
