"""The files below an address such as ``s3://bucket/prefix``, through fsspec."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from selectmoe_core.errors import RecipeError, SelectMoEError, StageError, shown
from selectmoe_core.paths import inside, name_fault
from selectmoe_core.runtime.writing import create_text

WITH_FOLDERS = ("file", "local", "sftp", "ssh", "smb", "hdfs")
"""Protocols of file systems: folders have to be made, and a file is seen while it is written."""
EXTRAS = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
}
"""The packages of protocols that fsspec does not bring itself."""


def protocol_of(url: str) -> str:
    """Return the protocol of an address: ``s3`` of ``s3://bucket``."""
    return url.partition("://")[0]


class Objects:
    """The files below an address. Names have slashes, and none leads outside.

    Args:
        url: the address.

    Raises:
        RecipeError: the protocol is not known, or its package is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._protocol = protocol_of(url)
        self._system, self._root = _opened(self.url)

    def address(self, name: str) -> str:
        """Return the whole address of a file, for messages."""
        return f"{self.url}/{name}"

    def create(self, name: str, text: str) -> bool:
        """Create a file with a content; return ``False`` if there is one of this name already.

        On S3, Google's store and file systems only one of several processes succeeds. Where a
        store cannot promise that, two may succeed: they then do the same work twice.
        """
        path = self._path(name)
        if self._protocol in ("file", "local"):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            return create_text(Path(path), text)
        with self._reported(name):
            self._make_folder(path)
            try:
                self._system.pipe_file(path, text.encode(), mode="create")
            except FileExistsError:
                return False
        return True

    def write(self, name: str, text: str) -> None:
        """Write a small file."""
        path = self._path(name)
        with self._reported(name):
            self._make_folder(path)
            self._system.pipe_file(path, text.encode())

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; ``None`` if it is missing."""
        with self._reported(name):
            self._system.invalidate_cache()
            try:
                return bytes(self._system.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def written(self, name: str) -> float | None:
        """Return when a file was written, by the clock of the store; ``None`` if it is missing."""
        with self._reported(name):
            self._system.invalidate_cache()
            try:
                return float(self._system.modified(self._path(name)).timestamp())
            except FileNotFoundError:
                return None

    def has(self, name: str) -> bool:
        """Return whether there is a file."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; ``None`` if it is missing."""
        with self._reported(name):
            self._system.invalidate_cache()
            try:
                return int(self._system.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the bytes of all files in a folder and below it, by name inside the folder."""
        root = self._path(folder) if folder else self._root
        with self._reported(folder):
            self._system.invalidate_cache()
            try:
                found = self._system.find(root, detail=True)
            except FileNotFoundError:
                return {}
            return {
                _checked(str(path).removeprefix(root).lstrip("/")): int(entry["size"])
                for path, entry in found.items()
                if str(path) != root and not str(path).endswith("/")
            }

    def get(self, name: str, folder: Path, inner: str) -> Path:
        """Fetch a file into a folder here, by rename.

        Args:
            name: the file.
            folder: the folder that must hold it.
            inner: its path in the folder; it may not lead out of it.
        """
        path = inside(folder, _checked(inner), where=self.address(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name[:200]}.{uuid4().hex[:8]}")
        try:
            with self._reported(name):
                self._system.get_file(self._path(name), str(temporary))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def put(self, path: Path, name: str) -> None:
        """Store a file; nobody sees a part of it."""
        there = self._path(name)
        with self._reported(name):
            self._make_folder(there)
            if self._protocol not in WITH_FOLDERS:
                self._system.put_file(str(path), there)
                return
            folder, _, last = there.rpartition("/")
            temporary = f"{folder}/.{last[:200]}.{uuid4().hex[:8]}"
            self._system.put_file(str(path), temporary)
            self._system.mv(temporary, there)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._reported(name), suppress(FileNotFoundError):
            self._system.rm_file(self._path(name))

    def clear(self, folder: str) -> None:
        """Remove all files in a folder and below it."""
        for name in self.sizes(folder):
            self.remove(f"{folder}/{name}")

    def _path(self, name: str) -> str:
        return f"{self._root}/{_checked(name)}"

    def _make_folder(self, path: str) -> None:
        if self._protocol in WITH_FOLDERS:
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)

    @contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        """Turn what a library of a store raises into an error that says where."""
        try:
            yield
        except (SelectMoEError, FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            raise StageError(
                f"{self.address(name)}: {type(error).__name__}: {error}",
                hint="check the address, the credentials and the network, then run again; finished "
                "work is kept",
            ) from error


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path of the address on it."""
    import fsspec

    protocol = protocol_of(url)
    try:
        system, root = fsspec.core.url_to_fs(
            url, use_listings_cache=False, skip_instance_cache=protocol != "memory"
        )
    except ImportError as error:
        package = EXTRAS.get(protocol)
        raise RecipeError(
            f"{url}: {error}",
            hint=f"install its package: pip install {package}"
            if package
            else "install its package",
        ) from None
    except ValueError as error:
        known = "s3://bucket/prefix, gs://bucket/prefix, file:///folder"
        raise RecipeError(f"{url}: {error}", hint=f"addresses look like {known}") from None
    return system, str(root).rstrip("/")


def _checked(name: str) -> str:
    """Return a name of a file or folder, with slashes, that stays inside.

    Raises:
        StageError: it does not.
    """
    for part in name.split("/"):
        if fault := name_fault(part):
            raise StageError(
                f"{shown(name, 200)} cannot be the name of a file in an outputs folder: {fault}",
                hint="something else has written into this place; name another one with --outputs",
            )
    return name


class ObjectPlace:
    """A folder of an object store as the place of leases; the clock is the store's."""

    look = 3.0

    def __init__(self, objects: Objects, folder: str) -> None:
        self._objects, self._folder = objects, folder

    def open(self) -> None:
        """Do nothing: an object store has no folders."""

    def clear(self) -> None:
        """Remove all files."""
        self._objects.clear(self._folder)

    def create(self, name: str, text: str) -> bool:
        """Create a file, or return that there is one of this name already."""
        return self._objects.create(self._name(name), text)

    def write(self, name: str, text: str) -> float:
        """Write a file; return when."""
        self._objects.write(self._name(name), text)
        return self._objects.written(self._name(name)) or 0.0

    def written(self, name: str) -> float | None:
        """Return when a file was written; ``None`` if it is missing."""
        return self._objects.written(self._name(name))

    def read(self, name: str) -> str | None:
        """Return the content of a file; ``None`` if it is missing."""
        found = self._objects.read(self._name(name))
        return None if found is None else found.decode("utf-8", "replace")

    def names(self) -> set[str]:
        """Return the names of all files."""
        return {name for name in self._objects.sizes(self._folder) if "/" not in name}

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._objects.remove(self._name(name))

    def _name(self, name: str) -> str:
        return f"{self._folder}/{name}"
