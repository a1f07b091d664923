"""The conformance kit: it passes sound parts and names what is wrong with broken ones."""

import ast
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ConfigDict

import selectmoe_core.testing as kit
from selectmoe_core import (
    About,
    Component,
    Config,
    Cost,
    Finish,
    Kind,
    Message,
    Need,
    RawExample,
    Reject,
    Selection,
    ShardScores,
    TokenDetail,
    execution_only,
)
from selectmoe_core.plugin.manager import find_plugins, load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.testing import (
    check_component,
    check_filter,
    check_plugin,
    check_reader,
    check_scorer,
    check_selector,
    generated_examples,
)


class Options(Config):
    """Do something simple."""

    batch: int = execution_only(8)
    """Examples at a time."""


class Score:
    """Length of the response; every broken scorer below changes one thing."""

    def __init__(self, config=None):
        self.config = config

    @contextmanager
    def open(self, job):
        self.job = job
        yield self

    def values(self, shard):
        return np.array([float(len(one.response)) for one in shard.examples])

    def score(self, shard):
        return ShardScores(self.values(shard))


class FirstOfChoice:
    """The best half; ties by id."""

    def __init__(self, config=None):
        self.config = config

    def order(self, scores):
        values, ids = scores.score(), scores.ids()
        order = np.lexsort((ids[:, 1], ids[:, 0], -np.nan_to_num(values, nan=-np.inf)))
        return order[: len(order) // 2]

    def select(self, scores, job):
        return Selection(self.order(scores))


ABOUT = About(meaning="a test")


def scorer(part, **changes):
    return replace(Component("part", Options, part, about=ABOUT), **changes)


# -------------------------------------------------------------------------------- scorers


class Skips(Score):
    def score(self, shard):
        values = self.values(shard)
        short = values < 60
        details = {"wide": np.stack([values, -values], axis=1)}
        reasons = ["short" if one else None for one in short]
        return ShardScores(np.where(short, np.nan, values), reasons, details, values[:, None])


class SeededScore(Score):
    def values(self, shard):
        return super().values(shard) * self.job.seed


class Combines:
    def __init__(self, config):
        pass

    def combine(self, tables, job):
        return ShardScores(sum(table.score() for table in tables.values()))


def test_sound_scorers_pass():
    check_scorer(scorer(Score))
    check_scorer(scorer(Skips))
    check_scorer(scorer(Shades))
    check_scorer(scorer(SeededScore, seeded=True))
    check_scorer(scorer(Score), examples=generated_examples(9, seed=4))
    check_scorer(scorer(Combines, needs=lambda _: frozenset({Need.SCORES})))


class Sorts(Score):
    """Scores in order of length: right numbers in the wrong rows."""

    def values(self, shard):
        return np.sort(super().values(shard))


class MeanOfShard(Score):
    def values(self, shard):
        values = super().values(shard)
        return values - values.mean()


class ByRow(Score):
    def values(self, shard):
        return super().values(shard) + shard.rows


class Dice(Score):
    def values(self, shard):
        return np.random.default_rng().random(len(shard.rows))


class Grows(Score):
    """Remembers what it saw before."""

    def __init__(self, config):
        self.calls = 0

    def values(self, shard):
        self.calls += 1
        return super().values(shard) + self.calls


class Holes(Score):
    def values(self, shard):
        values = super().values(shard)
        values[values < 60] = np.nan
        return values


class TooFew(Score):
    def values(self, shard):
        return super().values(shard)[1:]


class Constant(Score):
    def values(self, shard):
        return np.ones(len(shard.rows))


class SkipsAll(Score):
    def score(self, shard):
        count = len(shard.rows)
        return ShardScores(np.full(count, np.nan), ["no"] * count)


class ScoresAndSkips(Score):
    def score(self, shard):
        return ShardScores(self.values(shard), ["but why"] * len(shard.rows))


class GivesAnArray(Score):
    def score(self, shard):
        return self.values(shard)


class BatchMatters(Score):
    def values(self, shard):
        return super().values(shard) + self.config.batch


class DetailOfShard(Score):
    def score(self, shard):
        values = self.values(shard)
        return ShardScores(values, details={"rank": np.argsort(values)})


class SometimesADetail(Score):
    def score(self, shard):
        values = self.values(shard)
        return ShardScores(values, details={"d": values} if shard.number != 1 else {})


class FeatureOfShard(Score):
    def score(self, shard):
        values = self.values(shard)
        return ShardScores(values, features=(values / values.max())[:, None])


class NoScore(Score):
    score = None


class ScoresOneByOne(Score):
    def score(self, shard, example):
        return ShardScores(self.values(shard))


class BeginsWithoutAShard(Score):
    def begin(self):
        return None


class FinishesTwoTables(Score):
    def finish(self, table, other):
        return Finish()


class ChecksNothing(Score):
    check = "nothing"


class Shades(Score):
    """Length of the response, letter by letter."""

    def tokens(self, examples):
        return [self.detail(list(one.response)) for one in examples]

    def detail(self, letters):
        return TokenDetail("letters", letters, np.ones(len(letters)), np.ones(len(letters), bool))


class ShadesTooFew(Shades):
    def tokens(self, examples):
        return super().tokens(examples)[1:]


class ShadesHalf(Shades):
    def detail(self, letters):
        return replace(super().detail(letters), texts=letters[1:])


class ShadesNothing(Shades):
    def detail(self, letters):
        return replace(super().detail(letters), values=np.full(len(letters), np.nan))


class ShadesByList(Shades):
    def detail(self, letters):
        return letters


class ReadsThePool(Score):
    """Uses an input that it did not say it needs."""

    def values(self, shard):
        return super().values(shard) + len(str(self.job.inputs.pool.name))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Sorts, "'score' differs"),
        (MeanOfShard, "cut into shards of 7, 'score' differs"),
        (ByRow, "put in another order, 'score' differs"),
        (Dice, "run a second time, 'score' differs"),
        (Grows, "cut into shards of 7, 'score' differs"),
        (Holes, "no finite score and no reason"),
        (TooFew, "scores of shape"),
        (Constant, "all scores are equal"),
        (SkipsAll, "no example got a score"),
        (ScoresAndSkips, "skipped .* but has the score"),
        (GivesAnArray, "returned ndarray, not ShardScores"),
        (BatchMatters, "with another 'batch', 'score' differs"),
        (DetailOfShard, "'rank' differs"),
        (SometimesADetail, "not every shard has 'd'"),
        (FeatureOfShard, "'features' differs"),
        (SeededScore, "part uses job.seed but is not declared as seeded"),
        (NoScore, r"part: it has no method score\(shard\)"),
        (ScoresOneByOne, r"score\(shard, example\) cannot be called as score\(shard\)"),
        (BeginsWithoutAShard, r"begin\(\) cannot be called as begin\(shard\)"),
        (FinishesTwoTables, r"finish\(table, other\) cannot be called as finish\(table\)"),
        (ShadesTooFew, "returned 2 details for 3 examples"),
        (ShadesHalf, "texts, values and counts have the lengths"),
        (ShadesNothing, "counts for the score has no finite number"),
        (ShadesByList, "returned a list, not a TokenDetail"),
        (ChecksNothing, r"its check is not a method: the core calls check\(job\)"),
    ],
)
def test_broken_scorers_are_caught(part, message):
    with pytest.raises(AssertionError, match=message):
        check_scorer(scorer(part))


