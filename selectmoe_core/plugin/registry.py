"""Names to components, for one plugin manager."""

import importlib.util
import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pluggy

from selectmoe_core.config import Config, suggest
from selectmoe_core.data.corruption import Damage
from selectmoe_core.errors import PluginError, RecipeError
from selectmoe_core.models.models import Models
from selectmoe_core.plugin.command import NAME, Command
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.component_check import component_problems
from selectmoe_core.plugin.guard import Guarded, build, check_answers
from selectmoe_core.plugin.manager import named


@dataclass(frozen=True)
class Entry:
    """A component and the plugin it came from."""

    kind: Kind
    component: Component[Any, Any]
    plugin: str

    def build(self, config: Config, *, where: str) -> Guarded:
        """Build the part; an error in it names the component and the plugin."""
        return build(self.component, config, self.plugin, self.kind, where=where)

    def check_answers(self, config: Config, *, where: str) -> None:
        """Call the component's functions, and raise if the core cannot use what they return."""
        check_answers(self.component, config, self.plugin, where=where)


@dataclass(frozen=True)
class OfferedCommand:
    """A command and the plugin it came from."""

    command: Command
    plugin: str


class Registry:
    """Everything that the plugins of one manager offer."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self.manager = manager
        self._entries: dict[tuple[Kind, str], Entry] = {}
        for kind in Kind:
            for plugin, offered in _offers(manager, kind.hook):
                for component in offered:
                    if not isinstance(component, Component):
                        raise _wrong(
                            plugin, f"{kind.hook} offers {component!r}, which is not a Component"
                        )
                    if problems := list(component_problems(component)):
                        name = component.name
                        raise _wrong(plugin, f"the {kind} {name!r} is wrong: {'; '.join(problems)}")
                    self._add(Entry(kind, component, plugin))

    def __iter__(self) -> Iterator[Entry]:
        order = list(Kind)
        return iter(
            sorted(self._entries.values(), key=lambda e: (order.index(e.kind), e.component.name))
        )

    def get(self, kind: Kind, name: str, *, where: str) -> Entry:
        """Return the component, or raise an error with the known names or the missing package."""
        entry = self.find(kind, name, where=where)
        for required in entry.component.requires:
            module, _, distribution = required.partition(":")
            if importlib.util.find_spec(module.partition(".")[0]) is None:
                raise RecipeError(
                    f"{where}: {name} needs the package '{module}', which is not installed",
                    hint=f"pip install {shlex.quote(distribution or module)}",
                )
        return entry

    def find(self, kind: Kind, name: str, *, where: str) -> Entry:
        """Return the component, whether its packages are installed or not.

        Raises:
            RecipeError: there is none of that name; the hint has the known names.
        """
        entry = self._entries.get((kind, name))
        if entry is None:
            known = [known for of_kind, known in self._entries if of_kind is kind]
            raise RecipeError(
                f"{where}: there is no {kind} named '{name}'",
                hint=suggest(name, known, otherwise=f"the {kind}s"),
            )
        return entry

    def readers_of(self, names: Iterable[str]) -> list[str]:
        """Return the readers whose files end as these names do, the first name's first."""
        readers = [entry.component for entry in self if entry.kind is Kind.READER]
        found = (
            reader.name
            for name in names
            for reader in readers
            if name.lower().endswith(tuple(reader.endings))
        )
        return list(dict.fromkeys(found))

    @cached_property
    def models(self) -> Models:
        """The loader of all models that a recipe may name."""
        return Models(
            bundled=self._merged("selectmoe_bundled_models"),
            model_types=self._merged("selectmoe_model_types"),
        )

    @cached_property
    def commands(self) -> Mapping[str, OfferedCommand]:
        """Commands that plugins add to the command line, by name."""
        found: dict[str, OfferedCommand] = {}
        for plugin, offered in _offers(self.manager, "selectmoe_commands"):
            for command in offered:
                if not (isinstance(command, Command) and NAME.fullmatch(command.name)):
                    raise PluginError(
                        f"plugin '{plugin}': selectmoe_commands offers {command!r}, which is not a "
                        "Command with a name of lower-case words joined by dashes",
                        hint=f"fix the plugin, or run with --disable-plugin {plugin}",
                    )
                if command.name in found:
                    raise _clash("command", command.name, found[command.name].plugin, plugin)
                found[command.name] = OfferedCommand(command, plugin)
        return found

    @cached_property
    def bundled_tasks(self) -> Mapping[str, Path]:
        """Folders of evaluation tasks that plugins ship, by name."""
        return self._merged("selectmoe_bundled_tasks")

    @cached_property
    def damages(self) -> Mapping[str, Damage]:
        """Kinds of damage that plugins offer, by name."""
        return {name: damage for name, (damage, _) in sorted(self._damages.items())}

    @property
    def damage_plugins(self) -> Mapping[str, str]:
        """The plugin that each kind of damage comes from, by the kind's name."""
        return {name: plugin for name, (_, plugin) in sorted(self._damages.items())}

    @cached_property
    def _damages(self) -> dict[str, tuple[Damage, str]]:
        found: dict[str, tuple[Damage, str]] = {}
        for plugin, offered in _offers(self.manager, "selectmoe_damages"):
            for damage in offered:
                if not isinstance(damage, Damage):
                    raise PluginError(
                        f"plugin '{plugin}': selectmoe_damages offers {damage!r}, not a Damage",
                        hint=f"fix the plugin, or run with --disable-plugin {plugin}",
                    )
                if not 0 <= damage.rate < math.inf:
                    raise PluginError(
                        f"plugin '{plugin}': the damage '{damage.name}' has the rate {damage.rate}",
                        hint="a rate must be 0 or more: fix the plugin, or run with "
                        f"--disable-plugin {plugin}",
                    )
                if damage.name in found:
                    raise _clash("damage", damage.name, found[damage.name][1], plugin)
                found[damage.name] = damage, plugin
        return found

    def _merged(self, hook: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        owners: dict[str, str] = {}
        for plugin, offered in _offers(self.manager, hook):
            if not isinstance(offered, Mapping):
                raise _wrong(plugin, f"{hook} must return names and values, got {offered!r}")
            for name, value in offered.items():
                if not isinstance(name, str) or not (isinstance(value, Path) or callable(value)):
                    wanted = "a name with a folder's Path, or with a function"
                    raise _wrong(plugin, f"{hook} offers {name!r}: {value!r}; expected {wanted}")
                if name in merged:
                    raise _clash(hook, name, owners[name], plugin)
                merged[name], owners[name] = value, plugin
        return merged

    def _add(self, entry: Entry) -> None:
        key = entry.kind, entry.component.name
        if other := self._entries.get(key):
            raise _clash(str(entry.kind), key[1], other.plugin, entry.plugin)
        self._entries[key] = entry


def _clash(what: str, name: str, one: str, other: str) -> PluginError:
    if one == other:
        return PluginError(
            f"the {what} '{name}' is offered twice by the plugin {named(one)}",
            hint=f"fix the plugin, or run with --disable-plugin {one}",
        )
    return PluginError(
        f"the {what} '{name}' is offered by two plugins: {named(one)} and {named(other)}",
        hint=f"run with --disable-plugin {other} (or {one})",
    )


def _wrong(plugin: str, what: str) -> PluginError:
    return PluginError(
        f"plugin {named(plugin)}: {what}",
        hint=f"fix the plugin, or run with --disable-plugin {plugin}",
    )


def _offers(manager: pluggy.PluginManager, hook: str) -> Iterator[tuple[str, Any]]:
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        function: Callable[[], Any] = implementation.function
        plugin = implementation.plugin_name
        try:
            offered = function()
            if isinstance(offered, Iterable) and not isinstance(offered, Mapping):
                offered = list(offered)
        except PluginError:
            raise
        except Exception as error:
            what = f"{hook} failed: {type(error).__name__}: {error}"
            raise _wrong(plugin, what) from error
        if not isinstance(offered, Iterable):
            raise _wrong(plugin, f"{hook} must return a list of what it offers, got {offered!r}")
        yield plugin, offered
