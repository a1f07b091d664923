"""Checks of a component's description, and of a plugin's module as a whole."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from selectmoe_core.config import Config, examine
from selectmoe_core.cost import Cost, Workload
from selectmoe_core.plugin.command import NAME
from selectmoe_core.plugin.component import KINDS, Component, Kind
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.plugin.specs import PROJECT
from selectmoe_core.recipe.recipe import OPTIONS, StageOptions
from selectmoe_core.testing.requirement import errors_of, require, require_methods

HEAVY = ("torch", "transformers", "datasets", "lm_eval", "peft", "accelerate")
"""Packages that ``selectmoe list`` and ``plan`` must not import."""

_REPORT = (
    "import importlib, json, os, sys; before = dict(os.environ); "
    "importlib.import_module({module!r}); "
    "print(json.dumps([[m for m in {heavy!r} if m in sys.modules], before != dict(os.environ)]))"
)


def check_plugin(module: str) -> None:
    """Check a plugin's module: light to import, with at least one hook, its components valid.

    Args:
        module: what its entry point of the group ``selectmoe`` names, e.g. ``my_plugin.plugin``.
    """
    _check_import(module)
    with errors_of(module):
        manager = load_plugins(found=[EntryPoint("checked", module, PROJECT)])
        entries = list(Registry(manager))
    found = manager.get_plugin("checked")
    require(
        found is not None and manager.get_hookcallers(found),
        f"{module} implements no hook: decorate a function such as selectmoe_scorers with "
        "@hookimpl, in the module that the entry point names",
    )
    for entry in entries:
        check_component(entry.component, kind=entry.kind)


def check_component(
    component: Component[Any, Any],
    *,
    kind: Kind | None = None,
    options: Mapping[str, object] | None = None,
) -> Config | None:
    """Check the description of a component; nothing is built.

    Args:
        component: the component.
        kind: its kind; with it, the check finds options named like a key of its table.
        options: as a recipe would write them; by default the defaults.

    Returns:
        The options as the component's Config; ``None`` if none were given but some are required.
    """
    name = component.name
    require(
        NAME.fullmatch(name),
        f"the name {name!r} must be lower-case words joined by dashes",
    )
    _check_config(component, kind)
    require(
        component.about.meaning or kind is not Kind.SCORER,
        f"{name}: about.meaning must say what the number means",
    )
    _check_import(component.config.__module__)
    found, problems = examine(component.config, options or {}, where=name)
    if found is None and options is None:
        return None
    if found is None:
        raise AssertionError("\n".join(map(str, problems)))
    config: Config = found
    _check_declarations(component, config)
    return config


def checked(
    component: Component[Any, Any], kind: Kind, options: Mapping[str, object] | None
) -> Config:
    """Check a component with options, or with the defaults; return them as its Config."""
    config = check_component(component, kind=kind, options=options or {})
    assert config is not None  # it is None only where no options are given
    return config


def built(component: Component[Any, Any], config: Config, protocol: type) -> Any:  # noqa: ANN401
    """Build the part of a component; it must have the methods of a protocol."""
    part = component.build(config)
    require_methods(component.name, part, protocol)
    return part


def _check_config(component: Component[Any, Any], kind: Kind | None) -> None:
    name, config = component.name, component.config
    require(
        inspect.isclass(config) and issubclass(config, Config),
        f"{name}: its options must be a subclass of selectmoe_core.Config",
    )
    for rule, wanted in (("frozen", True), ("extra", "forbid")):
        require(
            config.model_config.get(rule) == wanted, f"{name}: Config must keep {rule}={wanted}"
        )
    own_doc = config.__dict__.get("__doc__") or ""
    require(
        own_doc.strip() and component.summary.endswith("."),
        f"{name}: the first line of {config.__name__}'s docstring is its summary, one sentence "
        "with a full stop",
    )
    stages = [stage for stage, own in KINDS.items() if own is kind]
    tables = [OPTIONS.get(stage, StageOptions) for stage in stages] or [StageOptions]
    reserved = {key for table in tables for key in table.model_fields}
    for option, field in config.model_fields.items():
        require(
            (field.description or "").strip().endswith("."),
            f"{name}: option '{option}' needs a sentence under it, with a full stop",
        )
        require(
            option not in reserved,
            f"{name}: option '{option}' is a key that every such table has; use another name",
        )


def _check_declarations(component: Component[Any, Any], config: Config) -> None:
    name = component.name
    needs = component.needs(config)
    require(
        isinstance(needs, frozenset) and all(isinstance(need, Need) for need in needs),
        f"{name}: needs(config) must be a frozenset of Need, got {needs!r}",
    )
    if component.scores is not None:
        require(Need.SCORES in needs, f"{name}: it names scores but does not need SCORES")
    if component.files is not None:
        for path in component.files(config):
            require(isinstance(path, Path), f"{name}: files(config) returned {path!r}, not a Path")
    if component.cost is not None:
        unknown = Workload(1000, 2e5, estimated=True, model=None, dtype="float32")
        cost = component.cost(config, unknown)
        require(
            isinstance(cost, Cost), f"{name}: cost(config, workload) returned {cost!r}, not a Cost"
        )


def _check_import(module: str) -> None:
    if module == "__main__":
        return
    heavy, changed = _import_afresh(module)
    require(
        not heavy,
        f"importing {module} imports {', '.join(heavy)}: move that into the build function",
    )
    require(not changed, f"importing {module} changes os.environ")


@cache
def _import_afresh(module: str) -> tuple[tuple[str, ...], bool]:
    """Return the heavy packages that a module imports, and whether it changes ``os.environ``."""
    code = _REPORT.format(module=module, heavy=HEAVY)
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    require(done.returncode == 0, f"{module} cannot be imported:\n{done.stderr}")
    heavy, changed = json.loads(done.stdout.splitlines()[-1])
    return tuple(heavy), bool(changed)
