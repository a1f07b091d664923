"""What the command line of a run says: the recipe, and what was changed in it."""

import shlex
from dataclasses import dataclass

WITH_VALUE = (
    *("--outputs", "--until", "--fresh", "--device", "--dtype", "--threads"),
    *("--parallel", "--num-processes", "--accelerate-config", "--executor", "--ray-address"),
    "--disable-plugin",
)
"""Options of the command line that a value follows."""


@dataclass(frozen=True)
class CommandLine:
    """A command line in parts; empty parts where it cannot be read.

    Attributes:
        recipe: the recipe as it was written.
        overrides: ``KEY=VALUE`` and ``~KEY``.
        until: the stage at which the run stopped.
    """

    recipe: str = ""
    overrides: tuple[str, ...] = ()
    until: str = ""

    @classmethod
    def read(cls, command: str) -> "CommandLine":
        """Read the record of a command line."""
        try:
            words = shlex.split(command)
        except ValueError:
            return cls()
        if "run" not in words:
            return cls()
        places: list[str] = []
        until, rest = "", iter(words[words.index("run") + 1 :])
        for word in rest:
            name, _, value = word.partition("=")
            if word in WITH_VALUE:
                value = next(rest, "")
            if name == "--until":
                until = value
            elif not word.startswith("-"):
                places.append(word)
        return cls(places[0] if places else "", tuple(places[1:]), until)
