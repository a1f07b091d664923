"""The YAML files of a user's tasks: the code they name, and the files that decide their results."""

import glob
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selectmoe_lmeval.config import LmEvalConfig

DATA_KEYS = ("dataset_path", "dataset_kwargs", "metadata")
"""Fields of a task whose texts may name files: the harness passes them to the data loader."""


@dataclass(frozen=True)
class Function:
    """A ``!function module.name`` of a YAML file.

    Attributes:
        folder: the folder of the YAML file: a module there comes before an installed one.
        name: the module and the function, with dots.
    """

    folder: Path
    name: str

    @property
    def file(self) -> Path | None:
        """The module's file, next to the YAML or installed; ``None`` if there is none."""
        module = self.name.rpartition(".")[0]
        beside = (self.folder / f"{module.replace('.', '/')}.py").resolve()
        if module and beside.is_file():
            return beside
        return _installed(module) if module else None


def contents(path: Path, _seen: frozenset[Path] = frozenset()) -> Iterator[tuple[Path, Any]]:
    """Yield a YAML file and those that it includes, each with its content.

    No code is imported: functions are ``Function`` objects.

    Raises:
        yaml.YAMLError: a file is not YAML; see ``unreadable``.
        ValueError: a file includes itself, or is not text.
        OSError: a file cannot be read.
    """
    path = path.resolve()
    if path in _seen:
        raise ValueError(f"{path} includes itself")
    content = _parsed(path)
    yield path, content
    included = content.get("include", []) if isinstance(content, dict) else []
    for name in included if isinstance(included, list) else [included]:
        yield from contents(path.parent / str(name), _seen | {path})


def unreadable() -> tuple[type[Exception], ...]:
    """Return what reading a user's YAML and looking for the files that it names may raise.

    ``RuntimeError``: it is nested too deeply, or a link leads to itself.
    """
    import yaml  # type: ignore[import-untyped]

    return OSError, RuntimeError, ValueError, yaml.YAMLError


def functions(path: Path) -> list[tuple[str, Function]]:
    """Return the functions of a YAML file and of those it includes, each with its field."""
    return [found for _, content in contents(path) for found in _functions(content, "")]


def deciding_files(config: LmEvalConfig) -> Iterator[Path]:
    """Yield the files that decide the results of a user's tasks: their folders and what they name.

    A file that cannot be read is skipped here: the check of the tasks reports it.
    """
    yield from config.include_path
    yield from config.task_data
    covered = [folder.resolve() for folder in config.include_path]
    found: dict[Path, None] = {}
    for folder in config.include_path:
        for path in sorted(folder.rglob("*.yaml")):
            found.update(dict.fromkeys(_named_by(path)))
    for path in found:
        if not any(_covers(folder, path) for folder in covered):
            yield path


def data_files(path: Path) -> Iterator[Path]:
    """Yield the files and folders with data that a YAML file and its includes name."""
    for _, content in contents(path):
        for text in _data_texts(content):
            yield from _existing(text, path.resolve().parent)


def _named_by(path: Path) -> Iterator[Path]:
    """Yield the included files, modules and data that a YAML file names, as far as they exist."""
    try:
        for file, content in contents(path):
            yield file
            for _, function in _functions(content, ""):
                if function.file is not None:
                    yield function.file
        yield from data_files(path)
    except unreadable():
        return


def _covers(folder: Path, path: Path) -> bool:
    """Return whether the digest of a folder covers a file: hidden files and links do not count."""
    real = path.resolve()
    if not real.is_relative_to(folder):
        return False
    return not any(part.startswith(".") for part in real.relative_to(folder).parts)


def _parsed(path: Path) -> Any:  # noqa: ANN401
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    def function(loader: Any, node: Any) -> Function:  # noqa: ANN401
        return Function(path.parent, str(loader.construct_scalar(node)))

    Loader.add_constructor("!function", function)
    with path.open("rb") as file:
        return yaml.load(file, Loader=Loader)


def _functions(value: Any, field: str) -> Iterator[tuple[str, Function]]:  # noqa: ANN401
    if isinstance(value, Function):
        yield field, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _functions(item, field or str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _functions(item, field)


def _data_texts(value: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield the texts under the fields that say where data is, at any depth."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item) if key in DATA_KEYS else _data_texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _data_texts(item)


def texts(value: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield the texts in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from texts(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def _existing(text: str, home: Path) -> Iterator[Path]:
    """Yield the files and folders that a text names: a path, a pattern, or ``zip://a::b.zip``."""
    for part in text.split("::"):
        name = part.removeprefix("file://")
        if not name or "://" in name or "\0" in name or len(name) > 4000:
            continue
        if glob.has_magic(name):
            # Path.glob refuses absolute patterns.
            found = glob.glob(str(home / name), recursive=True)  # noqa: PTH207
            yield from map(Path, sorted(found))
        elif (home / name).exists():
            yield home / name


def _installed(module: str) -> Path | None:
    """Return the file of an installed module, without importing it."""
    top, *rest = module.split(".")
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None:
        return None
    if not found.has_location:
        return Path(sys.executable)  # built into the interpreter
    path = Path(found.origin)
    if not rest:
        return path
    path = path.parent.joinpath(*rest)
    file = path.with_suffix(".py")
    return file if file.is_file() else next(iter(path.glob("__init__.py")), None)
