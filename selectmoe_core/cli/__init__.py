"""The command ``selectmoe``: thin commands, one module each, imported when they are called."""

import errno
import os
import re
import select
import sys
import traceback
from contextlib import suppress
from typing import Any

import click

from selectmoe_core.cli.commands import COMMANDS, left_out, loaded, owner_among, plugin_commands
from selectmoe_core.config import suggest
from selectmoe_core.errors import PluginError, RecipeError, SelectMoEError, of_machine
from selectmoe_core.runtime.processes import Ended, ended_by_signals, not_swallowed
from selectmoe_core.runtime.terminal import safe_streams

INTERRUPTED = 130
DISABLE = "--disable-plugin"
STDOUT = 1
"""Its file descriptor."""
LONG_WORD = re.compile(r"\S{500,}")
"""What nobody reads to its end; the longest paths in use are shorter."""
LONGEST = 1000
"""The most characters of a message, so that a value of thousands does not hide what is wrong."""
UTF8 = "SELECTMOE_UTF8"
"""The variable that says that Python was started again in its UTF-8 mode."""


class LazyGroup(click.Group):
    """Imports a command's module when it is asked for; plugins may add commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options that say which plugins are left out, wherever they stand."""
        return super().parse_args(ctx, _first(args))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the core's commands in the order of the chain, then those of plugins."""
        return [*COMMANDS, *sorted(plugin_commands(left_out(ctx)))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or fail with the closest name."""
        if cmd_name in COMMANDS:
            return COMMANDS[cmd_name].load()
        offered = plugin_commands(left_out(ctx))
        if cmd_name in offered:
            return loaded(offered[cmd_name])
        raise _unknown(ctx, cmd_name, [*COMMANDS, *offered])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with one line each, without importing what they need."""
        rows = [(name, command.help) for name, command in COMMANDS.items()]
        problem: SelectMoEError | None = None
        try:
            offered = plugin_commands(left_out(ctx))
            rows += [(name, offered[name].command.help) for name in sorted(offered)]
        except PluginError as error:  # the help must work even if a plugin is broken
            problem = error
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        if problem is not None:
            with formatter.section("Commands of plugins cannot be listed"):
                formatter.write_text(f"{problem}. Hint: {problem.hint}")


def _first(arguments: list[str]) -> list[str]:
    """Return the arguments with each ``--disable-plugin NAME`` before the command."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    moved: list[str] = []
    kept: list[str] = []
    rest = iter(arguments[:end])
    for argument in rest:
        if argument == DISABLE:
            name = next(rest, None)
            if name is None:
                raise click.BadOptionUsage(DISABLE, f"Option '{DISABLE}' requires an argument.")
            moved += [argument, name]
        else:
            (moved if argument.startswith(f"{DISABLE}=") else kept).append(argument)
    return [*moved, *kept, *arguments[end:]]


def _unknown(ctx: click.Context, name: str, known: list[str]) -> click.UsageError:
    owner = owner_among(left_out(ctx), name)
    if owner is not None:
        what = f"the command '{name}' belongs to the plugin '{owner}', which is disabled"
        return click.UsageError(f"{what}. Hint: run without --disable-plugin {owner}", ctx)
    hint = suggest(name, known, otherwise="commands")
    return click.UsageError(f"there is no command '{name}'. Hint: {hint}", ctx)


def _leave_out(ctx: click.Context, _: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Keep the names before anything else is parsed: help and commands depend on them."""
    ctx.obj = names
    return names


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="selectmoe")
@click.option(
    DISABLE,
    multiple=True,
    metavar="NAME",
    is_eager=True,
    expose_value=False,
    callback=_leave_out,
    help="Do not load this plugin; can be given several times.",
)
def cli() -> None:
    """Choose the instruction data worth training on, train on it, and see whether it helped."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a stage failed, 2 wrong input, 3 a broken plugin.

    130 (Ctrl-C), 143 (SIGTERM), 129 (SIGHUP) and 141 (nobody reads its messages any more, as with
    ``2>&1 | head``) mean that it was interrupted.
    """
    if arguments is None and sys.getfilesystemencoding() == "ascii" and UTF8 not in os.environ:
        # An ASCII locale: other letters in names could be neither printed nor recorded.
        os.environ |= {UTF8: "1", "PYTHONUTF8": "1"}
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    with ended_by_signals():
        code = call(sys.argv[1:] if arguments is None else arguments)
    sys.exit(code)


def call(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    with safe_streams():
        code = _call(arguments)
        with suppress(BrokenPipeError):
            sys.stdout.flush()
    if _reader_is_gone():
        # What is left in the buffer has nowhere to go; the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    return code


def _reader_is_gone() -> bool:
    """Return whether stdout is a pipe that nobody reads any more, as with ``| head``."""
    try:
        poll = select.poll()
        poll.register(STDOUT, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except OSError:  # closed from the beginning
        return False


def _call(arguments: list[str]) -> int:
    try:
        with not_swallowed():
            result: Any = cli.main(args=arguments, prog_name="selectmoe", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        return _interrupted(error.__cause__ or error)  # click turns what interrupts it into Abort
    except SelectMoEError as error:
        show(error)
        return error.exit_code
    except (BrokenPipeError, SystemExit):  # click turns the one into the other
        if _reader_is_gone():
            return 0
        raise
    except Exception as error:
        return _unexpected(error)
    return result if isinstance(result, int) else 0


def _interrupted(error: BaseException) -> int:
    """Print that finished work is kept; return the exit code of the signal."""
    with suppress(OSError, Ended):  # the terminal may have gone, or who reads stderr
        click.echo(
            "\nInterrupted. Finished work is kept: run the same command again to continue.",
            err=True,
        )
    return error.exit_code if isinstance(error, Ended) else INTERRUPTED


def _unexpected(error: Exception) -> int:
    """Print a bug with its traceback, and an error of the machine without one."""
    if isinstance(error.__cause__, KeyboardInterrupt):
        # Before Python 3.12 what interrupts the making of a class comes wrapped in a RuntimeError.
        return _interrupted(error.__cause__)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        # Only the recipe and the command line name files so.
        what = f"the name is too long for a file: {error.filename}"
        wrong = RecipeError(what, hint="shorten it; is it text that was meant for another option?")
        show(wrong)
        return wrong.exit_code
    if refused := of_machine(error, "the command could not go on"):
        show(refused)
        return refused.exit_code
    traceback.print_exc()
    click.echo("\nThis is a bug of selectmoe or of a plugin; please report it.", err=True)
    return 1


def show(error: SelectMoEError) -> None:
    """Print each mistake and what to do about it; the traceback of a plugin comes first."""
    if error.traceback:
        click.echo(error.traceback, err=True)
    for problem in error.problems:
        click.echo(f"Error: {_readable(str(problem))}", err=True)
        if problem.hint:
            click.echo(f"Hint: {_readable(problem.hint)}", err=True)


def _readable(text: str) -> str:
    """Return a message that a person can read: a name or value of thousands takes a few lines."""
    text = LONG_WORD.sub(lambda word: f"{word[0][:300]}... ({len(word[0]):,} characters)", text)
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST * 3 // 4]} ... ({len(text):,} characters) ... {text[-LONGEST // 8 :]}"
