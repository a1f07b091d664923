"""Finding plugins: every plugin, also ours, is an entry point of the group ``selectmoe``."""

import logging
import time
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any

import pluggy

from selectmoe_core.config import suggest
from selectmoe_core.errors import PluginError
from selectmoe_core.plugin import specs as hookspecs
from selectmoe_core.plugin.specs import API, PROJECT

PREFIX = "selectmoe_"
SLOW = 2.0
"""Seconds of computing that the import of a plugin may take before it is reported."""

log = logging.getLogger("selectmoe.plugins")


def find_plugins() -> list[EntryPoint]:
    """Return the entry points of all installed plugins, by name."""
    return sorted(entry_points(group=PROJECT), key=lambda entry: (entry.name, _owner(entry)))


def load_plugins(
    disabled: Collection[str] = (), found: Iterable[EntryPoint] | None = None
) -> pluggy.PluginManager:
    """Return a manager with all installed plugins except the disabled ones.

    Raises:
        PluginError: there is no plugin, two have the same name, one cannot be imported, or a hook
            does not exist. The message names the distribution, the hint a solution.
    """
    entries = list(find_plugins() if found is None else found)
    if not entries:
        raise PluginError("no plugin is installed", hint="reinstall: pip install selectmoe")
    names = {entry.name for entry in entries}
    for name in disabled:
        if name not in names:
            hint = suggest(name, names, otherwise="installed")
            raise PluginError(f"there is no plugin '{name}' to disable", hint=hint)
    manager = empty_manager()
    for entry in entries:
        if entry.name not in disabled:
            _register(manager, entry, entries)
    return manager


def empty_manager() -> pluggy.PluginManager:
    """Return a manager with the hooks and no plugin; tests start from it."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def notify(
    manager: pluggy.PluginManager,
    hook: str,
    say: Callable[[str], None],
    **arguments: Any,  # noqa: ANN401
) -> None:
    """Call the observers of a hook; a failure of one is reported and changes nothing."""
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        wanted = {name: arguments[name] for name in implementation.argnames}
        try:
            implementation.function(**wanted)
        except Exception as error:
            say(f"warning: {implementation.plugin_name}: {hook} failed: {error}")
            log.exception("%s of %s failed", hook, implementation.plugin_name)


def _register(
    manager: pluggy.PluginManager, entry: EntryPoint, entries: Iterable[EntryPoint]
) -> None:
    if manager.has_plugin(entry.name):
        owners = ", ".join(sorted({_owner(other) for other in entries if other.name == entry.name}))
        raise PluginError(
            f"two installed plugins are named '{entry.name}' (from {owners})",
            hint="uninstall one of them, or run with --disable-plugin "
            f"{entry.name}, which disables both",
        )
    owner = _owner(entry)
    way_out = f"upgrade or uninstall {owner}, or run with --disable-plugin {entry.name}"
    begun = time.process_time()  # a busy machine makes no plugin slow
    try:
        module = entry.load()
    except Exception as error:
        raise PluginError(
            f"plugin '{entry.name}' ({owner}, {entry.value}) cannot be imported: "
            f"{type(error).__name__}: {error}",
            hint=way_out,
        ) from error
    _report_slow(entry, owner, time.process_time() - begun)
    _check_api(entry, module, owner, way_out)
    _check_hooks(manager, entry, module, owner)
    try:
        manager.register(module, name=entry.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(
            f"plugin '{entry.name}' ({owner}, {entry.value}) does not fit: {error}", hint=way_out
        ) from error


def _report_slow(entry: EntryPoint, owner: str, seconds: float) -> None:
    """Report a plugin whose import delays every command."""
    if seconds > SLOW:
        log.warning(
            "importing the plugin '%s' (%s) took %.1f s, and every command waits for it: let its "
            "parts be imported when they are built (load), or run with --disable-plugin %s",
            entry.name,
            owner,
            seconds,
            entry.name,
        )


def _check_api(entry: EntryPoint, module: object, owner: str, way_out: str) -> None:
    """Raise if a plugin says that it is written for another version of the interface."""
    api = getattr(module, "api", API)
    if type(api) is not int or api != API:
        raise PluginError(
            f"plugin '{entry.name}' ({owner}, {entry.value}) is written for version {api!r} of the "
            f"plugin interface (api), and this selectmoe has version {API}",
            hint=way_out,
        )


def _check_hooks(
    manager: pluggy.PluginManager, entry: EntryPoint, module: object, owner: str
) -> None:
    """Report a hook that does not exist, before pluggy does so in its own words."""
    known = [name for name in dir(hookspecs) if name.startswith(PREFIX)]
    for name in dir(module):
        implements = manager.parse_hookimpl_opts(module, name) is not None
        if implements and name not in known:
            raise PluginError(
                f"plugin '{entry.name}' ({owner}, {entry.value}) implements the hook '{name}', "
                "which does not exist",
                hint=f"{suggest(name, known, otherwise='hooks')}; "
                f"or run with --disable-plugin {entry.name}",
            )


def named(plugin: str) -> str:
    """Return a plugin's name with the distribution it came from, if that is known."""
    owners = {entry.name: _owner(entry) for entry in find_plugins()}
    return f"'{plugin}' ({owners[plugin]})" if plugin in owners else f"'{plugin}'"


def _owner(entry: EntryPoint) -> str:
    return _named(entry.dist) if entry.dist else "an unknown distribution"


@lru_cache(maxsize=64)
def _named(distribution: Distribution) -> str:
    # Each look at ``metadata`` reads its file anew; all entries of a distribution share the object.
    metadata = distribution.metadata
    return f"{metadata['Name']} {metadata['Version']}"
