"""What goes wrong in a plugin is reported as that plugin's, with its component and its rows."""

import errno
from contextlib import contextmanager

import numpy as np
import pytest

from selectmoe_core import (
    Component,
    Config,
    Finish,
    Need,
    Selection,
    Shard,
    ShardScores,
    StageError,
    TokenDetail,
)
from selectmoe_core.errors import PartError, PluginError
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Entry

SHARD = Shard(1, np.arange(8, 16), ())


class Nothing(Config):
    """Has no options."""


class Part:
    """Whatever a test needs, by name of the method."""

    def __init__(self, **methods):
        vars(self).update(methods)


def entry(kind: Kind, part: object, needs: frozenset[Need] = frozenset()) -> Entry:
    component = Component("mine", Nothing, lambda _: part, needs=lambda _: needs)
    return Entry(kind, component, "theirs")


def built(kind: Kind, needs: frozenset[Need] = frozenset(), **methods):
    return entry(kind, Part(**methods), needs).build(Nothing(), where="[stage]")


def fails(*_):
    raise ValueError("no number\nand more")


def scoring(score, **more):
    @contextmanager
    def opened(job):
        yield Part(score=score, **more)

    return built(Kind.SCORER, open=opened)


def test_an_error_in_a_method_names_component_plugin_and_rows():
    with pytest.raises(PartError) as caught, scoring(lambda shard: fails()).open(None) as scorer:
        scorer.score(SHARD)
    error = caught.value
    assert str(error) == (
        "[stage] mine: score() for the pool's rows 8 to 15 failed: ValueError: no number"
    )
    assert "this is an error of the plugin 'theirs', not of selectmoe" in error.hint
    assert "in fails" in error.traceback
    assert error.traceback.rstrip().endswith("and more")
    assert error.exit_code == 1


def test_a_shard_that_is_begun_and_fails_later_names_its_rows():
    part = scoring(lambda shard: None, begin=lambda shard: fails)
    with part.open(None) as scorer, pytest.raises(PartError, match="rows 8 to 15 failed"):
        scorer.begin(SHARD)()
    good = ShardScores(np.zeros(8))
    with scoring(lambda shard: None, begin=lambda shard: lambda: good).open(None) as scorer:
        assert scorer.begin(SHARD)() is good


def test_numbers_of_tokens_are_details_or_nothing():
    good = TokenDetail("loss", ("a",), np.ones(1), np.ones(1, dtype=bool))
    for returned in ([good], None, []):
        part = scoring(lambda shard: None, tokens=lambda some, returned=returned: returned)
        with part.open(None) as scorer:
            assert scorer.tokens([]) is returned
    part = scoring(lambda shard: None, tokens=lambda some: [good, "a"])
    with part.open(None) as scorer, pytest.raises(PluginError, match="a TokenDetail for each"):
        scorer.tokens([])


def test_a_reader_that_fails_names_the_row():
    from selectmoe_core import Message, RawExample

    def read(job):
        yield RawExample("s", (Message("user", "a"), Message("assistant", "b")))
        fails()

    rows = built(Kind.READER, read=read).read(None)
    assert next(rows).source == "s"
    with pytest.raises(PartError, match=r"mine: read\(\) at row 2 failed: ValueError"):
        next(rows)


def test_opening_and_closing_are_the_plugins_too():
    @contextmanager
    def opens_badly(job):
        fails()
        yield

    @contextmanager
    def closes_badly(job):
        yield Part(score=lambda shard: ShardScores(np.zeros(1)))
        fails()

    with pytest.raises(PartError, match=r"open\(\) failed"):
        built(Kind.SCORER, open=opens_badly).open(None).__enter__()
    scorer = built(Kind.SCORER, open=closes_badly).open(None)
    scorer.__enter__()
    with pytest.raises(PartError, match="closing it failed"):
        scorer.__exit__(None, None, None)


def test_an_error_of_the_core_within_the_block_is_not_the_plugins():
    with pytest.raises(ZeroDivisionError), scoring(lambda shard: None).open(None):
        _ = 1 / 0


