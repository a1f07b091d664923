"""Artifacts: the result of a stage is a content-addressed folder; its manifest is written last."""

import hashlib
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from selectmoe_core.errors import StageError
from selectmoe_core.runtime.shared_folder import FolderSharing
from selectmoe_core.runtime.uses import unused, using
from selectmoe_core.runtime.writing import replacing, write_json, write_text

__all__ = [
    "Artifact",
    "Contents",
    "Facts",
    "FileHashes",
    "Store",
    "replacing",
    "write_json",
    "write_text",
]

Facts = Mapping[str, Any]
"""Small JSON values that a stage returns, for the report."""

FORMAT = 2
"""The version of folders and manifests; a new number makes every artifact again."""
MANIFEST = "artifact.json"
USES = "uses"
"""The folder in which runs say which artifacts they use."""
DIGEST_LENGTH = 12
SMALL = 1 << 20
"""Bytes up to which a file of an artifact is known by its hash, and not by its size alone."""
UNCHECKED = ("checkpoints", "scratch")
"""Folders of an artifact that nobody reads once it is whole: they may be removed."""
NOTES = (".log", ".md")
"""Files for people, who may change them: no stage reads them."""

Contents = dict[str, tuple[int, str]]
"""The files of an artifact: the size of each, and the SHA-256 of a small one, else ``""``."""


@dataclass(frozen=True)
class Artifact:
    """The finished output of one node of the plan.

    Attributes:
        stage: the stage that made it, e.g. ``score``.
        component: the component's name.
        digest: hexadecimal; covers everything that can change the content.
        folder: its folder.
        facts: what the stage returned.
        seconds: how long the stage took, including interrupted attempts.
        details: how it was made: device, dtype, versions, options, digests of the inputs.
        files: what its folder held when it was saved.
    """

    stage: str
    component: str
    digest: str
    folder: Path
    facts: Facts = field(default_factory=dict)
    seconds: float = 0.0
    details: Facts = field(default_factory=dict)
    files: Contents = field(default_factory=dict, compare=False, repr=False)

    def save(self, passing: Collection[str] = ()) -> None:
        """Write the manifest; from then on the node counts as done.

        Args:
            passing: files that are removed once it is done.
        """
        files = _contents(self.folder)
        value = {
            "stage": self.stage,
            "component": self.component,
            "digest": self.digest,
            "facts": dict(self.facts),
            "seconds": round(self.seconds, 3),
            "details": dict(self.details),
            "files": {name: file for name, file in files.items() if name not in passing},
        }
        write_json(self.folder / MANIFEST, value)

    @classmethod
    def load(cls, folder: Path) -> "Artifact | None":
        """Read a finished artifact, or return ``None`` if it did not finish or cannot be read.

        ``damage`` says whether its files are as they were written.
        """
        try:
            found = cls(**json.loads((folder / MANIFEST).read_bytes()) | {"folder": folder})
            whole = all(isinstance(value, dict) for value in (found.facts, found.details))
            files = {name: (int(size), str(digest)) for name, (size, digest) in found.files.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return replace(found, files=files) if whole else None

    def damage(self, known: dict[str, str] | None = None) -> str:
        """Return which file is not as it was written, and how; nothing where all are.

        Args:
            known: hashes of small files by path, size and time, so that each is read once.
        """
        known = {} if known is None else known
        for name, (size, digest) in self.files.items():
            path = self.folder / name
            try:
                status = path.stat()
            except OSError:
                return f"{path} is missing"
            if not stat.S_ISREG(status.st_mode):
                return f"{path} is not a file any more"
            if status.st_size != size:
                return f"{path} has {status.st_size:,} bytes and not {size:,}"
            key = f"{path}|{size}|{status.st_mtime_ns}"
            if digest and key not in known:
                known[key] = file_hash(path)
            if digest and known[key] != digest:
                return f"{path} holds something else than what was written"
        return ""


@dataclass(frozen=True)
class Store(FolderSharing):
    """All artifacts of an output folder, by stage and digest."""

    root: Path
    _hashes: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def folder(self, stage: str, digest: str) -> Path:
        """Return the folder of an artifact, which may not exist yet."""
        return self.root / f"{stage}-{digest[:DIGEST_LENGTH]}"

    def find(self, stage: str, digest: str) -> Artifact | None:
        """Return a finished artifact whose files are as they were written, or ``None``."""
        found = Artifact.load(self.folder(stage, digest))
        return None if found is None or self.damage(stage, digest) else found

    def damage(self, stage: str, digest: str) -> str:
        """Return what is wrong with an artifact that was finished; nothing where nothing is."""
        folder = self.folder(stage, digest)
        found = Artifact.load(folder)
        if found is not None and found.digest == digest:
            return found.damage(self._hashes)
        return f"{folder / MANIFEST} is damaged" if (folder / MANIFEST).exists() else ""

    def clear_damage(self, stage: str, digest: str) -> str:
        """Remove an artifact that is damaged; return what was wrong with it, or nothing."""
        if damage := self.damage(stage, digest):
            self.remove(stage, digest)
        return damage

    @contextmanager
    def used(self, nodes: Iterable[tuple[str, str]]) -> Iterator[None]:
        """Keep other runs from removing artifacts, by stage and digest, while the block runs."""
        with using(self.root / USES, [self.folder(*node).name for node in nodes]):
            yield

    @contextmanager
    def unused(self, nodes: Iterable[tuple[str, str]]) -> Iterator[None]:
        """Let no run begin to use artifacts while the block runs, so that they can be removed.

        Raises:
            StageError: another run uses one of them.
        """
        stages = {self.folder(*node).name: node[0] for node in nodes}
        with unused(self.root / USES, stages) as taken:
            if taken is not None:
                raise StageError(
                    f"{stages[taken]}: another run uses {self.root / taken}, which cannot be "
                    "removed now",
                    hint="wait until that run has ended, or use another folder with --outputs",
                )
            yield

    def remove(self, stage: str, digest: str) -> None:
        """Remove an artifact: the manifest first, so that a remaining part never counts as done."""
        folder = self.folder(stage, digest)
        manifest = folder / MANIFEST
        if manifest.is_dir() and not manifest.is_symlink():
            shutil.rmtree(manifest)
        manifest.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def lock_file(self, stage: str, digest: str) -> Path:
        """Return the file that is locked while an artifact is made; its ``.owner`` says by whom."""
        return self.root / f"{stage}-{digest[:DIGEST_LENGTH]}.lock"

    @contextmanager
    def lock(self, stage: str, digest: str, say: Callable[[str], None]) -> Iterator[None]:
        """Lock an artifact while making it; if another run holds the lock, say so and wait."""
        from filelock import FileLock, Timeout

        self.root.mkdir(parents=True, exist_ok=True)
        path = self.lock_file(stage, digest)
        owner = path.with_suffix(".owner")
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"{stage}: another run is making this ({_read(owner)}); waiting for it")
            lock.acquire()
        try:
            owner.write_text(
                f"process {os.getpid()} on {socket.gethostname()} since "
                f"{time.strftime('%Y-%m-%d %H:%M:%S')}",
                encoding="utf-8",
            )
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()


