"""Metadata, licence, types, and what the source distribution holds."""

import re
import tarfile
import tomllib
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
from environments import REPOSITORY, build

from selectmoe_core.cli import call

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PLUGINS = sorted(path.parent for path in REPOSITORY.glob("plugins/*/plugin.py"))
PACKAGES = [*PLUGINS, REPOSITORY / "selectmoe_core"]


def test_licence() -> None:
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"
    assert distribution("selectmoe").metadata["License-Expression"] == "Apache-2.0"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_package_is_typed_and_an_entry_point(package: Path) -> None:
    assert (package / "py.typed").is_file()
    assert (package / "__init__.py").read_text(encoding="utf-8").startswith('"""')
    if package.name != "selectmoe_core":
        points = PROJECT["entry-points"]["selectmoe"]
        assert points[package.name.removeprefix("selectmoe_")] == f"{package.name}.plugin"


def test_every_entry_point_is_a_package() -> None:
    names = {f"selectmoe_{name}" for name in PROJECT["entry-points"]["selectmoe"]}
    assert names == {package.name for package in PACKAGES} - {"selectmoe_core"}


def test_version_is_consistent(capsys: pytest.CaptureFixture[str]) -> None:
    assert version("selectmoe") == PROJECT["version"]
    assert call(["--version"]) == 0
    assert PROJECT["version"] in capsys.readouterr().out
    changes = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changes, re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"]


def test_no_lock_file_names_hosts() -> None:
    assert not [name for name in ("uv.lock", "poetry.lock") if (REPOSITORY / name).exists()]


def test_source_distribution(tmp_path: Path) -> None:
    with tarfile.open(build(REPOSITORY, tmp_path, "sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in (
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "selectmoe_core/report/templates/report.html.j2",
        "selectmoe_core/report/report.js",
        "selectmoe_core/report/report.schema.json",
        "selectmoe_core/py.typed",
        "plugins/selectmoe_nano/plugin.py",
        "recipes/default.toml",
        "tests/test_packaging.py",
        "docs/index.md",
        "tools/pretrain_nano.py",
    ):
        assert wanted in names, wanted
    assert not [name for name in names if "__pycache__" in name or name.startswith("outputs")]