@pytest.mark.parametrize(
    "error", [StageError("meant"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()]
)
def test_what_is_meant_for_the_user_passes(error):
    def select(scores, job):
        raise error

    with pytest.raises(type(error)) as caught:
        built(Kind.SELECTOR, select=select).select(None, None)
    assert caught.value is error


def test_an_error_within_the_core_that_a_plugin_called_is_of_one_of_the_two():
    from selectmoe_core.data import hash_ids

    part = built(Kind.SELECTOR, select=lambda scores, job: hash_ids("text", 3))
    with pytest.raises(PartError) as caught:
        part.select(None, None)
    assert "the plugin 'theirs' called selectmoe_core.data.pool: the error is in one" in (
        caught.value.hint
    )


@pytest.mark.parametrize(
    ("kind", "methods", "call", "message"),
    [
        (Kind.READER, {"read": lambda job: None}, "read", r"read\(\) returned NoneType None"),
        (Kind.READER, {"read": lambda job: iter([3])}, "read",
         r"read\(\) yielded int 3 as row 1; expected RawExample or Reject"),
        (Kind.SCORER, {"open": lambda job: 3}, "open",
         r"open\(\) returned int 3; expected a context manager"),
        (Kind.SELECTOR, {"select": lambda scores, job: [1]}, "select",
         r"select\(\) returned list \[1\]; expected a Selection"),
        (Kind.TRAINER, {"train": lambda model, examples, out, job: None}, "train",
         r"train\(\) returned NoneType None; expected a mapping of facts"),
        (Kind.EVALUATOR, {"evaluate": lambda model, out, job: 0.5}, "evaluate",
         r"evaluate\(\) returned float 0.5; expected a mapping"),
    ],
)  # fmt: skip
def test_a_wrong_return_is_reported_with_what_was_expected(kind, methods, call, message):
    part = built(kind, **methods)
    arguments = {"select": 2, "train": 4, "evaluate": 3}.get(call, 1)
    finish = {"open": lambda found: found.__enter__(), "read": list}.get(call, bool)
    with pytest.raises(PluginError, match=rf"\[stage\] mine: {message}") as caught:
        finish(getattr(part, call)(*range(arguments)))
    assert "'theirs' must be fixed" in caught.value.hint
    assert caught.value.exit_code == 3


def test_right_returns_pass_and_so_does_what_is_optional():
    def combine(tables, job):
        return ShardScores(np.zeros(2))

    part = built(Kind.SCORER, frozenset({Need.SCORES}), combine=combine)
    assert len(part.combine({}, None).score) == 2
    part = scoring(lambda shard: ShardScores(np.zeros(8)))
    assert not hasattr(part, "finish")
    with part.open(None) as scorer:
        assert not hasattr(scorer, "begin")
        assert len(scorer.score(SHARD).score) == 8
    finishing = built(Kind.SCORER, open=lambda job: None, finish=lambda table: Finish())
    assert finishing.finish(None) == Finish()
    chosen = Selection(np.array([1]))
    assert built(Kind.SELECTOR, select=lambda scores, job: chosen).select(None, None) is chosen


@pytest.mark.parametrize(
    ("kind", "methods", "message"),
    [
        (Kind.READER, {}, r"Part does not fit: it has no method read\(job\)"),
        (
            Kind.SELECTOR,
            {"select": lambda scores: None},
            r"cannot be called as select\(scores, job",
        ),
        (Kind.SCORER, {"open": lambda job: None, "check": lambda: None}, r"as check\(job\)"),
        (Kind.TRAINER, {"train": 3}, r"it has no method train\(model, examples, out, job\)"),
    ],
)
def test_a_part_with_other_methods_is_refused_before_it_is_called(kind, methods, message):
    with pytest.raises(PluginError, match=message):
        built(kind, **methods)


def test_a_build_that_fails_is_the_plugins():
    component = Component("mine", Nothing, fails)
    with pytest.raises(PartError, match=r"\[stage\] mine: building it failed: ValueError"):
        Entry(Kind.READER, component, "theirs").build(Nothing(), where="[stage]")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"needs": lambda config: ["pool"]},
            r"needs\(config\) returned list .*a frozenset of Need",
        ),
        ({"needs": fails}, r"needs\(config\) failed: ValueError"),
        ({"files": lambda config: ["a"]}, r"files\(config\) returned list .* expected Paths"),
        ({"scores": lambda config: "abc"}, r"scores\(config\) returned str 'abc'; expected strs"),
        ({"scores": lambda config: 3}, r"scores\(config\) returned int 3; expected strs"),
        ({"max_skipped": lambda config: 2}, r"max_skipped\(config\) .*a number from 0 to 1"),
        ({"max_skipped": lambda config: "1"}, r"max_skipped\(config\) .*a number from 0 to 1"),
        ({"max_skipped": fails}, r"max_skipped\(config\) failed: ValueError"),
        ({"damages": lambda config: "typos"}, r"damages\(config\) .*strs, one by one, or None"),
        ({"keeps": lambda config: {"model"}}, r"keeps\(config\) .*a frozenset of Need"),
        ({"questions": lambda config: {}}, r"questions\(config\) .*options of the same class"),
        ({"details": lambda config: {"a": "b"}}, r"details\(config\) .*names to Meaning"),
    ],
)
def test_what_a_component_says_of_itself_is_checked(fields, message):
    made = Entry(Kind.SCORER, Component("mine", Nothing, list, **fields), "theirs")
    with pytest.raises((PluginError, PartError), match=rf"\[score\] mine: {message}"):
        made.check_answers(Nothing(), where="[score]")


