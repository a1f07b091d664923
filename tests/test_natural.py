"""The benchmark on rows that people judged: its sets, folds and heads, and a whole run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import natural
import natural_run
import natural_sets
from evidence_bench import results
from natural_heads import HEAD, fits, left_out, reward_head
from natural_models import FILE, ModelAnswers, models_table, partial, read_models
from natural_parts import Clock, Part, alone, claim, devices
from natural_sets import NaturalSet, Together, read_sets
from natural_table import set_table
from scipy.stats import rankdata, spearmanr


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
    folds, short = fits(together, 3, [5, 500])
    assert {fit.name for fit in folds} == {
        "pairs, all weights",
        "pairs, gates",
        "reward head",
        "pairs, all weights, 5",
        "reward head, 5",
    }
    assert len(short) == 1
    assert "500 pairs: a fold leaves only" in short[0]
    for fit in folds:
        groups = set(together.groups[fit.pairs.ravel()])
        assert groups
        assert not groups & set(together.groups[fit.held])
        assert len(fit.pairs) <= (fit.size or 99)
    for fit in left_out(together):
        assert len(set(together.of[fit.held])) == 1
        assert len(set(together.of[fit.pairs.ravel()])) == 1
        assert set(together.of[fit.held]) != set(together.of[fit.pairs.ravel()])
    assert len(np.unique(together.groups)) == 14 + 9


def test_a_reward_head_learns_from_the_pairs_of_the_warm_up_beside_it(folder):
    together = Together.join(read_sets(folder))
    folds, _ = fits(together, 3, [5])
    heads = {(fit.fold, fit.size): fit.pairs.tolist() for fit in folds if fit.way == HEAD}
    ways = [fit for fit in folds if fit.way != HEAD]
    assert len(heads) == 6
    assert len(ways) == 9
    for fit in ways:
        assert heads[fit.fold, fit.size] == fit.pairs.tolist()
    for fit in left_out(together):
        same = [one.pairs.tolist() for one in left_out(together) if one.fold == fit.fold]
        assert same.count(fit.pairs.tolist()) == 3


def test_pairs_that_no_warm_up_takes_teach_nobody(folder):
    together = Together.join(read_sets(folder))
    asked = [example.messages[0].content for example in together.examples]
    differing = [pair for pair in together.pairs.tolist() if asked[pair[0]] != asked[pair[1]]]
    assert len(differing) == 1  # "Fixed" and "Broken"
    twice = Together(**vars(together) | {"pairs": np.concatenate([together.pairs] * 2)})
    cut = together.pairs[4].tolist()  # equal after truncation, say
    taught = twice.teaching(lambda better, worse: [better, worse] != cut)
    wanted = [p for p in together.pairs.tolist() if p not in (cut, differing[0])]
    assert taught.pairs.tolist() == wanted


def answers_of(models, prompts, rate):
    return [
        row(f"Ask {n}?", f"{model} says {n}", "good") | {"model": model, "win_rate": rate(model)}
        for n in range(prompts)
        for model in models
    ]


def test_correlation_with_win_rates_at_equal_length_is_that_of_residuals():
    random = np.random.default_rng(3)
    rate = np.repeat(random.random(6), 20)
    length = rate + random.normal(size=120)
    score = length + 0.5 * random.normal(size=120)
    columns = [rankdata(values) for values in (score, rate, length)]
    control = np.column_stack([np.ones(120), columns[2]])
    rests = [c - control @ np.linalg.lstsq(control, c, rcond=None)[0] for c in columns[:2]]
    wanted = np.corrcoef(*rests)[0, 1]
    assert partial(score, rate, length)(np.ones(120)) == pytest.approx(wanted, abs=1e-9)
    assert abs(wanted) < spearmanr(score, rate).statistic  # most of it was length


def test_models_are_read_and_ranked(tmp_path):
    (tmp_path / "natural").mkdir()
    assert read_models(tmp_path) is None
    rows = answers_of("abcd", 15, lambda model: "abcd".index(model) / 10)
    rows.append(row("Known?", "x", "good", known=True) | {"model": "a", "win_rate": 0.0})
    text = "".join(json.dumps(one) + "\n" for one in rows)
    (tmp_path / FILE).write_text(text)
    answers = read_models(tmp_path)
    assert isinstance(answers, ModelAnswers)
    assert len(answers.examples) == 60
    assert len(set(answers.prompts.tolist())) == 15
    random = np.random.default_rng(1)
    scores = {
        "right": answers.win_rate + 0.01 * random.random(60),
        "wrong": -answers.win_rate,
        "nothing": np.full(60, np.nan),
    }
    shown, figures = models_table(answers, scores, random.random(60))
    assert figures.keys() == {"right", "wrong"}
    assert figures["right"]["means of models"]["value"] == pytest.approx(1.0)
    assert figures["wrong"]["answers"]["value"] == pytest.approx(-1.0)
    assert figures["right"]["answers"]["low"] > 0.9
    assert "4 models, 60 answers" in shown


def test_parts_are_claimed_once_and_begin_only_in_time(tmp_path, monkeypatch):
    with alone(tmp_path):
        assert claim(tmp_path, "a")
        assert not claim(tmp_path, "a")
        with pytest.raises(SystemExit, match="another command"), alone(tmp_path):
            pass
    with alone(tmp_path):  # what a killed command had claimed is free again
        assert claim(tmp_path, "a")
    clock = Clock(1.0)
    assert clock.fits(Part("x", "k", print, 50.0))
    assert not clock.fits(Part("x", "k", print, 70.0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert devices(None) == ["2", "5"]
    assert devices(1) == ["2"]
    with pytest.raises(SystemExit, match="only 2 are visible"):
        devices(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices(None) == [""]
    assert devices(2) == ["", ""]


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
    rows = answers_of("abc", 8, lambda model: "abc".index(model) / 10)
    (tmp_path / "data" / FILE).write_text("".join(json.dumps(r) + "\n" for r in rows))
    command = ["--tiny", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert natural.main([*command, "--minutes", "0"]) == 0
    shown = capsys.readouterr().out
    assert "not begun, no time: plain scores" in shown
    assert "no tables yet" in shown
    assert natural.main([*command, "--gpus", "2"]) == 0
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "natural.json").read_text())
    assert set(figures) == {"pandalm", "sni", "models", "planted", "held"}
    wanted = {"length", "contrastive", "pairs, gates", "reward head", "reward head, 8"}
    assert wanted | {"pairs of other sets, all weights"} <= set(figures["sni"])
    assert figures["sni"]["pairs, gates"]["pairs"]["count"] == 12
    kinds = figures["held"]["contrastive, all kinds"].keys()  # of so few rows, not all kinds
    assert kinds == figures["held"]["length"].keys()
    assert kinds >= {"all", "answer_swap", "answer_truncate"}
    assert "not begun" not in shown
    assert "not there: 5000 pairs" in shown
    lines = {line["name"]: line for line in results(tmp_path / "out")}
    assert lines["pairs, gates/1"]["figures"]["pairs, gates/1"]["sni"][1] > 0
    assert lines["reward head/0"]["facts"]["pairs"] == lines["pairs, gates/0"]["facts"]["pairs"]
    monkeypatch.setattr(natural_run, "fit_pairs", None)  # a third run makes nothing
    assert natural.main(command) == 0
    assert natural.main([*command, "--list"]) == 0
    assert "min in all on one H100" in capsys.readouterr().out
