"""A folder that several hosts may share: their leases in it, and how they find files."""

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from selectmoe_core.errors import StageError
from selectmoe_core.paths import plain_name
from selectmoe_core.runtime.leases import Place
from selectmoe_core.runtime.writing import create_text


class SharedFolder:
    """The place of leases in a folder; the clock is that of its file system.

    Files are opened before they are looked at, because NFS then asks the server for their state.
    """

    look = 0.5

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, name: str, text: str) -> bool:
        """Create a file, or return that there is one of this name already."""
        return create_text(self._path(name), text)

    def write(self, name: str, text: str) -> float:
        """Write a file in place: it is read only as a whole, and by its owner's successors."""
        descriptor = os.open(self._path(name), os.O_CREAT | os.O_WRONLY, 0o666)
        try:
            os.write(descriptor, text.encode())
            os.utime(descriptor)
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)

    def written(self, name: str) -> float | None:
        """Return when a file was written; ``None`` if it is missing."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)

    def read(self, name: str) -> str | None:
        """Return the content of a file; ``None`` if it is missing."""
        try:
            return self._path(name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def names(self) -> set[str]:
        """Return the names of all files."""
        names = (path.name for path in self.folder.iterdir())
        return {name for name in names if not name.startswith(".")}

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        """Return the path of a file; its name may come from the content of another one."""
        where = f"a claim in {self.folder}"
        return self.folder / plain_name(name, where=where, error=StageError)


class FolderSharing:
    """How the hosts of a run find one another's files: here, in a folder that all of them see.

    A store elsewhere brings files there and here.
    """

    def publish(self, stage: str, digest: str) -> None:
        """Let other hosts find a finished artifact; they see a folder already."""

    def fetch(self, stage: str, digest: str, without: Collection[str] = ()) -> None:
        """Make the files of a finished artifact readable here; in a folder they are.

        Args:
            stage: its stage.
            digest: its digest.
            without: names of folders inside it that are not needed.
        """

    def publish_file(self, path: Path) -> None:
        """Let other hosts find a finished file of an artifact that is being made."""

    def fetch_files(self, folder: Path) -> None:
        """Make the finished files of an artifact that is being made readable here."""

    def names_of(self, folder: Path) -> Collection[str]:  # noqa: ARG002
        """Return the finished files of an artifact being made that are not in its folder here."""
        return ()

    def has_file(self, path: Path) -> bool:
        """Return whether a file of an artifact that is being made is finished, on any host."""
        return path.is_file()

    def remove_file(self, path: Path) -> None:
        """Remove a file of an artifact that is being made, on every host."""
        path.unlink(missing_ok=True)

    def agree(self, path: Path, text: str) -> bool:
        """Write a file of an artifact being made if there is none; return whether there was none.

        All processes that make the artifact have the content of the first one afterwards.
        """
        return create_text(path, text)

    def place(self, folder: Path) -> Place:
        """Return where the processes that work in a folder keep their leases."""
        return SharedFolder(folder)
