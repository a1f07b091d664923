"""A job gives what its component declares and nothing else."""

from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path

import pytest

from selectmoe_core import Component, Config, Job, ModelRef, Need
from selectmoe_core.errors import PluginError
from selectmoe_core.plugin.declared import OF_INPUTS, OF_JOB, declared
from selectmoe_core.plugin.protocols import Inputs

CHANGES_NO_RESULT = {"device", "dtype", "world", "scratch", "checkpoints", "progress", "metrics"}
"""Where and how a part computes, and where it writes: a resume that would mix these stops."""
FULL = Job(
    seed=3,
    inputs=Inputs(
        ModelRef("m"),
        Path("pool"),
        {"a": Path("a")},
        targets=Path("targets"),
        vectors=Path("vectors"),
        target_vectors=Path("target vectors"),
        checkpoints=Path("checkpoints"),
    ),
    bundled_tasks={"mine": Path("mine"), "other": Path("other")},
    encoded=lambda tokenizer: tokenizer,
)
READS = [
    ("models", Need.MODEL),
    ("inputs.model", Need.MODEL),
    ("inputs.pool", Need.POOL),
    ("inputs.questions", Need.QUESTIONS),
    ("inputs.scores", Need.SCORES),
    ("inputs.targets", Need.TARGETS),
    ("inputs.vectors", Need.FEATURES),
    ("inputs.checkpoints", Need.CHECKPOINTS),
    ("inputs.pairs", Need.PAIRS),
    ("encoded", Need.TOKENS),
    ("chat", Need.TOKENS),
    ("damages", Need.DAMAGES),
    ("bundled_tasks", Need.TASKS),
]


class Options(Config):
    """Has tasks."""

    tasks: tuple[str, ...] = ()
    """The tasks."""


def job(*needs: Need, config: Config | None = None, seeded: bool = False) -> Job:
    component = Component("mine", Options, list, needs=lambda _: frozenset(needs), seeded=seeded)
    return declared(FULL, component, config or Options(), where="[score]")


@pytest.mark.parametrize(("field", "need"), READS)
def test_what_is_not_declared_cannot_be_read(field, need):
    others = set(Need) - {need}
    with pytest.raises(PluginError) as caught:
        attrgetter(field)(job(*others, seeded=True))
    assert str(caught.value) == (
        f"[score] mine uses job.{field} but does not declare Need.{need.name}"
    )
    assert f"frozenset({{Need.{need.name}" in caught.value.hint
    assert caught.value.exit_code == 3
    if need is not Need.TASKS:
        assert attrgetter(field)(job(need)) is attrgetter(field)(FULL)


@pytest.mark.parametrize("lacking", [Need.FEATURES, Need.TARGETS])
def test_vectors_of_targets_take_both_needs(lacking):
    with pytest.raises(PluginError, match=rf"does not declare Need\.{lacking.name}"):
        _ = job(*set(Need) - {lacking}).inputs.target_vectors
    both = job(Need.FEATURES, Need.TARGETS)
    assert both.inputs.target_vectors == Path("target vectors")


def test_a_seed_is_for_those_who_say_that_they_draw():
    with pytest.raises(PluginError, match=r"\[score\] mine uses job\.seed but is not declared"):
        _ = job(*Need).seed
    assert job(seeded=True).seed == 3


def test_bundled_tasks_are_those_that_options_name():
    given = job(Need.TASKS, config=Options(tasks=("bundled:mine/part", "arc"))).bundled_tasks
    assert sorted(given) == ["mine", "other"]
    assert given["mine"] == Path("mine")
    with pytest.raises(
        PluginError, match=r"job\.bundled_tasks\['other'\], which none of its options"
    ):
        _ = given["other"]
    with pytest.raises(KeyError):
        _ = given["none"]


def test_every_field_is_withheld_or_changes_no_result():
    """A new field of a job must be put into one of these lists."""
    assert {field.name for field in fields(Job)} == (
        set(OF_JOB) | {"seed", "inputs"} | CHANGES_NO_RESULT
    )
    assert {field.name for field in fields(Inputs)} == set(OF_INPUTS)
    in_checkpoints = {Need.MOMENTS}  # it has no field of its own
    assert {need for _, need in READS} == set(Need) - in_checkpoints
    for name in CHANGES_NO_RESULT:
        getattr(job(), name)


def test_a_changed_job_withholds_the_same():
    changed = job(Need.TOKENS).changed(device="cuda")
    assert changed.device == "cuda"
    assert changed.chat is FULL.chat
    with pytest.raises(PluginError, match=r"Need\.MODEL"):
        _ = changed.models
    with pytest.raises(PluginError, match=r"job\.seed"):
        replace(changed, device="cpu")


def test_a_job_made_by_hand_withholds_nothing():
    made = Job(seed=1)
    assert (made.seed, made.inputs.model, dict(made.damages)) == (1, None, {})


@pytest.mark.parametrize("use", ["fake-score", "fake-child"])
def test_a_run_ends_where_a_scorer_reads_what_it_did_not_declare(project, use):
    said = project.run(f"score.use={use}", "score.reads=chat", "--until", "score")
    assert said.code == 3, said.err
    assert f"[score] {use} uses job.chat but does not declare Need.TOKENS" in said.err
    assert "Traceback" not in said.err
    options = ("score.reads=chat", "score.reads_tokens=true", "score.reads_model=false")
    assert project.run("score.use=fake-score", *options, "--until", "score").code == 0


def test_a_trainer_reads_tokens_of_its_examples_only_if_it_declares_them(tmp_path):
    from selectmoe_core.stages.train import PoolRows

    for whole in (True, False):
        rows = PoolRows(None, [], job(Need.MODEL), tmp_path, whole=whole)
        with pytest.raises(PluginError, match=r"uses job\.encoded but does not declare"):
            rows.encoded(None)
