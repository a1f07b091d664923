"""The downstream benchmark: its pool, its arms, its intervals, and that a second run resumes."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import downstream  # noqa: E402
from downstream_arm import Arm, Setting  # noqa: E402
from downstream_intervals import difference, mean, share_of_gain, shares, weighted  # noqa: E402
from downstream_pool import HalfPool, make_pool  # noqa: E402
from downstream_table import tables  # noqa: E402

from selectmoe_core import Damage, DataError, Message, ModelRef, RawExample  # noqa: E402
from selectmoe_core.plugin.manager import load_plugins  # noqa: E402
from selectmoe_core.plugin.registry import Registry  # noqa: E402
from selectmoe_core.tokens.chat import ChatConfig  # noqa: E402

ROWS = 300


def rows_of(count=ROWS):
    for number in range(count):
        turns = Message("user", f"Question {number}?"), Message("assistant", f"Answer {number}.")
        yield RawExample("even" if number % 2 == 0 else "odd", turns)


def spoilt(example, other, random):
    return example.messages[0], Message("assistant", f"Spoilt {random.random()}")


def refused(example, other, random):
    return None


DAMAGES = {"spoilt": Damage("spoilt", "", spoilt), "never": Damage("never", "", refused)}


def made(out, *, rows=None, seed=1, heldout=50):
    make_pool(rows_of() if rows is None else rows, DAMAGES, out, heldout=heldout, seed=seed)
    return HalfPool.open(out)


def setting_of(pool, **scores):
    return Setting(
        registry=Registry(load_plugins()),
        pool=pool,
        scores={name: lambda seed, path=path: path for name, path in scores.items()},
        target=ModelRef("bundled:nano-llama"),
        target_kind="base",
        device="cpu",
        chat=ChatConfig(),
        train=downstream.TINY_TRAIN,
        evaluate=downstream.TINY_EVALUATE,
    )


# --------------------------------------------------------------------------------------- pool


def test_half_of_the_rows_are_damaged_and_only_the_labels_say_which(tmp_path):
    pool = made(tmp_path)
    assert len(pool.examples) == ROWS - 50
    assert pool.clean.sum() == (ROWS - 50) // 2
    for example, kind in zip(pool.examples, pool.kinds, strict=True):
        assert (kind == "spoilt") == example.response.startswith("Spoilt")
    for line in (tmp_path / "pool.jsonl").read_text().splitlines():
        assert json.loads(line).keys() == {"dataset", "id", "messages"}
    # Nothing in the order tells clean from damaged.
    assert [example.id for example in pool.examples] == sorted(e.id for e in pool.examples)
    assert abs(np.diff(pool.clean.astype(int))).sum() > 50


def test_held_out_rows_are_clean_and_the_pool_asks_nothing_of_them(tmp_path):
    twice = [*rows_of()]
    for row in rows_of():  # each question once more, with another answer and other spacing
        asked = row.messages[0].content.upper().replace(" ", "  ")
        twice.append(RawExample("more", (Message("user", asked), Message("assistant", "Yes."))))
    pool = made(tmp_path, rows=twice)
    assert len(pool.heldout) == 50
    assert not any(example.response.startswith("Spoilt") for example in pool.heldout)
    asked = {example.prompt.casefold().replace(" ", "") for example in pool.heldout}
    of_pool = {example.prompt.casefold().replace(" ", "") for example in pool.examples}
    assert asked
    assert not asked & of_pool
    assert len(pool.examples) >= 2 * (ROWS - 50)


def test_no_text_of_a_held_out_row_is_planted_as_damage(tmp_path):
    def borrowed(example, other, random):
        return example.messages[0], other.messages[1]

    damages = {"swap": Damage("swap", "", borrowed)}
    make_pool(rows_of(), damages, tmp_path, heldout=100, seed=3)
    pool = HalfPool.open(tmp_path)
    held = {example.response for example in pool.heldout}
    assert not pool.clean.all()
    assert not held & {example.response for example in pool.examples}


def test_a_pool_depends_on_its_rows_and_seed_alone(tmp_path):
    first = made(tmp_path / "a")
    again = made(tmp_path / "b", rows=reversed([*rows_of()]))
    other = made(tmp_path / "c", seed=2)
    assert first.digest == again.digest
    assert first.digest != other.digest
    labels = [(tmp_path / name / "labels.jsonl").read_bytes() for name in "ab"]
    assert labels[0] == labels[1]


def test_a_pool_of_other_text_than_its_ids_say_is_refused(tmp_path):
    made(tmp_path)
    text = (tmp_path / "pool.jsonl").read_text()
    (tmp_path / "pool.jsonl").write_text(text.replace("Question", "question", 1))
    with pytest.raises(DataError, match="another text"):
        HalfPool.open(tmp_path)


@pytest.mark.parametrize("form", ["jsonl", "hex.parquet", "bytes.parquet", "artifact"])
def test_scores_are_matched_by_id_whatever_their_order(tmp_path, form):
    pool = made(tmp_path)
    random = np.random.default_rng(5)
    score = random.normal(size=len(pool.examples))
    score[7] = np.nan
    ids = [example.id for example in pool.examples]
    order = random.permutation(len(ids))
    path = tmp_path / f"scores.{form}"
    if form == "jsonl":
        given = [{"id": ids[n], "score": None if n == 7 else float(score[n])} for n in order]
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
    else:
        names = pa.array([ids[n] for n in order])
        if form != "hex.parquet":
            names = pa.array([bytes.fromhex(ids[n]) for n in order], pa.binary(16))
        table = pa.table({"id": names, "score": score[order]})
        path = tmp_path / "art" if form == "artifact" else path
        file = path / "scores" / "part-00000.parquet" if form == "artifact" else path
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file)
    np.testing.assert_array_equal(pool.scores(path), score)


def test_a_row_without_a_score_is_an_error(tmp_path):
    pool = made(tmp_path)
    path = tmp_path / "scores.jsonl"
    rows = [{"id": example.id, "score": 1.0} for example in pool.examples[1:]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="lacks 1 of"):
        pool.scores(path)


# --------------------------------------------------------------------------------------- arms


@pytest.mark.parametrize("quota", [False, True])
def test_the_oracle_selects_only_clean_rows_and_draws_anew_with_each_seed(tmp_path, quota):
    pool = made(tmp_path)
    setting = setting_of(pool)
    rows = [setting.selected(Arm("oracle", quota, 0.3, seed)) for seed in (0, 1)]
    for found in rows:
        assert len(found) in (75, 76)
        assert pool.clean[found].all()
    assert set(rows[0]) != set(rows[1])
    random = setting.selected(Arm("random", quota, 0.3, 0))
    assert 0.2 < pool.clean[random].mean() < 0.8


def test_an_oracle_that_runs_out_of_clean_rows_takes_no_damaged_ones(tmp_path):
    pool = made(tmp_path)
    rows = setting_of(pool).selected(Arm("oracle", fraction=0.8))
    assert set(rows) == set(np.flatnonzero(pool.clean))


def test_a_quota_keeps_the_fraction_of_every_source(tmp_path):
    pool = made(tmp_path)
    path = tmp_path / "scores.jsonl"
    by_source = [{"id": e.id, "score": float(e.source == "odd")} for e in pool.examples]
    path.write_text("".join(json.dumps(row) + "\n" for row in by_source))
    setting = setting_of(pool, given=path)
    odd = np.array([example.source == "odd" for example in pool.examples])
    assert odd[setting.selected(Arm("given", False, 0.2))].all()
    kept = odd[setting.selected(Arm("given", True, 0.2))]
    assert kept.sum() == -(-odd.sum() // 5)
    assert (~kept).sum() == -(-(~odd).sum() // 5)


def test_the_key_covers_what_decides_an_arm(tmp_path):
    pool = made(tmp_path / "pool")
    path = tmp_path / "scores.jsonl"

    def write(factor):
        rows = [{"id": e.id, "score": factor * n} for n, e in enumerate(pool.examples)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(1.0)
    arm = Arm("given", False, 0.2, 0)
    keys = [setting_of(pool, given=path).key(arm)]
    assert setting_of(pool, given=path).key(arm) == keys[0]
    assert Setting(**fields(setting_of(pool, given=path), batch=7)).key(arm) == keys[0]
    keys += [setting_of(pool, given=path).key(Arm("given", True, 0.2, 0))]
    keys += [setting_of(pool, given=path).key(Arm("given", False, 0.2, 1))]
    keys += [Setting(**fields(setting_of(pool, given=path), rate=1e-5)).key(arm)]
    keys += [setting_of(made(tmp_path / "other", seed=2)).key(Arm("random", False, 0.2, 0))]
    keys += [setting_of(pool).key(Arm("random", False, 0.2, 0))]
    write(-1.0)
    keys += [setting_of(pool, given=path).key(arm)]
    assert len(set(keys)) == len(keys) == 7


def fields(setting, *, batch=None, rate=None):
    """Return a setting's fields with an option that is execution only, or one that is not."""
    names = ("registry", "pool", "scores", "target", "target_kind", "device", "chat")
    train = dict(setting.train)
    train |= {"pass_tokens": batch} if batch else {}
    train |= {"learning_rate": rate} if rate else {}
    return {name: getattr(setting, name) for name in names} | {
        "train": train,
        "evaluate": setting.evaluate,
    }


