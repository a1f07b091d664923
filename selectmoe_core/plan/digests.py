"""Digests: what names a node covers exactly what can change its result."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from uuid import uuid4

from selectmoe_core.config import Config, marked
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.declared import bundled_names
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.plugin.registry import Entry, Registry
from selectmoe_core.recipe.recipe import Recipe, StageOptions
from selectmoe_core.stages import MODULES
from selectmoe_core.stages.code import Code, roots_of
from selectmoe_core.stages.code_parts import Target
from selectmoe_core.store import FORMAT, FileHashes

GIVEN: Mapping[Need, tuple[Target, ...]] = {
    Need.MODEL: (("selectmoe_core.models.models", "Models"),),
    Need.TOKENS: (
        ("selectmoe_core.stages.token_cache", "encoded_pool"),
        ("selectmoe_core.tokens.chat", "ChatFormat"),
    ),
    Need.TARGETS: (("selectmoe_core.data.pool", "Pool"),),
    Need.FEATURES: (("selectmoe_core.data.vectors", "Vectors"),),
    Need.QUESTIONS: (("selectmoe_core.data.questions", "read_questions"),),
    Need.SCORES: (("selectmoe_core.data.scores", "ScoreTable"),),
    Need.PAIRS: (("selectmoe_core.data.pairs", "PairTable"),),
    Need.DAMAGES: (("selectmoe_core.data.corruption", "Damage"),),
}
"""Code that a part reaches through its job, and which its own imports do not show."""

CHECKS_ONLY = frozenset(
    {
        *("use", "model", "revision", "seed", "score", "max_skipped", "shard_examples"),
        *("base_model", "data", "adapter"),
    }
)
"""Stage options that are covered elsewhere, or that only say when to stop."""

CODE = "code-hashes.json"
"""The file in the store that remembers what is known about source files."""

LIBRARIES = {"evaluate": ("lm-eval",), "questions": ("lm-eval",)}
"""Packages whose version can change the result of a stage."""


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
        self,
        recipe: Recipe,
        registry: Registry,
        hashes: FileHashes,
        *,
        fetch: bool,
        code: Code | None = None,
    ) -> None:
        """Compute digests of nodes.

        Args:
            recipe: the recipe.
            registry: the components.
            hashes: the hashes of files.
            fetch: fetch hub models whose content is not known otherwise.
            code: the reader of code, where several digesters share one.
        """
        self.code = code or installed_code(registry, hashes.memory)
        self.fetch = fetch
        self.recipe = recipe
        self.registry = registry
        self.hashes = hashes
        self._once = uuid4().hex

    def of(
        self, node: Planned, inputs: Mapping[str, str | None], unseen: Sequence[str] = ()
    ) -> str | None:
        """Return a node's digest, or ``None`` if a file was too large to hash now.

        Args:
            node: the node.
            inputs: the digests of the nodes that it reads, by role.
            unseen: what else it reads: with any of it the digest is another one in each plan.
        """
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
            "code": self.code.digest(self._roots(node, needs, inputs)),
            "format": FORMAT,
            "options": _options(node.config),
            "own": node.own.model_dump(mode="json", exclude=set(CHECKS_ONLY)),
            "inputs": dict(inputs),
            "model": model,
            "files": files,
            "seed": node.seed if component.seeded or sampled else None,
            "chat": self.recipe_chat() if Need.TOKENS in needs else None,
            "unseen": self._once if unseen else "",
            "libraries": [_version(name) for name in LIBRARIES.get(node.stage, ())],
        }
        if adapter := getattr(node.own, "adapter", None):
            content["adapter"] = self.registry.models.digest(ModelRef(adapter), self.hashes)
            if content["adapter"] is None:
                return None
        if Need.DAMAGES in needs:
            content["damages"] = {
                kind: self.code.digest(roots_of(damage.apply))
                for kind, damage in self.registry.damages.items()
            }
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def recipe_chat(self) -> str:
        """Return the digest of the recipe's chat format, its template file included."""
        from selectmoe_core.tokens.chat import ChatFormat

        return ChatFormat.load(self.recipe.chat).digest

    def _files(self, node: Planned) -> list[str] | None:
        """Return digests of files, with their names if those may name sources."""
        component = node.entry.component
        if component.files is not None:
            named = _names(list(component.files(node.config)))
        else:
            options = sorted(marked(component.config, "content_path"))
            named = [(path, "") for name in options for path in _paths(getattr(node.config, name))]
        tasks = self.registry.bundled_tasks
        used = sorted(bundled_names(node.config) & tasks.keys())
        named += [(tasks[name], name) for name in used]
        found: list[str] = []
        for path, name in named:
            digest = self.hashes.of_tree(path) if path.exists() else f"missing {path}"
            if digest is None:
                return None
            found.append(f"{name} {digest}".strip())
        return found

    def _roots(
        self, node: Planned, needs: frozenset[Need], inputs: Mapping[str, str | None]
    ) -> Iterator[Target]:
        """Yield where the code of a node starts: its stage, its part and what the part receives."""
        yield MODULES[node.stage], "run"
        yield from roots_of(node.entry.component.build)
        yield from roots_of(type(node.config))
        for need in sorted(needs):
            yield from GIVEN.get(need, ())
        if Need.MODEL in needs:
            for register in self._model_types(node.model, made="model" in inputs):
                yield from roots_of(register)

    def _model_types(self, model: ModelRef | None, *, made: bool) -> Iterable[Any]:
        """Return the functions that register the model types that a node may load.

        A model that the recipe makes may be of any type that a plugin adds.
        """
        known = self.registry.models.model_types
        if made:
            return [known[name] for name in sorted(known)]
        config = (self.registry.models.config(model) if model else None) or {}
        name = str(config.get("model_type"))
        return [known[name]] if name in known else []


def unseen(node: Planned) -> Iterator[str]:
    """Yield in words what a node reads and its digest cannot cover: such a node is never reused."""
    component = node.entry.component
    if component.unseen is not None:
        yield from component.unseen(node.config)
    for path in component.files(node.config) if component.files is not None else ():
        if path.exists() and not (path.is_file() or path.is_dir()):
            yield f"what is read from {path}"


def installed_code(registry: Registry, hashes: Path | None) -> Code:
    """Return the reader of the code of the core and of the plugins.

    Args:
        registry: the components.
        hashes: the file that remembers hashes of files; the one for code is in the same folder.
    """
    plugins = [module for _, module in registry.manager.list_name_plugin()]
    names = {str(getattr(module, "__name__", "")) for module in plugins}
    names |= {type(module).__module__ for module in plugins if not isinstance(module, ModuleType)}
    names |= {module for entry in registry for module, _ in roots_of(entry.component.build)}
    tops = {name.partition(".")[0] for name in names} - {"", "builtins"}
    return Code.installed(tops, hashes.with_name(CODE) if hashes else None)


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


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name
