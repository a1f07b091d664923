"""The store of an outputs folder on an object store; its folder here is a cache."""

import json
import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from selectmoe_core.errors import StageError
from selectmoe_core.paths import inside
from selectmoe_core.remote.objects import ObjectPlace, Objects
from selectmoe_core.runtime.leases import Leases, Place
from selectmoe_core.runtime.writing import create_text, write_text
from selectmoe_core.store import MANIFEST, UNCHECKED, Artifact, Store, file_hash

log = logging.getLogger("selectmoe.remote")

LOCKS = "locks"
CLAIMS = "claims"
FRESH = 10.0
"""Seconds for which what was found there counts without another look."""
PARTS = "part-"
"""The beginning of the names of shards: equal names and digests mean equal content."""
WARMUP = "warmup"
"""The stage whose checkpoints others read."""


class DamagedError(StageError):
    """A file of an artifact on the object store is not as it was written."""


@dataclass(frozen=True)
class RemoteStore(Store):
    """Artifacts on an object store.

    An artifact is there once its manifest is there, which is written last. ``find`` looks here and
    there; ``fetch`` brings files here, ``publish`` brings them there.

    Attributes:
        objects: the files of the store, below ``OUTPUTS/store``.
    """

    objects: Objects = field(kw_only=True)
    _found: dict[str, tuple[float, Artifact]] = field(
        default_factory=dict, kw_only=True, compare=False, repr=False
    )

    def find(self, stage: str, digest: str) -> Artifact | None:
        """Return a finished artifact, here or there; its files may be there alone."""
        here = super().find(stage, digest)
        if here is not None:
            return here
        since, there = self._found.get(digest, (0.0, None))
        if there is None or time.monotonic() - since > FRESH:
            there = self._manifest(stage, digest)
            if there is None or self._damage_there(there):
                return None
            self._found[digest] = time.monotonic(), there
        return there

    def damage(self, stage: str, digest: str) -> str:
        """Return what is wrong with an artifact that was finished; nothing where nothing is."""
        here = super().damage(stage, digest)
        if not here and (self.folder(stage, digest) / MANIFEST).exists():
            return ""
        there = self._manifest(stage, digest)
        return here if there is None else self._damage_there(there)

    def remove(self, stage: str, digest: str) -> None:
        """Remove an artifact here and there, the manifests first."""
        self._found.pop(digest, None)
        name = self._name(self.folder(stage, digest))
        self.objects.remove(f"{name}/{MANIFEST}")
        self.objects.clear(name)
        super().remove(stage, digest)

    def publish(self, stage: str, digest: str) -> None:
        """Store the files of a finished artifact, the manifest last.

        Whatever else is in its folder there, such as claims, is removed.
        """
        folder = self.folder(stage, digest)
        found = Artifact.load(folder)
        if found is None or self._manifest(stage, digest) is not None:
            return
        begun, name = time.monotonic(), self._name(folder)
        there = self.objects.sizes(name)
        names = list(_to_publish(folder, stage))
        for file in names:
            # A shard may be there; anything else may be another run's, which ended before its end.
            known = Path(file).name.startswith(PARTS)
            if not (known and there.get(file) == (folder / file).stat().st_size):
                self.objects.put(folder / file, f"{name}/{file}")
        for file in there.keys() - set(names):
            self.objects.remove(f"{name}/{file}")
        self.objects.put(folder / MANIFEST, f"{name}/{MANIFEST}")
        log.info("%s published in %.1f s", self.objects.address(name), time.monotonic() - begun)

    def fetch(self, stage: str, digest: str, without: Collection[str] = ()) -> None:
        """Bring the files of a finished artifact here, checked by its manifest.

        Raises:
            DamagedError: a file is not as it was written; the artifact counts as not made now.
        """
        from filelock import FileLock

        self.root.mkdir(parents=True, exist_ok=True)
        # Workers of one host share the cache: one of them fetches, the others find the files.
        with FileLock(self.root / f"{self.folder(stage, digest).name}.fetch"):
            self._fetch(stage, digest, without)

    def _fetch(self, stage: str, digest: str, without: Collection[str]) -> None:
        folder = self.folder(stage, digest)
        if Artifact.load(folder) is not None and not super().damage(stage, digest):
            return
        found = self._manifest(stage, digest)
        if found is None:
            return
        name = self._name(folder)
        for file, size in sorted(self.objects.sizes(name).items()):
            first = file.partition("/")[0]
            if file != MANIFEST and first not in (CLAIMS, *without) and not first.startswith("."):
                self._fetch_file(found, name, file, size)
        self.fetch_manifest(stage, digest)

    def fetch_manifest(self, stage: str, digest: str) -> None:
        """Bring the manifest of a finished artifact here, if there is none."""
        folder = self.folder(stage, digest)
        found = self.objects.read(f"{self._name(folder)}/{MANIFEST}")
        if found is not None and Artifact.load(folder) is None:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / MANIFEST, found.decode())

    def publish_file(self, path: Path) -> None:
        """Store a finished file of an artifact that is being made."""
        self.objects.put(path, self._name(path))

    def fetch_files(self, folder: Path) -> None:
        """Bring finished files of an artifact that is being made here."""
        for file in self.names_of(folder):
            self.objects.get(f"{self._name(folder)}/{file}", folder, file)

    def names_of(self, folder: Path) -> Collection[str]:
        """Return the finished files of an artifact being made that are not in its folder here."""
        names = self.objects.sizes(self._name(folder))
        parts = (name for name in names if Path(name).name.startswith(PARTS))
        return [name for name in parts if not (folder / name).is_file()]

    def has_file(self, path: Path) -> bool:
        """Return whether a file of an artifact that is being made is finished, on any host."""
        return path.is_file() or self.objects.has(self._name(path))

    def remove_file(self, path: Path) -> None:
        """Remove a file of an artifact that is being made, here and there."""
        super().remove_file(path)
        self.objects.remove(self._name(path))

    def agree(self, path: Path, text: str) -> bool:
        """Write a file of an artifact being made, if there is none; return whether it did."""
        if path.is_file():
            return False
        first = self.objects.create(self._name(path), text)
        agreed = text if first else (self.objects.read(self._name(path)) or b"").decode()
        return create_text(path, agreed) and first

    def place(self, folder: Path) -> Place:
        """Return where the processes that work in a folder keep their leases."""
        return ObjectPlace(self.objects, self._name(folder))

    @contextmanager
    def lock(self, stage: str, digest: str, say: Callable[[str], None]) -> Iterator[None]:
        """Lock an artifact while making it, on this host and on all others."""
        name = self.folder(stage, digest).name
        place = ObjectPlace(self.objects, LOCKS)
        with super().lock(stage, digest, say), Leases(place) as leases:
            said = False
            while (held := leases.take_over([name]))[0] is None:
                if not said:
                    said = True
                    by = ", ".join(held[1])
                    say(f"{stage}: another run is making this ({by}); waiting for it")
                time.sleep(place.look)
            yield

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _manifest(self, stage: str, digest: str) -> Artifact | None:
        """Return the artifact that the manifest there describes, if it is this one."""
        folder = self.folder(stage, digest)
        text = self.objects.read(f"{self._name(folder)}/{MANIFEST}")
        try:
            found = Artifact(**json.loads(text or b"") | {"folder": folder})
            files = {name: (int(size), str(sha)) for name, (size, sha) in found.files.items()}
        except (ValueError, TypeError, AttributeError):
            return None
        return replace(found, files=files) if found.digest == digest else None

    def _damage_there(self, found: Artifact) -> str:
        """Return which file is missing there or has another size; nothing where all are right."""
        name = self._name(found.folder)
        there = self.objects.sizes(name)
        for file, (size, _) in found.files.items():
            if file not in there:
                return f"{self.objects.address(f'{name}/{file}')} is missing"
            if there[file] != size:
                address = self.objects.address(f"{name}/{file}")
                return f"{address} has {there[file]:,} bytes and not {size:,}"
        return ""

    def _fetch_file(self, found: Artifact, name: str, file: str, size: int) -> None:
        expected, sha = found.files.get(file, (size, ""))

        def is_right(path: Path) -> bool:
            return path.stat().st_size == expected and (not sha or file_hash(path) == sha)

        here = inside(found.folder, file, where=self.objects.address(name))
        if here.is_file() and is_right(here):
            return
        path = self.objects.get(f"{name}/{file}", found.folder, file)
        if is_right(path):
            return
        path.unlink()
        self._found.pop(found.digest, None)
        self.objects.remove(f"{name}/{MANIFEST}")
        raise DamagedError(
            f"{self.objects.address(f'{name}/{file}')} holds something else than what was written",
            hint="run again: the stage that made it is executed again",
        )


def _to_publish(folder: Path, stage: str) -> Iterator[str]:
    """Yield the files of an artifact that others may read, for the manifest alone is last."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        first = name.parts[0]
        unread = first in UNCHECKED and not (stage == WARMUP and first == "checkpoints")
        hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not (hidden or unread or first in (CLAIMS, MANIFEST)):
            yield name.as_posix()
