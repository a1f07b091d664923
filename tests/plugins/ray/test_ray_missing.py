"""Without the extra, the executor's name is an error that says what to install."""

import importlib.util

from conftest import rows_of, write_rows


def test_the_error_names_the_extra(cli, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "ray" else real(name, *rest),
    )
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "pool.jsonl", rows_of(5))
    (tmp_path / "recipe.toml").write_text(
        'format = 1\nname = "a"\n[pool]\nuse = "jsonl"\npath = "pool.jsonl"\n'
    )
    said = cli("run", "recipe.toml", "--executor", "ray")
    assert said.code == 2
    assert "[executor]: ray needs the package 'ray', which is not installed" in said.err
    assert "pip install 'selectmoe[ray]'" in said.err
    assert cli("list", "executor").code == 0