def test_a_seed_that_changes_nothing_is_caught():
    with pytest.raises(AssertionError, match="the seed changes nothing"):
        check_scorer(scorer(Score, seeded=True))


def test_an_input_that_is_not_needed_is_not_there():
    with pytest.raises(AssertionError, match=r"part uses job\.inputs\.pool but does not declare"):
        check_scorer(scorer(ReadsThePool))
    check_scorer(scorer(ReadsThePool, needs=lambda _: frozenset({Need.POOL})))


def test_tokens_are_there_for_those_who_need_them_only():
    class Tokens(Score):
        def values(self, shard):
            return super().values(shard) + len(self.job.encoded(None))

    with pytest.raises(AssertionError, match=r"job\.encoded but does not declare Need\.TOKENS"):
        check_scorer(scorer(Tokens))


def test_a_scorer_that_needs_a_model_must_be_given_one():
    with pytest.raises(AssertionError, match=r"check_scorer\(\.\.\., model="):
        check_scorer(scorer(Score, needs=lambda _: frozenset({Need.MODEL})))


def test_a_scorer_over_tables_must_repeat_itself():
    class Wobbles(Combines):
        def combine(self, tables, job):
            return ShardScores(np.random.default_rng().random(len(next(iter(tables.values())))))

    with pytest.raises(AssertionError, match="second time"):
        check_scorer(scorer(Wobbles, needs=lambda _: frozenset({Need.SCORES})))


# ------------------------------------------------------------------------------- selectors


