"""``selectmoe new-plugin``: what it writes builds, installs and passes its own tests."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import LEFT_OUT

from selectmoe_core.cli import call
from selectmoe_core.new_plugin import plugin_files
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.manager import find_plugins

KINDS = list(Kind)


@dataclass(frozen=True)
class Made:
    """A plugin of each kind: all written, built and installed, and the tests of all of them run.

    Attributes:
        projects: the folder of each one.
        said: what ``selectmoe new-plugin`` wrote to stdout and stderr.
        tested: what the tests came to, by name.
        output: what pytest said.
        described: what ``selectmoe describe`` left: its exit code and what it wrote to stdout.
    """

    projects: dict[Kind, Path]
    said: dict[Kind, tuple[str, str]]
    tested: dict[Kind, list[str]]
    output: str
    described: dict[Kind, tuple[int, str]]


def write(kind: Kind, project: Path) -> tuple[str, str]:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = call([*LEFT_OUT, "new-plugin", str(kind), f"my-{kind}", "--folder", str(project)])
    assert code == 0, err.getvalue()
    return out.getvalue(), err.getvalue()


DESCRIBE = """
import contextlib, io, json, sys
from selectmoe_core.cli import call
found = {}
for kind in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = call(["describe", kind, f"my-{kind}"])
    found[kind] = code, out.getvalue()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("plugins")
    site, results = folder / "site", folder / "results.xml"
    projects = {kind: folder / f"selectmoe-my-{kind}" for kind in KINDS}
    said = {kind: write(kind, project) for kind, project in projects.items()}
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, command)],
            env=os.environ | {"PYTHONPATH": path},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )

    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    installed = run(
        *("-m", "pip", "install", "--quiet", *offline, "--target", site, *projects.values())
    )
    assert installed.returncode == 0, installed.stderr
    options = ("-q", "-p", "no:cacheprovider", "--junit-xml", results)
    tests = run("-m", "pytest", *options, *(project / "tests" for project in projects.values()))
    tested: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
    for case in ElementTree.parse(results).iter("testcase"):
        (kind,) = (kind for kind in KINDS if case.get("classname", "").endswith(f"my_{kind}"))
        tested[kind].append(", ".join(child.tag for child in case) or "passed")
    described = json.loads(run("-c", DESCRIBE, *KINDS).stdout)
    return Made(
        projects,
        said,
        tested,
        tests.stdout + tests.stderr,
        {Kind(kind): (code, text) for kind, (code, text) in described.items()},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_plugin_whose_files_are_sound(kind: Kind) -> None:
    files = dict(plugin_files(kind, f"my-{kind}"))
    package = f"selectmoe_my_{kind}"
    assert set(map(str, files)) >= {
        f"{package}/plugin.py",
        f"{package}/config.py",
        f"{package}/{kind}.py",
        f"tests/test_my_{kind}.py",
    }
    for path, text in files.items():
        assert "{{" not in text.replace("${{", "")
        assert "{%" not in text
        assert all(len(line) <= 100 for line in text.splitlines() if path.suffix == ".py"), path
        if path.suffix == ".py":
            assert ast.get_docstring(ast.parse(text)) or path.name.startswith("test_"), path
    project = tomllib.loads(files[Path("pyproject.toml")])
    assert project["project"]["entry-points"]["selectmoe"] == {f"my-{kind}": f"{package}.plugin"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_command_names_what_it_writes_and_what_is_next(made: Made, kind: Kind) -> None:
    project, (out, err) = made.projects[kind], made.said[kind]
    assert f"pip install -e '{project}[test]'" in err
    names = {Path(line).relative_to(project).as_posix() for line in out.splitlines()}
    assert names == {
        path.relative_to(project).as_posix()
        for path in project.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names >= {"pyproject.toml", "README.md", ".github/workflows/test.yml", ".gitignore"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_builds_installs_and_passes_its_test(made: Made, kind: Kind) -> None:
    assert made.tested[kind], made.output
    assert set(made.tested[kind]) == {"passed"}, made.output
    code, described = made.described[kind]
    assert code == 0
    assert described.startswith(f"my-{kind}: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My-Scorer", "cannot be the name of a scorer"),
        ("../up", "cannot be the name of a scorer"),
        ("a--b", "cannot be the name of a scorer"),
        ("9lives", "cannot be the name of a scorer"),
        (
            "my_scorer",
            "Hint: use at most 60 letters: lower-case words joined by dashes",
        ),
        ("a" * 61, "at most 60 letters"),
        ("basic", "a plugin named 'basic' is installed already"),
    ],
)
def test_a_name_that_cannot_be_used_is_an_error(cli, name, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("new-plugin", "scorer", name)
    assert said.code == 2
    assert message in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(cli, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "selectmoe-mine").mkdir()
    said = cli("new-plugin", "scorer", "mine")
    assert said.code == 2
    assert "selectmoe-mine already exists" in said.err


def test_no_template_has_the_name_of_a_plugin_of_ours() -> None:
    assert not {entry.name for entry in find_plugins()} & {f"my-{kind}" for kind in KINDS}
