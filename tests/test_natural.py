"""The benchmark on rows that people judged: its sets, folds and heads, and a whole run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import natural
import natural_sets
from natural_heads import fits, left_out, reward_head
from natural_sets import NaturalSet, Together, read_sets
from natural_table import set_table


def row(prompt, answer, quality, pair=None, *, known=False):
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {
        "dataset": "d",
        "id": "x",
        "messages": turns,
        "quality": quality,
        "pair": pair,
        "prompt_in_pool": known,
    }


def pairs_of(name, count):
    return [
        row(f"{name} asks {n}?", f"{'yes' if quality == 'good' else 'no'} {n}", quality, f"p{n}")
        for n in range(count)
        for quality in ("good", "bad")
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(
        natural_sets, "SETS", (NaturalSet("one", "1.jsonl", "x"), NaturalSet("two", "2.jsonl", "y"))
    )
    more = [
        row("Alone?", "fine", "good"),
        row("Known?", "a", "good", "k", known=True),
        row("one asks 3?", "the prompt of another pair", "bad"),
        row("Fixed: add 1", "x", "good", "m"),
        row("Broken: add", "x", "bad", "m"),
    ]
    for name, rows in (("1", pairs_of("one", 12) + more), ("2", pairs_of("two", 9))):
        text = "".join(json.dumps(one) + "\n" for one in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return tmp_path


def test_sets_hold_their_pairs_and_leave_out_prompts_of_the_pool(folder):
    one, two = read_sets(folder)
    assert (len(one.examples), len(one.pairs), len(two.pairs)) == (24 + 4, 13, 9)
    assert all(one.good[better] and not one.good[worse] for better, worse in one.pairs)
    asked = [example.messages[0].content for example in one.examples]
    assert "Known?" not in asked
    # Rows of one prompt are in one group, and so are rows of one pair.
    assert (
        len(set(one.groups[[place for place, text in enumerate(asked) if "one asks 3" in text]]))
        == 1
    )
    assert len(set(one.groups[-2:])) == 1
    assert len(set(one.groups.tolist())) == 12 + 1 + 1
    (folder / "2.jsonl").unlink()
    assert [found.about.name for found in read_sets(folder)] == ["one"]
    (folder / "1.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.jsonl"):
        read_sets(folder)


def test_a_fold_shares_no_prompt_with_what_is_learned_for_it(folder):
    together = Together.join(read_sets(folder))
    of = together.folds(3)
    assert set(of) == {0, 1, 2}
    for fit in fits(together, 3, [5]):
        taught = together.others(fit.held, fit.size)
        groups = set(together.groups[taught.ravel()])
        assert not groups & set(together.groups[fit.held])
        assert len(taught) <= (fit.size or 99)
    for fit in left_out(together):
        assert len(set(together.of[fit.held])) == 1
        assert len(set(together.of[together.others(fit.held, None).ravel()])) == 1
    assert len(np.unique(together.groups)) == 14 + 9


def test_the_reward_head_learns_a_direction_and_scores_rows_that_it_has_not_seen():
    random = np.random.default_rng(4)
    states = random.normal(size=(600, 20)).astype(np.float32)
    truth = states @ random.normal(size=20)
    pairs = np.arange(600).reshape(-1, 2)
    pairs = np.where((truth[pairs[:, 0]] > truth[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
    asked = np.arange(600) >= 400
    found = reward_head(states, pairs[:200], np.repeat(np.arange(300), 2), asked)
    assert len(found) == 200
    assert np.corrcoef(found, truth[asked])[0, 1] > 0.95


def test_a_table_leaves_out_rows_whose_fold_is_not_done(folder):
    (one, _) = read_sets(folder)
    score = one.good.astype(float)
    half = np.where(np.arange(len(score)) < 12, score, np.nan)
    text, figures = set_table(one, {"length": score, "folds": half}, np.ones(len(score)), {"folds"})
    assert figures["folds"]["pairs"]["count"] == 6
    assert figures["folds"]["pairs"]["value"] == 1.0
    assert figures["length"]["AUROC"]["value"] == 1.0
    assert "one: x; 28 rows, 13 pairs" in text


@pytest.mark.slow
def test_a_whole_run_scores_every_set_in_every_way(data, tmp_path, monkeypatch, capsys):
    (tmp_path / "data" / "natural").mkdir(parents=True)
    for name in ("less", "text", "planted_dev.jsonl"):
        (tmp_path / "data" / name).symlink_to(data / name)
    for one in natural_sets.SETS[:2]:
        rows = "".join(json.dumps(r) + "\n" for r in pairs_of(one.name, 12))
        (tmp_path / "data" / one.file).write_text(rows)
    command = ["--tiny", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert natural.main(command) == 0
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "natural.json").read_text())
    assert set(figures) == {"pandalm", "sni", "planted", "held"}
    wanted = {"length", "contrastive", "pairs, gates", "reward head", "pairs of other sets"}
    assert wanted <= set(figures["sni"])
    assert figures["sni"]["pairs, gates"]["pairs"]["count"] == 12
    kinds = figures["held"]["contrastive, all kinds"].keys()  # of so few rows, not all kinds
    assert kinds == figures["held"]["length"].keys()
    assert kinds >= {"all", "answer_swap", "answer_truncate"}
    assert "not begun" not in shown
    monkeypatch.setattr(natural, "fit_pairs", None)  # a second run makes nothing
    assert natural.main(command) == 0