class ByPosition(FirstOfChoice):
    """Ties by position in the pool."""

    def order(self, scores):
        order = np.argsort(-np.nan_to_num(scores.score(), nan=-np.inf), kind="stable")
        return order[: len(order) // 2]


class KeepsSkipped(FirstOfChoice):
    def order(self, scores):
        return np.argsort(scores.score())[::-1][:20]


class Twice(FirstOfChoice):
    def order(self, scores):
        return np.repeat(super().order(scores), 2)


class Outside(FirstOfChoice):
    def order(self, scores):
        return np.array([len(scores)])


class Nothing(FirstOfChoice):
    def order(self, scores):
        return np.empty(0, dtype=int)


class Mask(FirstOfChoice):
    def order(self, scores):
        return scores.score() > 0.5


class ByValue(FirstOfChoice):
    def order(self, scores):
        order = super().order(scores)
        return order[scores.score()[order] > 0.6]


class ByPart(FirstOfChoice):
    def order(self, scores):
        return super().order(scores)[len(scores.parts) :]


class Draws(FirstOfChoice):
    def select(self, scores, job):
        order = super().order(scores)
        return Selection(order[job.seed % 7 :])


class LameGroup(FirstOfChoice):
    def select(self, scores, job):
        return Selection(self.order(scores), group=["a"])


class GivesRows(FirstOfChoice):
    def select(self, scores, job):
        return self.order(scores)


def test_sound_selectors_pass():
    check_selector(scorer(FirstOfChoice))
    check_selector(scorer(ByValue, by_rank=False))
    check_selector(scorer(Draws, seeded=True))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (ByPosition, "break ties by id"),
        (KeepsSkipped, "kept a row that was skipped"),
        (Twice, "kept a row twice"),
        (Outside, "outside the table"),
        (Nothing, "kept nothing"),
        (Mask, "rows are bool, not integers"),
        (ByValue, "declare by_rank=False"),
        (ByPart, "with the table in 7 parts"),
        (Draws, "part uses job.seed but is not declared as seeded"),
        (LameGroup, "'group' must have one entry"),
        (GivesRows, "returned ndarray, not a Selection"),
    ],
)
def test_broken_selectors_are_caught(part, message):
    with pytest.raises(AssertionError, match=message):
        check_selector(scorer(part))


# --------------------------------------------------------------------------------- readers


class Reads:
    rows = (
        RawExample("s", (Message("user", "hi"), Message("assistant", "ho")), where="f:1"),
        Reject("s", "f:2", "not JSON"),
    )

    def __init__(self, config):
        pass

    def read(self, job):
        yield from self.rows


def test_a_sound_reader_passes():
    assert check_reader(scorer(Reads)) == Reads.rows


def _reads(*rows):
    return type("Other", (Reads,), {"rows": rows})


class ReadsAList(Reads):
    def read(self, job):
        return list(self.rows)


class ReadsOnce(Reads):
    count = 0

    def read(self, job):
        type(self).count += 1
        yield from self.rows[: 3 - self.count]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (_reads(), "read nothing"),
        (_reads({"messages": []}), "yielded a dict"),
        (_reads(replace(Reads.rows[0], source="")), "has no source"),
        (_reads(replace(Reads.rows[0], where="")), "where it was found"),
        (_reads(replace(Reads.rows[1], reason="")), "no reason"),
        (_reads(Reads.rows[1]), "the pool is empty"),
        (ReadsAList, "row by row"),
        (ReadsOnce, "a second read returns other rows"),
    ],
)
def test_broken_readers_are_caught(part, message):
    with pytest.raises(AssertionError, match=message):
        check_reader(scorer(part))


def test_a_file_that_a_reader_names_must_be_there(tmp_path):
    missing = scorer(Reads, files=lambda _: [tmp_path / "none"])
    with pytest.raises(AssertionError, match="does not exist"):
        check_reader(missing)


# ------------------------------------------------------------------------------ components


class Loose(Config):
    """Take anything."""

    model_config = ConfigDict(extra="allow")


class Thaw(Config):
    """Change anything."""

    model_config = ConfigDict(frozen=False)


class Undocumented(Config):
    """Say nothing."""

    mystery: int = 3


class Reserved(Config):
    """Use a key of the table."""

    seed: int = 3
    """A seed."""


class ReservedByScore(Config):
    """Use a key of the score's table."""

    max_skipped: float = 0.5
    """A share."""


class NoSummary(Config):
    pass


class NoFullStop(Config):
    """Do something"""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Big Name"}, "lower-case words joined by dashes"),
        ({"name": "a.b"}, "lower-case words"),
        ({"config": dict}, "must be a subclass of"),
        ({"config": Loose}, "extra=forbid"),
        ({"config": Thaw}, "frozen=True"),
        ({"config": Undocumented}, "option 'mystery' needs a sentence"),
        ({"config": Reserved}, "'seed' is a key that every such table has"),
        ({"config": ReservedByScore}, "'max_skipped' is a key"),
        ({"config": NoSummary}, "docstring is its summary"),
        ({"config": NoFullStop}, "docstring is its summary"),
        ({"about": About()}, "what the number means"),
        ({"needs": lambda _: {"model"}}, "frozenset of Need"),
        ({"needs": lambda _: frozenset({"model", 3})}, "frozenset of Need"),
        ({"scores": lambda _: ["a"]}, "does not need SCORES"),
        ({"files": lambda _: ["a"]}, "not a Path"),
        ({"cost": lambda *_: 3}, "not a Cost"),
    ],
)
def test_broken_descriptions_are_caught(changes, message):
    with pytest.raises(AssertionError, match=message):
        check_component(scorer(Score, **changes), kind=Kind.SCORER)


