"""A pool with rows that the chat template refuses, from the recipe to the selection."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import write_rows

from selectmoe_core.data import Vectors

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


TARGETED = """\
format = 1
name = "targeted"
[chat]
template = "template.jinja"
[pool]
use = "jsonl"
path = "pool.jsonl"
on_reject = "skip"
[targets]
use = "jsonl"
path = "targets.jsonl"
[embed]
use = "hidden-states"
model = "bundled:nano-llama"
[score]
use = "similarity"
max_skipped = 0.5
[select]
use = "top-k"
k = 12
[train]
use = "llama-lora"
model = "bundled:nano-llama"
"""
REFUSED = (2, 11, 17)


def talk(question, answer, system=None):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": [{"role": "system", "content": system}, *turns] if system else turns}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [(), ("score.per_task=mean",), ("score={use='bm25'}",), ("score.use=random",)],
    ids=["similarity", "mean", "bm25", "random"],
)
def test_a_row_that_the_template_refuses_is_selected_by_no_score(
    tmp_path, cli, monkeypatch, change
):
    """Such rows are what the targets ask for, so that a score of their text would take them."""
    monkeypatch.chdir(tmp_path)
    names = ("plum", "iron", "bridge")
    rows = [talk(f"{n} ?", f"{n} {names[n % 3]} {n * n}") for n in range(24)]
    for number in REFUSED:
        rows[number] = talk(f"Name a plum, {number}", "plum plum plum", system="Be kind.")
    write_rows(tmp_path / "pool.jsonl", rows)
    targets = [talk("Name a plum", "plum plum plum"), talk("A plum", "plum")]
    write_rows(tmp_path / "targets.jsonl", targets)
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    (tmp_path / "recipe.toml").write_text(TARGETED)
    options = ("--device", "cpu", "--threads", "1", "--until", "select")
    said = cli("run", "recipe.toml", *options, *change)
    assert said.code == 0, said.err
    (selected,) = tmp_path.glob("outputs/store/select-*/selected_data.jsonl")
    assert len(selected.read_text().splitlines()) == 12
    assert "Be kind" not in selected.read_text()
    (out,) = tmp_path.glob("outputs/store/select-*/left_out.parquet")
    found = {(row["row"], row["filter"], row["reason"]) for row in pq.read_table(out).to_pylist()}
    assert found == {(n, "unrendered", "the chat format cannot render it") for n in REFUSED}
    for path in tmp_path.glob("outputs/store/embed-*/vectors.json"):
        vectors = Vectors(path.parent)
        if len(vectors) == len(rows):
            zeros = np.flatnonzero(~vectors.take(np.arange(len(rows))).any(axis=1))
            assert tuple(zeros) == REFUSED
            (manifest,) = tmp_path.glob("outputs/store/score-*/artifact.json")
            skipped = json.loads(manifest.read_text())["facts"]["skipped"]
            assert list(skipped.values()) == [len(REFUSED)]
