"""``selectmoe new-plugin``: what it writes builds, installs and passes its own tests."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from environments import build

from selectmoe_core.new_plugin import plugin_files
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.manager import find_plugins

KINDS = list(Kind)


def written(cli, folder: Path, kind: Kind) -> Path:
    said = cli("new-plugin", kind, f"my-{kind}", "--folder", folder / "project")
    assert said.code == 0, said.err
    assert f"pip install -e '{folder / 'project'}[test]'" in said.err
    project = folder / "project"
    names = {Path(line).relative_to(project).as_posix() for line in said.out.splitlines()}
    assert names == {
        path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()
    }
    assert names >= {"pyproject.toml", "README.md", ".github/workflows/test.yml", ".gitignore"}
    return project


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


def _marked(kind: Kind) -> object:
    return kind if kind is Kind.SCORER else pytest.param(kind, marks=pytest.mark.slow)


@pytest.mark.parametrize("kind", [_marked(kind) for kind in KINDS])
def test_a_new_plugin_builds_installs_and_passes_its_test(cli, kind: Kind, tmp_path: Path) -> None:
    project = written(cli, tmp_path, kind)
    wheel = build(project, tmp_path / "dist")
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([sys.executable, *install, str(site), str(wheel)], check=True)
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": path}

    def call(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    tests = call("-m", "pytest", "-q", "-p", "no:cacheprovider", str(project / "tests"))
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert " passed" in tests.stdout
    described = call("-m", "selectmoe_core", "describe", str(kind), f"my-{kind}")
    assert described.returncode == 0, described.stderr
    assert described.stdout.startswith(f"my-{kind}: ")


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
