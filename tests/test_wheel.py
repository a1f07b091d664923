"""The wheel: holds every file, and works outside a checkout."""

import json
import zipfile
from pathlib import Path

import pytest
from environments import REPOSITORY, Environment, build, fresh_environment


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(REPOSITORY, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = fresh_environment(tmp_path_factory.mktemp("outside") / "venv", editable=False)
    environment.install(wheel)
    return environment


def files_below(folder: Path) -> set[str]:
    """Return the files of a folder that belong into the wheel, by their path in it."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_every_file_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"selectmoe_core/{name}" for name in files_below(REPOSITORY / "selectmoe_core")}
    expected |= files_below(REPOSITORY / "plugins")
    expected |= {f"selectmoe_core/_recipes/{name}" for name in files_below(REPOSITORY / "recipes")}
    assert len(expected) > 100
    assert not expected - names
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == expected
    assert {name.rpartition(".dist-info/")[2] for name in info} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


@pytest.mark.parametrize("suffix", [".j2", ".css", "py.typed", ".safetensors", "tokenizer.json"])
def test_what_is_not_python_is_in_it(wheel: Path, suffix: str) -> None:
    assert any(name.endswith(suffix) for name in zipfile.ZipFile(wheel).namelist())


def test_it_is_small_and_readable(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel).infolist()
    assert sum(file.file_size for file in files) < 16 << 20
    assert all(file.external_attr >> 16 & 0o044 == 0o044 for file in files)


def test_a_checkout_is_out_of_sight(environment: Environment, tmp_path: Path) -> None:
    where = environment.call(
        "-c", "import selectmoe_core, selectmoe_basic; print(selectmoe_core.__file__)", cwd=tmp_path
    )
    assert where.returncode == 0, where.stderr
    assert Path(where.stdout.strip()).is_relative_to(environment.python.parents[1])


def test_the_command_is_installed(environment: Environment, tmp_path: Path) -> None:
    script = environment.python.with_name("selectmoe")
    done = environment.call(script, "--version", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("selectmoe, version ")


def test_quick_start_outside_a_checkout(environment: Environment, tmp_path: Path) -> None:
    copied = environment.selectmoe("recipes", "copy", "default", "my.toml", cwd=tmp_path)
    assert copied.returncode == 0, copied.stderr
    planned = environment.selectmoe("plan", "my.toml", "--json", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    keys = {node["key"] for node in json.loads(planned.stdout)["nodes"]}
    assert {"pool", "convert", "warmup", "score", "select", "train", "evaluate@random"} <= keys


@pytest.mark.slow
def test_a_run_outside_a_checkout(environment: Environment, tmp_path: Path) -> None:
    assert (
        environment.selectmoe("recipes", "copy", "default", "my.toml", cwd=tmp_path).returncode == 0
    )
    # A few steps of warm-up will do: what is tested is that everything is there.
    command = ("run", "my.toml", "--until", "select", "--device", "cpu", "--threads", "1")
    done = environment.selectmoe(*command, "warmup.max_steps=4", "~compare", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (selected,) = (tmp_path / "outputs" / "store").glob("select-*/selected_data.jsonl")
    with selected.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) >= 400
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert (tmp_path / "outputs" / "default").is_dir()
