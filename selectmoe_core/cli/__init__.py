"""The command ``selectmoe``: thin commands, one module each, imported when they are called."""

import importlib
import sys
import traceback
from contextlib import suppress
from typing import Any

import click

from selectmoe_core.errors import SelectMoEError, of_disk
from selectmoe_core.runtime.processes import Ended, ended_by_signals

COMMANDS = {
    "run": "run",
    "plan": "plan",
    "audit": "audit",
    "convert": "convert",
    "verify": "verify",
    "list": "list_",
    "describe": "describe",
    "plugins": "plugins",
    "recipes": "recipes",
    "report": "report",
}
"""Commands and the modules they live in."""

INTERRUPTED = 130


class LazyGroup(click.Group):
    """Imports a command's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in the order of the chain."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or fail with the closest name."""
        if cmd_name not in COMMANDS:
            from selectmoe_core.config import suggest

            hint = suggest(cmd_name, COMMANDS, otherwise="commands")
            ctx.fail(f"there is no command '{cmd_name}'. Hint: {hint}")
        module = importlib.import_module(f"selectmoe_core.cli.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with one line each, without importing what they need."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, HELP[name]) for name in self.list_commands(ctx)])


HELP = {
    "run": "Carry out a recipe; what is done already is reused.",
    "plan": "Check a recipe and show what it will do and cost.",
    "audit": "Plant damage into a sample of the pool and see which scores notice.",
    "convert": "Turn a mixture-of-experts model into a selector model.",
    "verify": "Compare a selector model with its original.",
    "list": "List the components that plugins offer.",
    "describe": "Show what a component does and its options.",
    "plugins": "List the installed plugins.",
    "recipes": "List, copy or describe the shipped recipes.",
    "report": "Write the report of a run again.",
}
"""What ``--help`` says of each command; a test holds it equal to the command's own help."""


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="selectmoe")
@click.option(
    "--disable-plugin",
    "disabled",
    multiple=True,
    metavar="NAME",
    help="Leave a plugin out; can be given several times.",
)
@click.pass_context
def cli(context: click.Context, disabled: tuple[str, ...]) -> None:
    """Choose the instruction data worth training on, train on it, and see whether it helped."""
    context.obj = disabled


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a stage failed, 2 wrong input, 3 a broken plugin.

    130 (Ctrl-C), 143 (SIGTERM) and 129 (SIGHUP) say that it was interrupted.
    """
    with ended_by_signals():
        code = call(sys.argv[1:] if arguments is None else arguments)
    sys.exit(code)


def call(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    try:
        result: Any = cli.main(args=arguments, prog_name="selectmoe", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        with suppress(OSError):  # the terminal may have gone
            click.echo("\nInterrupted: finished work is kept, run again to go on.", err=True)
        signalled = error.__cause__ or error  # click turns what interrupts it into its Abort
        return signalled.exit_code if isinstance(signalled, Ended) else INTERRUPTED
    except SelectMoEError as error:
        show(error)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read stdout has gone, as with `| head`.
        sys.stderr.close()
        return 0
    except Exception as error:
        return _unforeseen(error)
    return result if isinstance(result, int) else 0


def _unforeseen(error: Exception) -> int:
    """Print a bug with its traceback, and what the disk refused without."""
    if told := of_disk(error, "a file cannot be written or read"):
        show(told)
        return told.exit_code
    traceback.print_exc()
    click.echo("\nThis is a bug of selectmoe or of a plugin; please report it.", err=True)
    return 1


def show(error: SelectMoEError) -> None:
    """Print what is wrong and what to do, mistake by mistake."""
    for problem in error.problems:
        click.echo(f"Error: {problem}", err=True)
        if problem.hint:
            click.echo(f"Hint: {problem.hint}", err=True)