# ---------------------------------------------------------------------------------- intervals


def plain_bootstrap(statistic, items, seed=0, resamples=10_000):
    """The same resamples, drawn as counts and worked through one by one."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        counts = random.multinomial(items, [1 / items] * items)
        found.append(statistic(np.repeat(np.arange(items), counts)))
    return np.quantile(found, [0.025, 0.975])


def close(interval, value, bounds):
    np.testing.assert_allclose(
        [interval.value, interval.low, interval.high], [value, *bounds], rtol=1e-9, atol=1e-12
    )


def test_paired_intervals_equal_a_bootstrap_worked_through_item_by_item():
    random = np.random.default_rng()
    random_arm, oracle = random.normal(2, 1, (3, 37)), random.normal(1.0, 1, (3, 37))
    ours, tokens = random.normal(1.5, 1, (3, 37)), random.integers(1, 90, 37).astype(float)

    def gap(rows):
        return (ours[:, rows].mean(axis=0) - random_arm[:, rows].mean(axis=0)).mean()

    def gain(rows):
        return gap(rows) / (oracle[:, rows] - random_arm[:, rows]).mean()

    def by_token(rows):
        return np.average((ours - random_arm).mean(axis=0)[rows], weights=tokens[rows])

    everything = np.arange(37)
    close(difference(ours, random_arm), gap(everything), plain_bootstrap(gap, 37))
    close(share_of_gain(ours, random_arm, oracle), gain(everything), plain_bootstrap(gain, 37))
    close(weighted(ours, random_arm, tokens), by_token(everything), plain_bootstrap(by_token, 37))
    close(mean(ours), ours.mean(), plain_bootstrap(lambda rows: ours[:, rows].mean(), 37))


def test_a_paired_interval_is_narrow_where_the_items_differ_more_than_the_arms():
    random = np.random.default_rng(3)
    hard = random.normal(0, 10, 200)
    ours, theirs = (hard + random.normal(shift, 0.1, (3, 200)) for shift in (-0.05, 0))
    apart = difference(ours, theirs)
    assert apart.high < 0
    assert apart.high - apart.low < 0.05 < mean(ours).high - mean(ours).low
    assert difference(theirs, ours).value == -apart.value
    np.testing.assert_allclose(shares(200).sum(axis=1), 1)
    # About as wide as the normal interval says.
    spread = 2 * 1.96 * (ours - theirs).mean(axis=0).std() / np.sqrt(200)
    assert apart.high - apart.low == pytest.approx(spread, rel=0.1)


def test_arms_of_other_items_are_not_paired():
    with pytest.raises(ValueError, match="3 items cannot be paired with 4"):
        difference(np.zeros((1, 3)), np.zeros((1, 4)))


# --------------------------------------------------------------------------------- the whole


def run_tiny(out, *more):
    return downstream.main(["run", "--tiny", "--out", str(out), "--seeds", "0", *more])


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two shards of a tiny run, one after the other."""
    out = tmp_path_factory.mktemp("downstream") / "arms.jsonl"
    only = ("--only", "base", "random/*", "oracle/*", "random+quota/*")
    for shard in ("0/2", "1/2"):
        assert run_tiny(out, *only, "--shard", shard) == 0
    return out, only