class ReservedByTrain(Config):
    """Use a key of a table that only some stages have."""

    data: str = "x"
    """A file."""


def test_the_keys_of_every_table_that_takes_the_component_are_reserved():
    component = Component("mine", ReservedByTrain, list)
    check_component(component, kind=Kind.SELECTOR)
    with pytest.raises(AssertionError, match="'data' is a key that every such table has"):
        check_component(component, kind=Kind.TRAINER)


def test_a_sound_description_passes_and_gives_the_options():
    sound = scorer(Score, cost=lambda *_: Cost())
    assert check_component(sound, options={"batch": 3}) == Options(batch=3)
    with pytest.raises(AssertionError, match="unknown option 'bath'"):
        check_component(sound, options={"bath": 3})


def _plugin(folder: Path, monkeypatch, name: str, text: str) -> str:
    (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return name


SOUND = """
from selectmoe_core import About, Component, Config, hookimpl

class Nothing(Config):
    \"\"\"Do nothing.\"\"\"

@hookimpl
def selectmoe_scorers():
    return [Component("nothing", Nothing, lambda config: config, about=About("nothing"))]
"""


def test_a_sound_plugin_passes(tmp_path, monkeypatch):
    check_plugin(_plugin(tmp_path, monkeypatch, "plugin_sound", SOUND))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "hookless",
            SOUND.replace("@hookimpl", ""),
            "plugin_hookless implements no hook",
        ),
        ("heavy", "import torch\n" + SOUND, "imports torch.*: move that into the build function"),
        ("environment", "import os; os.environ['X_TEST'] = '1'\n" + SOUND, "changes os.environ"),
        (
            "misspelt",
            SOUND.replace("selectmoe_scorers", "selectmoe_scorer"),
            "hook 'selectmoe_scorer'.* does not exist",
        ),
        ("undescribed", SOUND.replace("Do nothing.", "Do"), "docstring is its summary"),
        ("twice", SOUND.replace('about=About("nothing"))]', 'about=About("n"))] * 2'), "offered"),
        ("syntax", "def", "cannot be imported"),
    ],
)
def test_broken_plugins_are_caught(tmp_path, monkeypatch, name, text, message):
    module = _plugin(tmp_path, monkeypatch, f"plugin_{name}", text)
    with pytest.raises(AssertionError, match=message):
        check_plugin(module)


# --------------------------------------------------------------------------- what is installed


ENTRIES = list(Registry(load_plugins()))
SMALL = {
    "top-k": {"k": 20},
    "round-robin": {"k": 20},
    "cluster-round-robin": {"k": 20, "clusters": 5},
    "k-center": {"k": 20},
    "facility-location": {"k": 20},
    "judge": {"template": "{output}"},
    "file": {"path": "scores.jsonl"},
    "threshold": {"min": 0.5},
    "filter length": {"min_answer": 50, "max_prompt": 200},
    "regex": {"patterns": ["few|long"]},
}
"""Options for those whose defaults do not fit a small table."""


def test_there_is_something_installed():
    assert len(ENTRIES) >= 5


@pytest.mark.parametrize("plugin", find_plugins(), ids=lambda entry: entry.name)
def test_installed_plugins_conform(plugin):
    check_plugin(plugin.value)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.component.name}")
def test_installed_components_conform(entry):
    component = entry.component
    options = SMALL.get(f"{entry.kind} {component.name}", SMALL.get(component.name))
    config = check_component(component, kind=entry.kind, options=options)
    needs = component.needs(config) if config else {Need.MODEL}
    if entry.kind is Kind.SELECTOR and Need.MODEL not in needs:
        check_selector(component, options=options)
    elif component.name == "file":
        assert needs == {Need.POOL}  # its own tests give it a file
    elif entry.kind is Kind.SCORER and Need.MODEL not in needs:
        check_scorer(component, options=options)
    elif entry.kind is Kind.FILTER:
        model = "bundled:nano-llama" if Need.MODEL in needs else None
        check_filter(component, options=options, model=model)


def test_the_usage_example_names_what_there_is():
    block = kit.__doc__.partition("::\n")[2].partition("\nGive a small model")[0]
    tree = ast.parse("\n".join(line.removeprefix("    ") for line in block.splitlines()))
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "selectmoe_core.testing"
        for alias in node.names
    }
    assert names
    assert names <= set(kit.__all__)
