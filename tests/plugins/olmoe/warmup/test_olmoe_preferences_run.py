"""A recipe with ``[warmup.pairs]`` on the nano models: what it learns, what its plan says."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from selectmoe_core.cost import DEVICES
from selectmoe_core.data.pool import Pool
from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.errors import RecipeError
from selectmoe_core.plan.estimates import estimate
from selectmoe_core.plan.plan import make_plan
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import read_recipe
from selectmoe_nano.vocabulary import CATEGORIES

DEVICE = next(iter(DEVICES.values()))
RECIPE = """
format = 1
name = "preferences"
[chat]
max_length = 128
[pool]
use = "jsonl"
path = "pool.jsonl"
[convert]
use = "olmoe-trashcan"
model = "bundled:nano-olmoe"
[warmup]
use = "select-moe-contrastive"
trainable = "all"
learning_rate = 1e-3
lm_weight = 0.1
epochs = 3
batch_size = 16
[warmup.pairs]
use = "jsonl"
path = "preferences.jsonl"
share = 1
[score]
use = "router"
"""


@pytest.fixture
def desk(tmp_path):
    """Write a recipe, 300 preferences for one half of some words, and 100 other pairs as a pool."""
    chance = random.Random(8)
    words = chance.sample(sorted({word for some in CATEGORIES.values() for word in some}), 64)
    good, bad = words[::2], words[1::2]

    def row():
        asked = f"Say a word, {chance.choice('ABCDEFGH')}{chance.randint(100, 99999)}."
        answers = [f"It is a {chance.choice(half)}." for half in (good, bad)]
        return {"prompt": asked, "chosen": answers[0], "rejected": answers[1]}

    rows = [row() for _ in range(400)]
    held = [
        {"prompt": r["prompt"], "completion": r[side], "id": str(number), "label": side}
        for number, r in enumerate(rows[300:])
        for side in ("chosen", "rejected")
    ]
    for name, content in (("preferences", rows[:300]), ("pool", held)):
        text = "".join(json.dumps(r) + "\n" for r in content)
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def plan_of(desk, *overrides):
    recipe = read_recipe(desk / "recipe.toml", overrides)
    return make_plan(recipe, Registry(load_plugins()), desk / "outputs")


def accuracy(desk, *overrides):
    """Run the recipe; return the share of the pool's pairs whose chosen answer scores higher."""
    command = [sys.executable, "-m", "selectmoe_core", "run", "recipe.toml", "--threads", "1"]
    subprocess.run([*command, *overrides], cwd=desk, check=True, capture_output=True)
    plan = plan_of(desk, *overrides)
    pool = Pool.open(plan.folder(plan.nodes["pool"]))
    score = ScoreTable.open(plan.folder(plan.nodes["score"])).score()
    pairs = {}
    for row, value in enumerate(score):
        meta = pool.meta(row)
        pairs.setdefault(meta["original_id"], {})[meta["label"]] = value
    assert len(pairs) == 100
    return np.mean([pair["chosen"] > pair["rejected"] for pair in pairs.values()])


@pytest.mark.slow
def test_a_preference_is_learned_and_ranks_pairs_that_were_held_out(desk):
    before = accuracy(desk, "~warmup")
    assert 0.3 < before < 0.7
    assert accuracy(desk) > 0.9


def test_the_plan_shows_the_pairs_and_their_content_is_in_the_digest(desk):
    plan = plan_of(desk)
    rows = {row["key"]: row for row in estimate(plan, Registry(load_plugins()), DEVICE)}
    assert rows["pairs"]["component"] == "jsonl"
    assert rows["warmup"]["reads"] == {"model": "convert", "pool": "pool", "pairs": "pairs"}
    first = {key: node.digest for key, node in plan.nodes.items()}
    path = desk / "preferences.jsonl"
    path.write_text(path.read_text().replace("Say a word", "Say another word", 1))
    second = {key: node.digest for key, node in plan_of(desk).nodes.items()}
    changed = {key for key in first if first[key] != second[key]}
    assert changed == {"pairs", "warmup", "score"}
    shared = {key: n.digest for key, n in plan_of(desk, "warmup.pairs.share=0.5").nodes.items()}
    assert {key for key in second if shared[key] != second[key]} == changed


def test_the_amount_of_an_epoch_follows_the_share(desk):
    registry = Registry(load_plugins())

    def tokens(*overrides):
        rows = estimate(plan_of(desk, *overrides), registry, DEVICE)
        return next(row["cost"]["tokens"] for row in rows if row["key"] == "warmup")

    alone, without = tokens(), tokens("~warmup.pairs")
    both = tokens("~warmup.pairs.share")
    assert both == pytest.approx(alone + without, rel=0.01)
    assert tokens("warmup.pairs.share=0.75") > tokens("warmup.pairs.share=0.25") > without


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["warmup.use=select-moe-constraint"], "does not learn from preference pairs"),
        (["warmup.pairs.use=less", "warmup.pairs.path=."], "cannot read preference pairs"),
        (["warmup.pairs.share=1.5"], "less than or equal to 1"),
        (["warmup.pairs.path=missing.jsonl"], "there is no"),
        (["warmup.pairs.pth=x"], "unknown option 'pth'"),
        (["warmup.pairs=3"], "must be a table"),
        (["~warmup.pairs.use"], "option 'use' is missing"),
    ],
)
def test_mistakes_are_reported_in_the_plan(desk, overrides, message):
    with pytest.raises(RecipeError) as error:
        plan_of(desk, *overrides)
    assert message in str(error.value)
    assert "[warmup.pairs]" in str(error.value)


def test_a_run_from_another_folder_finds_the_file(desk, monkeypatch):
    monkeypatch.chdir("/")
    plan = plan_of(desk)
    assert plan.recipe.resolved["warmup"]["pairs"]["path"] == str(desk / "preferences.jsonl")
    assert Path(plan.nodes["pairs"].config.path) == desk / "preferences.jsonl"
