"""Checks of a component before it is used; none of its functions are called."""

import inspect
from collections.abc import Iterator
from typing import Any

from selectmoe_core.config import Config
from selectmoe_core.plugin.command import NAME
from selectmoe_core.plugin.component import About, Component
from selectmoe_core.plugin.signatures import takes

CALLED = {
    "build": ("config",),
    "needs": ("config",),
    "cost": ("config", "workload"),
    "files": ("config",),
    "unseen": ("config",),
    "sources": ("config",),
    "scores": ("config",),
    "max_skipped": ("config",),
    "damages": ("config",),
    "keeps": ("config",),
    "questions": ("config",),
    "details": ("config",),
    "budget": ("config", "tokens"),
}
"""The fields that the core calls, with their arguments."""
REQUIRED = ("build", "needs", "details")
SWITCHES = ("seeded", "by_rank", "torch", "one_process", "pairs")
TEXTS = {"requires": "module names", "endings": "endings such as '.jsonl'"}
"""The fields that hold texts."""
BY_DEFAULT = ("", "evaluated", "skipping")


def component_problems(component: Component[Any, Any]) -> Iterator[str]:
    """Yield the mistakes in the fields of a component."""
    if not isinstance(component.name, str) or not NAME.fullmatch(component.name):
        yield "its name must be lower-case words joined by dashes"
    if not _options(component.config):
        yield f"config must be a subclass of selectmoe_core.Config, got {component.config!r}"
    if not isinstance(component.about, About):
        yield f"about must be an About, got {component.about!r}"
    for field, wanted in TEXTS.items():
        found = getattr(component, field)
        if not isinstance(found, tuple) or not all(isinstance(text, str) for text in found):
            yield f"{field} must be a tuple of {wanted}, got {found!r}"
    for field in SWITCHES:
        if not isinstance(getattr(component, field), bool):
            yield f"{field} must be True or False, got {getattr(component, field)!r}"
    yield from _without_default(component)
    yield from _call_problems(component)


def _options(config: object) -> bool:
    return inspect.isclass(config) and issubclass(config, Config)


def _without_default(component: Component[Any, Any]) -> Iterator[str]:
    """Yield a problem if a filter that recipes have without writing it needs options."""
    config = component.config
    if component.by_default not in BY_DEFAULT:
        yield f"by_default must be one of {BY_DEFAULT}, got {component.by_default!r}"
    if not component.by_default or not _options(config):
        return
    needed = [name for name, option in config.model_fields.items() if option.is_required()]
    if needed:
        yield f"by_default needs a default for every option: {', '.join(needed)} has none"


def _call_problems(component: Component[Any, Any]) -> Iterator[str]:
    for field, arguments in CALLED.items():
        function = getattr(component, field)
        if function is None and field not in REQUIRED:
            continue
        wanted = f"{field}({', '.join(arguments)})"
        if not callable(function):
            yield f"{field} must be a function, called as {wanted}, got {function!r}"
        elif not takes(function, len(arguments)):
            yield f"{field} cannot be called as {wanted}"
