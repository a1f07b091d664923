"""New plugins from templates: a package with a component, its test, docs and CI."""

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import jinja2

from selectmoe_core.errors import RecipeError
from selectmoe_core.plugin.component import KINDS, Kind
from selectmoe_core.plugin.manager import find_plugins
from selectmoe_core.plugin.specs import API

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""As of every component, except that the name of a package cannot begin with a digit."""
LONGEST = 60
COMMON = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "ci.yml": ".github/workflows/test.yml",
    "gitignore": ".gitignore",
    "init.py": "{package}/__init__.py",
}
"""The templates of every plugin, and the files that they become."""
OF_KIND = {
    "plugin.py": "{package}/plugin.py",
    "config.py": "{package}/config.py",
    "part.py": "{package}/{kind}.py",
    "test.py": "tests/test_{module}.py",
}
"""The templates of a kind, and the files that they become."""
TABLES = {Kind.FILTER: "filter.mine", Kind.TRAINER: "train", Kind.EVALUATOR: "evaluate"}
"""The recipe's table of a component, where it is not that of the first stage of its kind."""


def write_plugin(kind: Kind, name: str, folder: Path) -> list[Path]:
    """Write the package of a new plugin, and return its files relative to the folder.

    Args:
        kind: the kind of its component.
        name: the component's name: lower-case words joined by dashes.
        folder: a folder that does not exist yet.

    Raises:
        RecipeError: the name cannot be used, or the folder exists.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        what = f"'{name[:LONGEST]}' cannot be the name of a {kind}"
        hint = f"use at most {LONGEST} letters: lower-case words joined by dashes, as my-{kind}"
        raise RecipeError(what, hint=hint)
    if name in {entry.name for entry in find_plugins()}:
        hint = "choose another name; `selectmoe plugins` lists those in use"
        raise RecipeError(f"a plugin named '{name}' is installed already", hint=hint)
    if folder.exists():
        raise RecipeError(f"{folder} already exists", hint="name another place with --folder")
    written = []
    for path, text in plugin_files(kind, name):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
        written.append(path)
    return written


def plugin_files(kind: Kind, name: str) -> Iterator[tuple[Path, str]]:
    """Yield the files of a new plugin, each with its text."""
    module = name.replace("-", "_")
    names = {
        "kind": str(kind),
        "article": "an" if kind[0] in "ae" else "a",
        "name": name,
        "Name": "".join(word.capitalize() for word in name.split("-")),
        "module": module,
        "package": f"selectmoe_{module}",
        "distribution": f"selectmoe-{name}",
        "table": _table(kind, name),
        "api": API,
    }
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    for folder, templates in (("common", COMMON), (str(kind), OF_KIND)):
        for template, path in templates.items():
            text = (_templates() / folder / f"{template}.jinja").read_text(encoding="utf-8")
            yield Path(path.format(**names)), environment.from_string(text).render(names)


def _table(kind: Kind, name: str) -> str:
    """Return the table of a recipe that names a component of a kind."""
    if kind is Kind.TRACKER:
        return f"trackers.{name}"
    if kind is Kind.EXECUTOR:
        return "executor"
    return TABLES.get(kind) or next(stage for stage, own in KINDS.items() if own is kind)


def _templates() -> Traversable:
    return files("selectmoe_core.new_plugin") / "templates"
