"""The folder here in which a run on an object store works: a cache that may be removed any time."""

import hashlib
import json
import os
import re
from functools import cache
from pathlib import Path

from selectmoe_core.errors import StageError
from selectmoe_core.paths import STORE, inside, plain_name
from selectmoe_core.remote.objects import Objects
from selectmoe_core.remote.store import RemoteStore
from selectmoe_core.runtime.writing import write_json
from selectmoe_core.store import Store

MARK = ".remote.json"
"""The file of a cache that says which address it belongs to."""
CACHE = "SELECTMOE_CACHE"
"""The variable that says where caches are."""
RUN = re.compile(r"(.+)/([^/]+)/(\d{4}-\d\d-\d\d)/([^/]+)")
"""The address of a run: the outputs, the recipe, the date and the time."""
RECORD = "run.json"
BEGUN = ".begun"
"""The file that takes the name of a run."""
HEAVY = ("model", "checkpoints")
"""Folders of artifacts that no report and no command about a run reads."""


def local_outputs(url: str) -> Path:
    """Return the cache of an outputs folder on an object store; make it if it is not there.

    Raises:
        RecipeError: the protocol is not known, or its package is missing.
    """
    url = url.rstrip("/")
    Objects(url)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    base = Path(os.environ.get(CACHE) or Path(home) / "selectmoe")
    last = re.sub(r"[^A-Za-z0-9._-]+", "-", url.partition("://")[2])[-40:].strip("-.")
    folder = base / f"{last}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    if address_of(folder) != url:
        write_json(folder / MARK, {"outputs": url})
    return folder


def address_of(outputs: Path) -> str | None:
    """Return the address whose cache a folder is; ``None`` for any other outputs folder."""
    try:
        return str(json.loads((outputs / MARK).read_bytes())["outputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@cache
def objects_at(url: str) -> Objects:
    """Return the files below an address; a connection is made once."""
    return Objects(url)


def store_at(root: Path) -> Store:
    """Return the store in a folder, or the one whose cache the folder is."""
    url = address_of(root.parent)
    return (
        Store(root) if url is None else RemoteStore(root, objects=objects_at(f"{url}/{root.name}"))
    )


def is_free(outputs: Path, run: Path) -> bool:
    """Take the name of a run's folder; return whether no run on another host has it already."""
    url = address_of(outputs)
    name = run.resolve().relative_to(outputs.resolve()).as_posix()
    return url is None or objects_at(url).create(f"{name}/{BEGUN}", "")


def publish_run(outputs: Path, run: Path) -> None:
    """Store the files of a run's folder, if its outputs are on an object store."""
    url = address_of(outputs)
    if url is None:
        return
    name = run.relative_to(outputs.resolve()).as_posix()
    files = [path for path in sorted(run.iterdir()) if path.is_file() and path.name[0] != "."]
    # The record last: it is what makes a folder a run.
    for path in sorted(files, key=lambda path: path.name == RECORD):
        objects_at(url).put(path, f"{name}/{path.name}")


def fetch_run(url: str) -> Path:
    """Bring a run here, with the artifacts that reports read; return its folder.

    Args:
        url: the address of the run's folder.

    Raises:
        StageError: there is no such run.
    """
    match = RUN.fullmatch(url.rstrip("/"))
    if match is None:
        raise StageError(
            f"{url} is not the address of a run",
            hint="name OUTPUTS/RECIPE/DATE/TIME, as `selectmoe runs --outputs OUTPUTS` lists them",
        )
    outputs = local_outputs(match[1])
    name = "/".join(plain_name(part, where=url) for part in match.groups()[1:])
    return _fetch_run(outputs, name, objects_at(match[1]))


def fetch_records(outputs: Path) -> None:
    """Bring the records of all runs of an outputs folder here, with the manifests they name."""
    url = address_of(outputs)
    if url is None:
        return
    objects = objects_at(url)
    for name in objects.sizes(""):
        folder, _, last = name.rpartition("/")
        if last == RECORD and RUN.fullmatch(f"x/{folder}"):
            _fetch_run(outputs, folder, objects, artifacts=False)


def _fetch_run(outputs: Path, name: str, objects: Objects, *, artifacts: bool = True) -> Path:
    folder = inside(outputs, name, where=objects.address(name))
    files = objects.sizes(name)
    if RECORD not in files:
        raise StageError(f"{objects.address(name)} is not a run: it has no {RECORD}")
    for file in files if artifacts else {RECORD: 0, "recipe.toml": 0, "report.json": 0}:
        if file in files and not (folder / file).is_file():
            objects.get(f"{name}/{file}", folder, file)
    store = RemoteStore(outputs / STORE, objects=objects_at(f"{objects.url}/{STORE}"))
    for node in json.loads((folder / RECORD).read_bytes())["nodes"]:
        stage, digest = (
            plain_name(node["stage"], where=name),
            plain_name(node["digest"], where=name),
        )
        if artifacts:
            store.fetch(stage, digest, without=HEAVY)
        else:
            store.fetch_manifest(stage, digest)
    return folder
