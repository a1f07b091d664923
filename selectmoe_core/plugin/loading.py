"""Parts that are imported only when they are built, so that listing plugins is fast."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from selectmoe_core.errors import PluginError


@dataclass(frozen=True)
class LazyPart:
    """Builds a part from its options; the part's module is imported at the first call.

    Attributes:
        path: where the part's class or factory is, as ``package.module:Name``.
    """

    path: str

    def __post_init__(self) -> None:
        module, _, name = self.path.partition(":")
        if not all(word.isidentifier() for word in (*module.split("."), name)):
            raise PluginError(
                f"'{self.path}' does not name a class or factory",
                hint="write it as 'package.module:Name'",
            )

    def resolve(self) -> Callable[[Any], Any]:
        """Import the module and return the class or factory.

        Raises:
            PluginError: there is no such module, or no such name in it. An error within the
                module, such as a library that is not installed, is raised unchanged.
        """
        module, _, name = self.path.partition(":")
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise
            raise self._wrong(f"there is no module '{error.name}'") from error
        target: Callable[[Any], Any] | None = getattr(found, name, None)
        if not callable(target):
            raise self._wrong(f"'{module}' has no class or function '{name}'")
        return target

    def __call__(self, config: Any) -> Any:  # noqa: ANN401
        """Build the part from its options."""
        return self.resolve()(config)

    def _wrong(self, what: str) -> PluginError:
        plugin = self.path.partition(".")[0]
        return PluginError(
            f"plugin '{plugin}' cannot build '{self.path}': {what}",
            hint=f"correct the path that {plugin}'s plugin.py gives to load(), or reinstall it",
        )


def load(path: str) -> LazyPart:
    """Return a function that builds a part from its options, and imports its module only then.

    Write it as the ``build`` of a ``Component``:
    ``Component("ifd", IfdConfig, load("selectmoe_lm.ifd:IfdScorer"))``.

    Args:
        path: the class or factory, as ``package.module:Name``; it is called with the options.

    Raises:
        PluginError: ``path`` does not have this form.
    """
    return LazyPart(path)