def test_a_tiny_run_leaves_a_line_for_each_arm(finished):
    out, _ = finished
    arms = {str(Arm(**line["arm"])): line for line in lines_of(out)}
    assert set(arms) == {"base", "random/0.25/0", "oracle/0.25/0", "random+quota/0.25/0"}
    assert len({line["key"] for line in arms.values()}) == 4
    assert len({line["common"] for line in arms.values()}) == 1
    oracle, random = arms["oracle/0.25/0"], arms["random/0.25/0"]
    assert oracle["clean"] == 1.0
    assert oracle["kinds"] == {"clean": oracle["selected"]}
    assert 0.2 < random["clean"] < 0.8
    assert sum(oracle["sources"].values()) == oracle["selected"] == 90
    losses = [line["heldout"]["loss"] for line in arms.values()]
    assert {len(loss) for loss in losses} == {40}
    assert len({tuple(loss) for loss in losses}) == 4  # each was trained, and measured, on its own
    for line in arms.values():
        assert len(line["tasks"]["nano"]["right"]) == 20


def test_a_second_run_does_only_what_is_missing(finished, capsys):
    out, only = finished
    before = out.read_bytes()
    assert run_tiny(out, *only) == 0
    assert "4 arms, 4 done, 0 to do here" in capsys.readouterr().out
    assert out.read_bytes() == before
    kept = [line for line in before.splitlines() if b'"oracle"' not in line]
    lost = next(line for line in lines_of(out) if line["arm"]["strategy"] == "oracle")
    out.write_bytes(b"\n".join([*kept, b'{"key": "cut sho']))
    assert run_tiny(out, *only) == 0
    said = capsys.readouterr().out
    assert "arms.jsonl:4 is cut short" in said
    assert "4 arms, 3 done, 1 to do here" in said
    again = json.loads(out.read_text().splitlines()[-1])
    assert again["key"] == lost["key"]
    assert again["heldout"] == lost["heldout"]  # to the last digit: a run repeats on the CPU
    assert again["tasks"] == lost["tasks"]
    out.write_bytes(before)


