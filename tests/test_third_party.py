"""A stranger's plugin, the very one of docs/plugins.md, as a distribution of its own."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from documents import named_files
from environments import Environment, build, fresh_environment

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
RECIPE = """
format = 1
name = "third-party"
[pool]
use = "jsonl"
path = "pool.jsonl"
[score]
use = "length"
[select]
use = "top-k"
k = 3
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with selectmoe as it is installed here, and the plugin as a wheel."""
    folder = tmp_path_factory.mktemp("third-party")
    project = folder / "project"
    project.mkdir()
    files = named_files("plugins.md")
    for name in ("selectmoe_variety.py", "pyproject.toml"):
        (project / name).write_text(files[name], encoding="utf-8")
    environment = fresh_environment(folder / "venv", editable=True)
    environment.install(build(project, folder / "dist"))
    return environment


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    with (tmp_path / "pool.jsonl").open("w", encoding="utf-8") as file:
        for answer in answers():
            row = {"prompt": "Say something.", "completion": answer}
            file.write(json.dumps(row) + "\n")
    return tmp_path


def answers() -> list[str]:
    """The n-th answer cycles through n different words, and is the shorter the more there are."""
    return [" ".join(WORDS[i % n] for i in range(24 - n)) for n in range(1, len(WORDS) + 1)]


def variety(answer: str, window: int) -> float:
    words = answer.split()[:window]
    return len(set(words)) / len(words)


def best(score: Sequence[float], answers: Sequence[str], count: int) -> list[str]:
    order = sorted(range(len(score)), key=lambda i: -score[i])
    return [answers[i] for i in order[:count]]


def selected(desk: Path) -> list[dict]:
    (path,) = (desk / "outputs" / "store").glob("select-*/selected_data.jsonl")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_listed_and_described(environment: Environment, tmp_path: Path) -> None:
    listed = environment.selectmoe("list", "scorer", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    (line,) = (line for line in listed.stdout.splitlines() if " variety " in line)
    assert "Score an example by the share of its answer's words" in line
    described = environment.selectmoe("describe", "scorer", "variety", cwd=tmp_path)
    assert "window = 50" in described.stdout
    assert "Number of words to read" in described.stdout
    plugins = environment.selectmoe("plugins", cwd=tmp_path)
    assert "selectmoe-variety 0.1.0" in plugins.stdout


def test_a_recipe_runs_with_it(environment: Environment, desk: Path) -> None:
    options = ("score.use=variety", "score.window=10")
    done = environment.selectmoe("run", "recipe.toml", *options, "--until", "select", cwd=desk)
    assert done.returncode == 0, done.stderr
    rows = selected(desk)
    scores = [variety(answer, 10) for answer in answers()]
    assert [row["messages"][1]["content"] for row in rows] == best(scores, answers(), 3)
    assert [row["score"] for row in rows] == sorted(scores, reverse=True)[:3]
    # Not what the recipe would have chosen without the override.
    assert rows[0]["messages"][1]["content"] != max(answers(), key=len)


def test_its_options_are_checked(environment: Environment, desk: Path) -> None:
    done = environment.selectmoe(
        "plan", "recipe.toml", "score.use=variety", "score.windw=3", cwd=desk
    )
    assert done.returncode == 2
    assert "unknown option 'windw'" in done.stderr
    assert "did you mean 'window'?" in done.stderr


def test_it_can_be_left_out(environment: Environment, desk: Path) -> None:
    command = ("plan", "recipe.toml", "score.use=variety")
    done = environment.selectmoe("--disable-plugin", "variety", *command, cwd=desk)
    assert done.returncode == 2
    assert "there is no scorer named 'variety'" in done.stderr
