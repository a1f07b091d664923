"""A pool with rows that the chat template refuses, from the recipe to the selection."""

import json

import pytest
from conftest import write_rows

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}"
    "{% endif %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
RECIPE = """\
format = 1
name = "unrendered"
[chat]
template = "template.jinja"
[pool]
use = "jsonl"
path = "pool.jsonl"
[score]
use = "perplexity"
model = "bundled:nano-llama"
max_skipped = 0.5
[select]
use = "top-k"
k = 30
"""


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
def test_a_row_that_the_template_refuses_is_named_or_left_out(tmp_path, cli, monkeypatch, late):
    """With ``late`` the row is behind those that are looked at before the first stage."""
    from selectmoe_core.runner import sample_rows

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sample_rows, "MOST_READ", 5)
    turns = [{"role": "user", "content": "2 + 2 ="}, {"role": "assistant", "content": "4"}]
    rows = [{"messages": [{**turns[0], "content": f"{n} ="}, turns[1]]} for n in range(32)]
    rows[20 if late else 2]["messages"].insert(0, {"role": "system", "content": "Be kind."})
    write_rows(tmp_path / "pool.jsonl", rows)
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    where = f"pool.jsonl:{21 if late else 3}"

    said = cli("run", "recipe.toml", "--device", "cpu", "--threads", "1")
    assert said.code == 1
    assert f"{where}: the chat template" in said.err
    assert "no system turn" in said.err
    assert '[pool] on_reject = "skip" leaves such rows out' in said.err

    said = cli("run", "recipe.toml", "pool.on_reject=skip", "--device", "cpu", "--threads", "1")
    assert said.code == 0, said.err
    assert f"left out: 1 rows that cannot be rendered, the first at {where}" in said.err
    (manifest,) = tmp_path.glob("outputs/store/score-*/artifact.json")
    facts = json.loads(manifest.read_text())["facts"]
    assert facts["skipped"] == {"the chat format cannot render it": 1}
    (selected,) = tmp_path.glob("outputs/store/select-*/selected_data.jsonl")
    assert "Be kind" not in selected.read_text()
    assert len(selected.read_text().splitlines()) == 30
