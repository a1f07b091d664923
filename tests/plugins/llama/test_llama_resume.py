import shutil

import pytest
from llama_models import ADAPTER, conversations, llama, options, train

from selectmoe_core.errors import StageError
from selectmoe_core.models.models import ModelRef
from selectmoe_core.store import write_json
from selectmoe_core.training.checkpoint_files import checkpoint_files
from selectmoe_core.training.checkpoints import CIRCUMSTANCES, COMPLETE, last_checkpoint


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


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def same_size(path):
    path.write_bytes(b"{" * path.stat().st_size)


DAMAGE = {
    "the optimizer is lost": lambda last: (last / "optimizer.pt").unlink(),
    "the schedule is lost": lambda last: (last / "scheduler.pt").unlink(),
    "the random state is lost": lambda last: (last / "rng_state.pth").unlink(),
    "the optimizer is cut": lambda last: cut(last / "optimizer.pt"),
    "the weights are cut": lambda last: cut(last / ADAPTER),
    "the state is cut": lambda last: cut(last / "trainer_state.json"),
    "the state is empty": lambda last: (last / "trainer_state.json").write_bytes(b""),
    "the state is other bytes": lambda last: same_size(last / "trainer_state.json"),
    "the mark is cut": lambda last: cut(last / COMPLETE),
    "the mark is a list": lambda last: (last / COMPLETE).write_text("[]"),
    "the mark is of old": lambda last: (last / COMPLETE).write_text('{"step": 1}'),
    "the circumstances are cut": lambda last: cut(last.parent / CIRCUMSTANCES),
    "the circumstances are lost": lambda last: (last.parent / CIRCUMSTANCES).unlink(),
    "the circumstances are a text": lambda last: (last.parent / CIRCUMSTANCES).write_text('"x"'),
}


@pytest.fixture(scope="module")
def killed(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    config = options(max_steps=2, per_device_batch=2, checkpoint_minutes=1e-9)
    whole = tmp_path_factory.mktemp("whole")
    _, out = train(base, conversations(9), whole, config)
    with pytest.raises(KilledError):
        train(base, conversations(9), folder, config, metrics=killer(2))
    return folder, (out / ADAPTER).read_bytes()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_left_out_with_a_warning(base, tmp_path, killed, damage, capsys):
    folder, whole = killed
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    last = last_checkpoint(tmp_path / "checkpoints")
    assert last is not None
    assert last.name == "checkpoint-1"
    DAMAGE[damage](last)
    assert last_checkpoint(tmp_path / "checkpoints") is None
    curve = {}
    config = options(max_steps=2, per_device_batch=2, checkpoint_minutes=1e-9)
    _, out = train(base, conversations(9), tmp_path, config, metrics=curve.__setitem__)
    assert (out / ADAPTER).read_bytes() == whole
    assert sorted(curve) == [1, 2]
    assert "Warning: " in capsys.readouterr().err


def test_an_older_whole_checkpoint_is_taken_instead(tmp_path):
    for step in (1, 2, 10):
        made = tmp_path / f"checkpoint-{step}"
        made.mkdir()
        (made / "weights").write_text(f"{step}")
        write_json(made / COMPLETE, {"step": step, "files": checkpoint_files(made)})
    assert last_checkpoint(tmp_path) is None  # nobody knows what they were made with
    (tmp_path / CIRCUMSTANCES).write_text('{"device": "cpu", "dtype": "float32", "threads": 1}')
    assert last_checkpoint(tmp_path).name == "checkpoint-10"
    (tmp_path / "checkpoint-10" / "weights").write_text("1")
    assert last_checkpoint(tmp_path).name == "checkpoint-2"
