"""Packages whose public names are imported on first use."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package: it imports a name's module on first use.

    Args:
        package: the package's ``__name__``.
        modules: the names that each module defines, separated by spaces.
    """
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def lookup(name: str) -> Any:  # noqa: ANN401
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return lookup
