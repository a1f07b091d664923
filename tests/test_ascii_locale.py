"""In an ASCII locale Python is started again in its UTF-8 mode, so that all names work."""

import os
import subprocess
import sys

import pytest
from conftest import LEFT_OUT, rows_of, write_rows

RECIPE = 'format = 1\nname = "letters"\n[pool]\nuse = "jsonl"\npath = "données.jsonl"\n'
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("through", ["-m", "a script"])
def test_names_of_any_letters_work_in_an_ascii_locale(tmp_path, through):
    folder = tmp_path / "ré sumé 世界"
    folder.mkdir()
    write_rows(folder / "données.jsonl", rows_of(4))
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    script = tmp_path / "selectmoe"
    script.write_text("from selectmoe_core.__main__ import main\nmain()\n")
    command = [sys.executable, *(["-m", "selectmoe_core"] if through == "-m" else [str(script)])]
    before = {name: value for name, value in os.environ.items() if name != "SELECTMOE_UTF8"}
    done = subprocess.run(
        [*command, *LEFT_OUT, "run", "recipe.toml", "pool.source=größe", "--until", "pool"],
        cwd=folder, env=before | ASCII, capture_output=True, check=False,
    )  # fmt: skip
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert "größe 4" in said
    assert len(list(folder.glob("outputs/letters/*/*/report.html"))) == 1


def test_it_is_started_again_once(tmp_path):
    """With the mark of a restart and the locale as it was, there is no second one."""
    code = (
        "import os, sys\n"
        "os.execv = lambda *what: print('again')\n"
        "from selectmoe_core.cli import main\n"
        "main(['--version'] if os.environ.get('DIRECT') else None)\n"
    )
    for marked in ("", "1"):
        mark = {"SELECTMOE_UTF8": marked} if marked else {}
        done = subprocess.run(
            [sys.executable, "-c", code, "--version"],
            env={k: v for k, v in os.environ.items() if k != "SELECTMOE_UTF8"} | ASCII | mark,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ("again" in done.stdout) == (not marked), done.stderr
