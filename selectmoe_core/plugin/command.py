"""The description of a command that a plugin adds to ``selectmoe``."""

import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""The names of commands and components: lower-case words joined by dashes."""


@dataclass(frozen=True)
class Command:
    """A command of the command line, imported when it is called.

    Attributes:
        name: what a user types after ``selectmoe``: lower-case words joined by dashes.
        help: one line for the list of commands; the first line of the command's own help.
        target: where the click command is, as ``package.module:name``.
    """

    name: str
    help: str
    target: str

    def load(self) -> "click.Command":
        """Import and return the click command.

        Raises:
            TypeError: the target is not a click command.
        """
        import click

        module, _, attribute = self.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, click.Command):
            raise TypeError(f"{self.target} is {found!r}, not a click command")
        return found