def _contents(folder: Path) -> Contents:
    """Return what an artifact consists of: its manifest, hidden files and notes do not count."""
    found: Contents = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        notes = path.suffix in NOTES or name.parts[0] in UNCHECKED or name.parts == (MANIFEST,)
        if not (hidden or notes) and path.is_file():
            size = path.stat().st_size
            found[name.as_posix()] = size, file_hash(path) if size <= SMALL else ""
    return found


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return "unknown process"


def _remembered(memory: Path) -> dict[str, str]:
    """Read the known hashes; a damaged file is ignored, because it only saves time."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


class FileHashes:
    """SHA-256 of files, remembered by path, size and modification time."""

    def __init__(self, memory: Path | None, limit: int | None = None) -> None:
        """Remember hashes in ``memory``; do not hash unknown files above ``limit`` bytes."""
        self.memory = memory
        self._limit = limit
        self._known: dict[str, str] = {}
        if memory and memory.is_file():
            self._known = _remembered(memory)
        self._changed = False

    def of(self, path: Path) -> str | None:
        """Return the hash of a file's content, or ``None`` if it is too large to hash now."""
        status = path.stat()
        key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        if key not in self._known:
            if self._limit is not None and status.st_size > self._limit:
                return None
            with path.open("rb") as file:
                self._known[key] = hashlib.file_digest(file, "sha256").hexdigest()
            self._changed = True
        return self._known[key]

    def of_tree(self, path: Path) -> str | None:
        """Return a hash over a file, or over the names and contents of a folder's files.

        A pipe gets a different hash each time.
        """
        if path.is_file():
            return self.of(path)
        if not path.is_dir():
            # The content of a pipe or a device is not known, so nothing made from it is reused.
            return f"read once {uuid4().hex}"
        found = []
        for file in sorted(path.rglob("*")):
            inside = file.relative_to(path)
            hidden = any(part.startswith(".") for part in inside.parts)
            if not hidden and file.is_file():
                digest = self.of(file)
                if digest is None:
                    return None
                found.append([inside.as_posix(), digest])
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()

    def save(self) -> None:
        """Write the known hashes; if nothing can be written, files are hashed again next time."""
        if self.memory and self._changed:
            with suppress(OSError):
                self.memory.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.memory, self._known)
                self._changed = False
