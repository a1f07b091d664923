import shutil

import pytest
from llama_models import ADAPTER, conversations, llama, options, train

from selectmoe_core.errors import StageError
from selectmoe_core.models.models import ModelRef
from selectmoe_core.training.checkpoints import COMPLETE, last_checkpoint


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> ModelRef:
    return llama(tmp_path_factory.mktemp("llama"))


class KilledError(Exception):
    pass


def killer(at):
    def metrics(step, values):
        if step == at:
            raise KilledError

    return metrics


@pytest.fixture(scope="module")
def uninterrupted(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    curve = {}
    config = options(max_steps=5, per_device_batch=2, checkpoint_minutes=1e-9)
    _, out = train(base, conversations(19), folder, config, metrics=curve.__setitem__)
    return (out / ADAPTER).read_bytes(), curve


@pytest.mark.parametrize("broken", ["nothing", "half a checkpoint", "the mark", "all"])
def test_a_resumed_run_ends_in_the_same_bytes(base, tmp_path, uninterrupted, broken):
    """Killed in step 5, two steps into the second epoch; dropout is on."""
    config = options(max_steps=5, per_device_batch=2, checkpoint_minutes=1e-9)
    with pytest.raises(KilledError):
        train(base, conversations(19), tmp_path, config, metrics=killer(5))
    last = last_checkpoint(tmp_path / "checkpoints")
    assert last is not None
    assert last.name == "checkpoint-4"
    if broken == "half a checkpoint":
        half = tmp_path / "checkpoints" / "checkpoint-5"
        half.mkdir()
        (half / ADAPTER).write_bytes((last / ADAPTER).read_bytes()[:100])
        (half / "trainer_state.json").write_text("{")
    elif broken == "the mark":
        (last / COMPLETE).unlink()
    elif broken == "all":
        shutil.rmtree(tmp_path / "checkpoints")
    curve = {}
    facts, out = train(base, conversations(19), tmp_path, config, metrics=curve.__setitem__)
    whole, whole_curve = uninterrupted
    assert (out / ADAPTER).read_bytes() == whole
    assert curve == {step: whole_curve[step] for step in curve}
    assert min(curve) == (5 if broken in ("nothing", "half a checkpoint") else 1)
    assert facts["steps"] == 5
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")] == [
        "checkpoint-5"
    ]


def test_a_finished_run_repeats_from_its_last_checkpoint(base, tmp_path):
    config = options(max_steps=5, per_device_batch=2, scheduler="constant_with_warmup")
    first, out = train(base, conversations(19), tmp_path, config)
    weights = (out / ADAPTER).read_bytes()
    shutil.rmtree(out)
    curve = {}
    again, out = train(base, conversations(19), tmp_path, config, metrics=curve.__setitem__)
    assert (out / ADAPTER).read_bytes() == weights
    assert curve == {}
    assert again["final_loss"] == first["final_loss"]


def test_a_resume_in_another_dtype_stops(base, tmp_path):
    train(base, conversations(4), tmp_path, options(max_steps=1))
    with pytest.raises(StageError, match=r"made with .*float32.*this run has .*bfloat16"):
        train(base, conversations(4), tmp_path, options(max_steps=1), dtype="bfloat16")


def test_the_seed_decides(base, tmp_path, uninterrupted):
    config = options(max_steps=5, per_device_batch=2)
    _, out = train(base, conversations(19), tmp_path, config, seed=8)
    assert (out / ADAPTER).read_bytes() != uninterrupted[0]
