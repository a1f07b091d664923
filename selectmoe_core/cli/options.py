"""Options and arguments that several commands share."""

import os
import shlex
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from selectmoe_core.cli.commands import checked, left_out
from selectmoe_core.config import real_path
from selectmoe_core.paths import is_address
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from selectmoe_core.runner.external_launch import Team
    from selectmoe_core.runner.options import RunOptions


class FolderPath(click.Path):
    """A folder; empty text, which an unset shell variable gives, is an error."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Return the path of the folder."""
        if isinstance(value, str) and not value.strip():
            self.fail("the path is empty; the working folder is '.'", param, ctx)
        if isinstance(value, str) and is_address(value):
            from selectmoe_core.remote.cache import local_outputs

            return local_outputs(value)
        return super().convert(value, param, ctx)


def local_run(text: str) -> str:
    """Return the folder of a run that was fetched, where a text is its address, or the text."""
    if not is_address(text):
        return text
    from selectmoe_core.remote.cache import fetch_run

    return str(fetch_run(text))


class RunFolder(click.Path):
    """The folder of a run; one on an object store is fetched, with what commands read of it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Return the path of the folder."""
        if isinstance(value, str):
            value = local_run(value)
        return super().convert(value, param, ctx)


FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def recipe_names(_: click.Context, __: click.Parameter, incomplete: str) -> list["CompletionItem"]:
    """Complete the name of a shipped recipe, or the path of a file."""
    from click.shell_completion import CompletionItem

    names = [name for name in shipped() if name.startswith(incomplete)]
    inside = not incomplete or incomplete.endswith("/")
    folder = Path(incomplete) if inside else Path(incomplete).parent
    own = [str(path) for path in sorted(folder.glob("*.toml")) if str(path).startswith(incomplete)]
    # First the shell's own files: bash offers them only where nothing else fits.
    return [CompletionItem(incomplete, type="file"), *map(CompletionItem, [*names, *own])]


recipe_argument = click.argument(
    "recipe", type=click.Path(path_type=Path), shell_complete=recipe_names
)
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
outputs_option = click.option(
    "--outputs",
    default="outputs",
    show_default=True,
    type=FolderPath(file_okay=False, path_type=Path),
    help="Folder for all artifacts, runs and reports, or an address such as s3://bucket/prefix.",
)
until_option = click.option("--until", metavar="STAGE", help="Stop after this stage.")
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda",
    help="Device to compute on; auto uses a GPU if there is one.",
)
dtype_option = click.option(
    "--dtype",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    help="Data type to compute in; auto means bfloat16 on a GPU and float32 on the CPU.",
)
threads_option = click.option(
    "--threads",
    default=0,
    type=click.IntRange(min=0),
    help="Number of threads on the CPU; 0 means one per core.",
)

quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print only the result and errors.")
verbose_option = click.option("--verbose", "-v", is_flag=True, help="Show what the libraries log.")
arm_option = click.option(
    "--arm",
    default="selected",
    show_default=True,
    help="Whose selection: the recipe's own, or that of a baseline, as random.",
)


EXECUTION = (
    outputs_option,
    device_option,
    dtype_option,
    threads_option,
    click.option(
        "--parallel",
        default=1,
        show_default=True,
        type=click.IntRange(min=1),
        metavar="N",
        help="Number of independent stages to execute at the same time, spread over the GPUs.",
    ),
    click.option(
        "--num-processes",
        type=click.IntRange(min=1),
        help="Number of processes for warmup, score, train and evaluate; one per GPU by default.",
    ),
    click.option(
        "--accelerate-config",
        "accelerate_configs",
        multiple=True,
        metavar="[STAGE=]FILE",
        help="Configuration file of accelerate, for example for FSDP; for one stage or for all.",
    ),
    click.option(
        "--executor",
        metavar="NAME",
        help="Executor that runs the processes of stages, as ray; by default this host.",
    ),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        help="With --executor ray: the cluster, as auto or HOST:6379.",
    ),
    quiet_option,
    verbose_option,
)
"""The options that say how a plan is executed."""