# ------------------------------------------------------------------------------ in a whole run


@pytest.mark.parametrize("use", ["fake-score", "fake-child"])
def test_a_run_says_whose_the_error_is(project, use):
    said = project.run(f"score.use={use}", "score.breaks=score", "--until", "score")
    assert said.code == 1
    assert "Traceback" in said.err
    assert f"[score] {use}: score() for the pool's rows 16 to 23 failed: AttributeError" in said.err
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("Hint: this is an error of the plugin 'fake' (fake-dist 1.5)")
    assert "bug of selectmoe" not in said.err
    assert said.err.count("Traceback") == 1
    (folder,) = project.runs()
    assert "nothing_like_this" in (folder / "run.log").read_text()
    assert project.run(f"score.use={use}", "--until", "score").code == 0


def test_one_of_several_scores_is_named_by_its_own_table(project):
    text = project.recipe.read_text()
    project.recipe.write_text(text.replace("[score]", "[score.own]"))
    said = project.run("score.own.use=fake-score", "score.own.breaks=none", "--until", "score")
    assert "[score.own] fake-score: score() returned NoneType None" in said.err


@pytest.mark.parametrize("use", ["fake-score", "fake-child"])
@pytest.mark.parametrize(("breaks", "shown"), [("none", "NoneType None"), ("type", "ndarray")])
def test_a_run_says_what_was_expected(project, use, breaks, shown):
    said = project.run(f"score.use={use}", f"score.breaks={breaks}", "--until", "score")
    assert said.code == 3
    assert f"[score] {use}: score() returned {shown}" in said.err
    assert "expected ShardScores" in said.err
    assert "Traceback" not in said.err


def test_the_page_lists_every_optional_method():
    import inspect
    from pathlib import Path

    from selectmoe_core.plugin.optional import OPTIONAL

    page = (Path(__file__).parents[3] / "docs" / "plugins.md").read_text(encoding="utf-8")
    table = page.partition("## Optional methods")[2].partition("## ")[0]
    methods = {
        f"`{name}({', '.join(list(inspect.signature(method).parameters)[1:])})`"
        for optional in {one for found in OPTIONAL.values() for one in found}
        for name, method in vars(optional).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }
    assert len(methods) == table.count("\n|") - 2
    assert all(method in table for method in methods)
