"""The digest of code: it covers all statements that can run, found through names and imports."""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from selectmoe_core.plugin.loading import LazyPart
from selectmoe_core.stages import code_parts
from selectmoe_core.stages.code_parts import ModuleParts, Part, Target, parts_of
from selectmoe_core.store import write_text

CORE = "selectmoe_core"
BORDER = tuple(
    f"{CORE}.{name}"
    for name in (
        *("audit", "cli", "compare", "config", "cost", "errors", "lazy", "plan", "plugin"),
        *("recipe", "report", "runner", "store", "testing"),
        *("runtime.distributed", "runtime.hardware", "runtime.processes", "runtime.progress"),
        *("runtime.terminal", "stages.code", "stages.code_parts"),
    )
)
"""Modules whose imports are not followed: they plan, start or report work and change no result.
What they write to disk has a ``FORMAT``."""

IMPORT = "<import>"
"""The name of a target: what runs when its module is imported, with the packages above it."""
Step = tuple[Sequence[tuple[str, Part]], Sequence[Target]]
"""Statements, each with its module, and further targets."""


class Code:
    """Computes the digest of the code that given functions reach."""

    def __init__(self, packages: Mapping[str, Path], memory: Path | None = None) -> None:
        """Follow imports into packages.

        Args:
            packages: the folder, or the single file, of each top-level package.
            memory: a file that remembers what was read from sources, by path, size and time.
        """
        self._packages = packages
        self._memory = memory
        self._known = _remembered(memory)
        self._learned = False
        self._modules: dict[str, ModuleParts | None] = {}
        self._steps: dict[Target, Step] = {}
        self._digests: dict[frozenset[Target], str] = {}

    @classmethod
    def installed(cls, names: Iterable[str], memory: Path | None = None) -> "Code":
        """Follow imports into the core and the named packages, as they are installed."""
        found = {name: _location(name) for name in {CORE, *names}}
        return cls({name: path for name, path in found.items() if path}, memory)

    def digest(self, roots: Iterable[Target]) -> str:
        """Return the digest of everything that ``roots`` reach."""
        asked = frozenset(roots)
        if asked not in self._digests:
            found = sorted({(module, part.digest) for module, part in self.reach(asked)})
            self._digests[asked] = hashlib.sha256(json.dumps(found).encode()).hexdigest()
        return self._digests[asked]

    def reach(self, roots: Iterable[Target]) -> Iterator[tuple[str, Part]]:
        """Yield each statement that is reached, with its module."""
        stack, seen = list(roots), set[Target]()
        reached = set[tuple[str, str]]()
        while stack:
            target = stack.pop()
            if target in seen:
                continue
            seen.add(target)
            statements, further = self._step(target)
            for module, part in statements:
                if (module, part.digest) not in reached:
                    reached.add((module, part.digest))
                    yield module, part
            stack += further

    def save(self) -> None:
        """Write what is known about sources."""
        if self._memory and self._learned:
            with suppress(OSError):  # a folder that cannot be written: it is read again next time
                self._memory.parent.mkdir(parents=True, exist_ok=True)
                known = {"reader": _reader(), "modules": self._known}
                write_text(self._memory, json.dumps(known))  # for no reader but this class
                self._learned = False

    def _step(self, target: Target) -> Step:
        """Return the statements of a target, and the targets that these lead to."""
        if target not in self._steps:
            statements, further = self._statements(target)
            targets = [next_ for module, part in statements for next_ in self._next(module, part)]
            self._steps[target] = statements, (*further, *dict.fromkeys(targets))
        return self._steps[target]

    def _next(self, module: str, part: Part) -> Iterator[Target]:
        own = self._module(module)
        assert own is not None
        yield from ((module, name) for name in part.uses if name in own.binding)
        for target, name in part.imports:
            inside = target.partition(".")[0] in self._packages
            if inside and not (_behind_border(target) or _behind_border(f"{target}.{name}")):
                yield target, name

    def _statements(self, target: Target) -> Step:
        """Return the statements that define a target, and where else to look for it."""
        module, name = target
        own = self._module(module)
        if name == IMPORT:
            above = module.rpartition(".")[0]
            effects = own.effects if own else ()
            return [(module, part) for part in effects], [(above, IMPORT)] if above else []
        if own is None:
            return [], []
        found, home = own.binding.get(name), own.homes.get(name)
        if name and not found and self._module(f"{module}.{name}") is not None:
            return [], [(f"{module}.{name}", "")]
        if home and not found:
            return [], [] if _behind_border(home) else [(home, name)]
        # A name that no statement binds may come from any place in the module.
        return [(module, part) for part in (found or own.parts)], [(module, IMPORT)]

    def _module(self, module: str) -> ModuleParts | None:
        if module not in self._modules:
            path = self._path(module)
            self._modules[module] = self._read(module, path) if path else None
        return self._modules[module]

    def _path(self, module: str) -> Path | None:
        top, *inner = module.split(".")
        if top not in self._packages:
            return None
        root = self._packages[top]
        if root.is_file():
            return root if not inner else None
        path = root.joinpath(*inner)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
        return None

    def _read(self, module: str, path: Path) -> ModuleParts:
        status = path.stat()
        key, now = f"{module}|{path}", [status.st_size, status.st_mtime_ns]
        if key not in self._known or self._known[key][0] != now:
            package = path.name == "__init__.py"
            read = parts_of(path.read_bytes(), module, package=package)
            self._known[key] = [now, *_as_lists(read)]
            self._learned = True
        _, parts, lazy = self._known[key]
        return ModuleParts(tuple(map(_part, parts)), tuple((name, home) for name, home in lazy))


def roots_of(thing: Any) -> Iterator[Target]:  # noqa: ANN401
    """Yield where the code of a function, a class or a callable object is."""
    if isinstance(thing, LazyPart):
        module, _, name = thing.path.partition(":")
        yield module, name
        return
    if isinstance(thing, partial):
        yield from roots_of(thing.func)
        for value in (*thing.args, *thing.keywords.values()):
            if callable(value):
                yield from roots_of(value)
        return
    if not hasattr(thing, "__qualname__"):
        thing = type(thing)
    name = str(thing.__qualname__).partition(".")[0]
    yield thing.__module__, "" if name.startswith("<") else name


@cache
def _behind_border(module: str) -> bool:
    return any(module == border or module.startswith(f"{border}.") for border in BORDER)


def _location(package: str) -> Path | None:
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        spec = importlib.util.find_spec(package)
        file = spec.origin if spec else None
    if file is None or not file.endswith(".py"):
        return None
    path = Path(file)
    return path.parent if path.name == "__init__.py" else path


def _remembered(memory: Path | None) -> dict[str, Any]:
    """Read what is known; a damaged file is ignored, because it only saves time."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8")) if memory else {}
    except (OSError, ValueError):
        return {}
    fits = isinstance(known, dict) and known.get("reader") == _reader()
    return dict(known["modules"]) if fits else {}


@cache
def _reader() -> str:
    """Return the version of the reader of sources: what another version remembered is not used."""
    return hashlib.sha256(Path(code_parts.__file__).read_bytes()).hexdigest()


def _as_lists(module: ModuleParts) -> list[Any]:
    parts = [[p.names, p.digest, p.uses, p.imports, p.effect] for p in module.parts]
    return [parts, module.lazy]


def _part(value: list[Any]) -> Part:
    names, digest, uses, imports, effect = value
    targets = tuple((module, name) for module, name in imports)
    return Part(tuple(names), digest, tuple(uses), targets, effect)
