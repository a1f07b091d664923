"""Digests: what names a node covers exactly what can change its result."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from selectmoe_core.config import Config, marked
from selectmoe_core.models.models import BUNDLED, ModelRef
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.plugin.registry import Entry, Registry
from selectmoe_core.recipe.recipe import Recipe, StageOptions
from selectmoe_core.store import FileHashes

CORE_MODULES = ("data", "tokens", "models", "training", "stages", "runtime/prefetch.py")
"""The parts of the core that can change an artifact; a new command line or report changes none."""

CHECKS_ONLY = frozenset(
    {"use", "model", "revision", "seed", "score", "max_skipped", "shard_examples"}
)
"""Stage options that are covered elsewhere or only say when to stop."""

LIBRARIES = {"evaluate": ("lm-eval",)}
"""Packages whose version is part of what a stage gives."""


class Planned(Protocol):
    """What the digest reads of a node."""

    @property
    def stage(self) -> str:
        """The stage of the node."""
        ...

    @property
    def entry(self) -> Entry:
        """The entry of the node."""
        ...

    @property
    def config(self) -> Config:
        """The config of the node."""
        ...

    @property
    def own(self) -> StageOptions:
        """The own of the node."""
        ...

    @property
    def model(self) -> ModelRef | None:
        """The model of the node."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the node."""
        ...


class Digester:
    """Names nodes."""

    def __init__(
        self, recipe: Recipe, registry: Registry, hashes: FileHashes, *, fetch: bool
    ) -> None:
        """Name nodes; ``fetch`` hub models where only that tells what they hold."""
        self.fetch = fetch
        self.recipe = recipe
        self.registry = registry
        self.hashes = hashes

    def of(self, node: Planned, inputs: Mapping[str, str | None]) -> str | None:
        """Return a node's digest, or ``None`` where a file was too large to hash in passing."""
        if self.fetch and node.model:
            self.registry.models.settle(node.model)
        model = self.registry.models.digest(node.model, self.hashes) if node.model else ""
        files = self._files(node)
        if model is None or files is None or None in inputs.values():
            return None
        component = node.entry.component
        needs = component.needs(node.config)
        sampled = node.own.subset_ratio is not None
        content: dict[str, Any] = {
            "stage": node.stage,
            "component": component.name,
            "code": [_core_code(), self._plugin_code(node.entry)],
            "options": _options(node.config),
            "own": node.own.model_dump(mode="json", exclude=set(CHECKS_ONLY)),
            "inputs": dict(inputs),
            "model": model,
            "files": files,
            "seed": node.seed if component.seeded or sampled else None,
            "chat": self.recipe_chat() if Need.TOKENS in needs else None,
            "libraries": [_version(name) for name in LIBRARIES.get(node.stage, ())],
        }
        if Need.DAMAGES in needs:
            content["damages"] = self._damage_code()
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def recipe_chat(self) -> str:
        """Return the digest of the recipe's chat format, its template file included."""
        from selectmoe_core.tokens.chat import ChatFormat

        return ChatFormat.load(self.recipe.chat).digest

    def _files(self, node: Planned) -> list[str] | None:
        """Return the contents of files, and their names where those may name sources."""
        component = node.entry.component
        if component.files is not None:
            named = _names(list(component.files(node.config)))
        else:
            options = sorted(marked(component.config, "content_path"))
            named = [(path, "") for name in options for path in _paths(getattr(node.config, name))]
        named += [(self.registry.bundled_tasks[name], name) for name in self._bundled(node.config)]
        found: list[str] = []
        for path, name in named:
            digest = self.hashes.of_tree(path) if path.exists() else f"missing {path}"
            if digest is None:
                return None
            found.append(f"{name} {digest}".strip())
        return found

    def _bundled(self, config: Config) -> list[str]:
        """Return the bundled tasks that options name: ``bundled:NAME`` or ``bundled:NAME/TASK``."""
        texts = [text for value in config.model_dump().values() for text in _texts(value)]
        names = {t.removeprefix(BUNDLED).partition("/")[0] for t in texts if t.startswith(BUNDLED)}
        return sorted(names & set(self.registry.bundled_tasks))

    def _plugin_code(self, entry: Entry) -> str:
        return self._code_of_plugin(entry.plugin)

    def _damage_code(self) -> dict[str, str]:
        """Return the code of each kind of damage that is offered: which there are matters too."""
        plugins = self.registry.damage_plugins
        return {kind: self._code_of_plugin(plugin) for kind, plugin in plugins.items()}

    def _code_of_plugin(self, plugin: str) -> str:
        module = self.registry.manager.get_plugin(plugin)
        name = getattr(module, "__name__", plugin)
        return package_code(str(name).partition(".")[0])


def _texts(value: Any) -> list[str]:  # noqa: ANN401
    items = value if isinstance(value, (list, tuple)) else [value]
    return [item for item in items if isinstance(item, str)]


def _options(config: Config) -> dict[str, Any]:
    left_out = marked(type(config), "execution_only") | marked(type(config), "content_path")
    return config.model_dump(mode="json", exclude=set(left_out))


def _names(paths: list[Path]) -> list[tuple[Path, str]]:
    """Name files relative to the folder they share, so that a pool can move as a whole."""
    if not paths:
        return []
    root = os.path.commonpath([path.absolute().parent for path in paths])
    return [(path, path.absolute().relative_to(root).as_posix()) for path in paths]


def _paths(value: Any) -> list[Path]:  # noqa: ANN401
    items = value if isinstance(value, (list, tuple)) else [value]
    return [
        Path(item) for item in items if item is not None and not str(item).startswith("bundled:")
    ]


@cache
def _core_code() -> str:
    folder = Path(__file__).parent.parent
    return code_of([folder / name for name in CORE_MODULES])


@cache
def package_code(package: str) -> str:
    """Hash the Python files of an installed package: the same code, the same digest."""
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        return package
    path = Path(file)
    return code_of([path.parent if path.name == "__init__.py" else path])


def code_of(paths: list[Path]) -> str:
    """Hash Python files, and those in folders, by their names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name