@dataclass(frozen=True)
class Execution:
    """How a plan is executed, as the command line says.

    Attributes:
        outputs: the folder of all outputs.
        device: the device to compute on.
        dtype: the data type to compute in.
        threads: threads on the CPU.
        quiet: print only the result and errors.
        verbose: show what the libraries log.
        parallel: stages at the same time.
        num_processes: processes of a stage, where it was given.
        accelerate_configs: configuration files of accelerate.
        executor: the executor's name, where it was given.
        ray_address: the address of a Ray cluster, where it was given.
    """

    outputs: Path
    device: str
    dtype: str
    threads: int
    quiet: bool
    verbose: bool
    parallel: int = 1
    num_processes: int | None = None
    accelerate_configs: tuple[str, ...] = ()
    executor: str | None = None
    ray_address: str | None = None

    def options(self, context: click.Context, team: "Team | None" = None) -> "RunOptions":
        """Return the options of a run; ``team`` are the processes of another launcher."""
        from selectmoe_core.runner.launch import launch_of
        from selectmoe_core.runner.options import RunOptions

        return RunOptions(
            outputs=real_path(self.outputs),
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            launch=launch_of(self.num_processes, self.accelerate_configs, team),
            parallel=self.parallel,
            progress="none" if self.quiet else "auto",
            verbose=self.verbose,
            disabled=context.find_root().obj or (),
            command=command_line(sys.argv[1:]),
        )

    def changes(self, overrides: tuple[str, ...]) -> tuple[str, ...]:
        """Return changes of a recipe, and those that choose the executor."""
        chosen = {"executor.use": self.executor, "executor.address": self.ray_address}
        further = [f"{key}={value}" for key, value in chosen.items() if value is not None]
        return (*overrides, *further)

    def say(self, text: str) -> None:
        """Print progress, unless only the result is wanted."""
        if not self.quiet:
            click.echo(fitting(text), err=True)


def execution_options(function: FunctionT) -> FunctionT:
    """Give a command the options of an execution, as its argument ``execution``."""
    names = [field.name for field in fields(Execution)]

    @wraps(function)
    def command(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        execution = Execution(**{name: options.pop(name) for name in names})
        return function(*arguments, execution=execution, **options)

    for option in reversed(EXECUTION):
        command = option(command)
    return cast("FunctionT", command)


def run_argument(name: str) -> Callable[[FunctionT], FunctionT]:
    """Return an argument that names the folder of a run."""
    return click.argument(name, type=RunFolder(exists=True, file_okay=False, path_type=Path))


def registry(context: click.Context) -> Registry:
    """Load the plugins that the command line does not disable."""
    found = Registry(load_plugins(left_out(context)))
    checked(found)
    return found


def shipped_recipes() -> Path:
    """Return the folder of the shipped recipes: in the package, or in the checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def shipped() -> dict[str, Path]:
    """Return the shipped recipes by the name that runs them; those of single steps come last."""
    folder = shipped_recipes()
    found: dict[str, Path] = {}
    for pattern in ("*.toml", "steps/*.toml"):
        names = {
            file.relative_to(folder).with_suffix("").as_posix(): file
            for file in folder.glob(pattern)
        }
        found |= dict(sorted(names.items()))
    return found


def command_line(arguments: list[str]) -> str:
    """Return the command line as a user would type it."""
    return " ".join(["selectmoe", *map(shlex.quote, arguments)])


def load_recipe(path: Path, overrides: tuple[str, ...]) -> Recipe:
    """Read a recipe by path or by the name of a shipped one."""
    return read_recipe(path, overrides, shipped_recipes())


def shown(path: Path) -> Path:
    """Return a path as it is shown: from the working folder, where it is inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def width() -> int:
    """Return the width to print for: the terminal's, or 100 columns elsewhere."""
    if "COLUMNS" in os.environ or sys.stdout.isatty():
        import shutil

        return shutil.get_terminal_size().columns
    return 100


def fitting(text: str) -> str:
    """Return a line for stderr: on a terminal it is wrapped, and no word of it is broken.

    A line that begins with spaces is a command to copy, or wrapped already.
    """
    if not sys.stderr.isatty() or text.startswith("  "):
        return text
    import shutil

    columns = shutil.get_terminal_size().columns
    return textwrap.fill(
        text,
        max(LEAST, columns),
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


LEAST = 30
"""Columns that a summary needs beside the names; on a narrower terminal it goes below them."""


def wrapped(start: str, summary: str) -> str:
    """Return a name and its summary, which is wrapped under itself; no word is broken."""
    if not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        return f"{start}  {summary}"
    beside = width() - len(start) - 2
    fits = beside >= max(LEAST, *map(len, ("", *summary.split())))
    indent = " " * (len(start) + 2 if fits else 4)
    lines = textwrap.wrap(
        summary,
        max(LEAST, width() - len(indent)),
        break_long_words=False,
        break_on_hyphens=False,
    )
    first = [f"{start}  {lines.pop(0)}"] if fits and lines else [start.rstrip()]
    return "\n".join([*first, *(indent + line for line in lines)])
