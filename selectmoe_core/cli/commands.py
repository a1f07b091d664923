"""The list of commands: the core's own, and those that plugins add."""

from collections.abc import Collection, Mapping

import click

from selectmoe_core.errors import PluginError
from selectmoe_core.plugin.command import Command
from selectmoe_core.plugin.manager import find_plugins, load_plugins, named
from selectmoe_core.plugin.registry import OfferedCommand, Registry

_LINES = {
    "run": "Run a recipe; finished stages are reused.",
    "plan": "Check a recipe and show what it will do and cost.",
    "worker": "Help a run: make shards of a stage, beside other workers, until all are made.",
    "compare": "Compare strategies with random selections, over several seeds.",
    "audit": "Plant damage into a sample of the pool and see which scores notice.",
    "list": "List the components that plugins offer.",
    "describe": "Show what a component does and its options.",
    "plugins": "List the installed plugins.",
    "recipes": "List, copy or describe the shipped recipes.",
    "runs": "List past runs: what differed and what came out.",
    "report": "Write the report of a run again.",
    "export": "Write the selection of a run in the format of a trainer.",
    "materialize": "Make the rows of a portable selection again from your own data.",
    "diff": "Compare the selections of two runs: common rows, sources, lengths.",
    "explain": "Say why a row of the pool was selected, or why not.",
    "new-plugin": "Write the package of a new plugin, with its test, docs and CI.",
}
_MODULES = {"list": "list_", "new-plugin": "new_plugin"}
"""Modules whose name differs from the command's."""

COMMANDS: Mapping[str, Command] = {
    name: Command(name, line, f"selectmoe_core.cli.{_MODULES.get(name, name)}:command")
    for name, line in _LINES.items()
}
"""The core's commands, in the order of the chain."""


def left_out(context: click.Context) -> tuple[str, ...]:
    """Return the plugins that the command line disables."""
    names: tuple[str, ...] = context.find_root().obj or ()
    return names


def plugin_commands(disabled: Collection[str]) -> Mapping[str, OfferedCommand]:
    """Return the commands that installed plugins offer, by name.

    Raises:
        PluginError: see ``load_plugins`` and ``checked``.
    """
    return checked(Registry(load_plugins(disabled)))


def checked(registry: Registry) -> Mapping[str, OfferedCommand]:
    """Return the commands of a registry's plugins.

    Raises:
        PluginError: two plugins offer a command of one name, or a plugin offers one of the core's.
    """
    for name, offered in registry.commands.items():
        if name in COMMANDS:
            raise PluginError(
                f"the plugin {named(offered.plugin)} offers a command '{name}', which is one of "
                "selectmoe's own",
                hint=f"rename the plugin's command, or run with --disable-plugin {offered.plugin}",
            )
    return registry.commands


def loaded(offered: OfferedCommand) -> click.Command:
    """Import a plugin's command.

    Raises:
        PluginError: its module cannot be imported, or holds no such command.
    """
    try:
        return offered.command.load()
    except Exception as error:
        raise PluginError(
            f"the command '{offered.command.name}' of the plugin {named(offered.plugin)} cannot be "
            f"loaded from {offered.command.target}: {type(error).__name__}: {error}",
            hint=f"upgrade or fix the plugin, or run with --disable-plugin {offered.plugin}",
        ) from error


def owner_among(disabled: Collection[str], name: str) -> str | None:
    """Return which of the disabled plugins offers a command."""
    installed = {entry.name for entry in find_plugins()}
    for plugin in disabled:
        try:
            offered = Registry(load_plugins(installed - {plugin})).commands
        except PluginError:  # perhaps the reason why it is disabled
            continue
        if name in offered:
            return plugin
    return None