def test_the_table_sets_every_arm_beside_random(finished):
    lines = lines_of(finished[0])
    table = tables(lines)
    of = {(line["arm"]["strategy"], line["arm"]["quota"]): line for line in lines}
    oracle, random = (
        np.array([of[name, False]["heldout"]["loss"]]) for name in ("oracle", "random")
    )
    apart = difference(oracle, random)
    row = next(line for line in table.splitlines() if line.startswith("| oracle | 1 |"))
    assert f"{oracle.mean():.4f} [" in row
    assert f"{apart.value:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]" in row
    assert "### nano (acc; higher is better)" in table
    assert "| oracle | 90 | 100.0% |" in table
    # Results of other settings are never mixed in.
    moved = [line | {"common": "other", "key": line["key"] + "x"} for line in lines]
    assert tables([*lines, *moved]).count("# Settings") == 2


def test_an_arm_that_fails_is_told_and_the_others_run(finished, tmp_path, monkeypatch, capsys):
    out = tmp_path / "arms.jsonl"
    real = downstream.run_arm

    def failing(setting, arm, work):
        if arm.strategy == "random":
            raise RuntimeError("out of memory, say")
        return real(setting, arm, work)

    monkeypatch.setattr(downstream, "run_arm", failing)
    pool = str(finished[0].parent / "tiny-pool")
    assert run_tiny(out, "--pool", pool, "--only", "base", "random/*", "--tasks") == 1
    said = capsys.readouterr().out
    assert "random/0.25/0 FAILED" in said
    assert "out of memory, say" in said
    assert [line["arm"]["strategy"] for line in lines_of(out)] == ["base"]
    assert lines_of(out)[0]["tasks"] == {}


def test_mistakes_on_the_command_line_are_told(tmp_path, capsys):
    out = str(tmp_path / "arms.jsonl")
    assert downstream.main(["run", "--out", out]) == 2
    assert "--pool and --target" in capsys.readouterr().err
    assert run_tiny(out, "--scores", "random=x.parquet") == 2
    assert "this name is taken" in capsys.readouterr().err
    assert run_tiny(out, "--scores", "x.parquet") == 2
    assert "not NAME=FILE" in capsys.readouterr().err
    wrong = ["pool", "--tiny", "--out", str(tmp_path / "p"), "--kinds", "nonsense"]
    assert downstream.main(wrong) == 2
    assert "there is no kind of damage 'nonsense'" in capsys.readouterr().err
