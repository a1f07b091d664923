"""Models of the Hugging Face hub: finding them in the local cache, and downloading them."""

import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from selectmoe_core.config import user_path
from selectmoe_core.errors import ModelError
from selectmoe_core.models.configuration import CONFIG, INDEX
from selectmoe_core.paths import inside

PATTERNS = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.gguf"]
"""Files that are downloaded: never pickled weights."""
PROGRESS = "SELECTMOE_PROGRESS"
"""The variable that passes the kind of progress to a stage's process."""


def snapshot(location: str, revision: str | None) -> Path | None:
    """Return the folder of a model in the local cache, or ``None``; no network, no imports.

    Its configuration exists; ``is_whole`` says whether its weights do.
    """
    folder = cache_folder() / f"models--{location.replace('/', '--')}"
    revision = revision or "main"
    try:
        pointer = inside(folder / "refs", revision, where=location, error=ModelError)
        commit = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else revision
        found = inside(folder / "snapshots", commit, where=location, error=ModelError)
        return found if (found / CONFIG).exists() else None
    except (OSError, ValueError):  # a name that no file can have, so it is not here
        return None


def cache_folder() -> Path:
    """Return the folder in which huggingface_hub keeps models, without importing it."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return user_path(os.environ.get("HF_HUB_CACHE", str(Path(home) / "hub")))


def _check_cache() -> None:
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return
    except OSError as error:
        raise ModelError(
            f"the cache of the Hugging Face hub, {cache}, cannot be written: {error.strerror}",
            hint="set HF_HOME to a writable folder, or name the model's own folder",
        ) from None


def is_snapshot(path: Path) -> bool:
    """Return whether a folder belongs to the cache; its name is then the commit."""
    return path.parent.name == "snapshots"


def is_whole(path: Path) -> bool:
    """Return whether a snapshot has all its weights; an interrupted download has only some."""
    index = path / INDEX
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            return all((path / shard).is_file() for shard in shards)
        except (ValueError, KeyError, AttributeError, TypeError, OSError):
            return False
    return any(path.glob("*.safetensors")) or any(path.glob("*.gguf"))


def download(location: str, revision: str | None) -> Path:
    """Download a model into the cache.

    Raises:
        ModelError: there is no such model, no access to it, or no network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    _check_cache()
    name = f"{location}@{revision}" if revision else location
    logging.getLogger("selectmoe.hub").info("fetching %s", name)
    if os.environ.get(PROGRESS) != "none":
        sys.stderr.write(f"  fetching {name} from the hub\n")
    try:
        fetched = snapshot_download(
            location, revision=revision, allow_patterns=PATTERNS, tqdm_class=_bar()
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"the model {name} is neither a folder nor available from the hub: {first}",
            hint="is it a folder? Then check the path. Is it a hub id? Then check the name, "
            "HF_ENDPOINT and HF_HUB_OFFLINE, and whether you must log in (hf auth login)",
        ) from None
    return Path(fetched)


def _bar() -> Any:  # noqa: ANN401
    """Return the bar of a download, which is shown on a terminal even if other bars are off."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            kwargs.pop("name", None)
            kwargs["disable"] = not sys.stderr.isatty() or os.environ.get(PROGRESS) == "none"
            super().__init__(*args, **kwargs)

    return Bar
