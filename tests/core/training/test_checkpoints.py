"""When a checkpoint is made, when it counts, and which are kept."""

from types import SimpleNamespace

import pytest

from selectmoe_core.training.checkpoints import (
    CIRCUMSTANCES,
    COMPLETE,
    Checkpoints,
    complete_checkpoints,
    last_checkpoint,
    remove_broken_checkpoints,
)


def train(folder, steps, *, seconds=1e9, keep_every=None, half=()):
    """Walk through steps as the Trainer would; return those at which it was asked to save."""
    callback = Checkpoints(seconds, keep_every)
    arguments = SimpleNamespace(output_dir=str(folder))
    state = SimpleNamespace(global_step=0, max_steps=steps, is_world_process_zero=True)
    asked = []
    callback.on_train_begin(arguments, state, None)
    for state.global_step in range(1, steps + 1):
        control = SimpleNamespace(should_save=False)
        callback.on_step_end(arguments, state, control)
        if control.should_save:
            asked.append(state.global_step)
            made = folder / f"checkpoint-{state.global_step}"
            made.mkdir()
            (made / "weights").write_text("w")
            (made / "pytorch_model_fsdp.bin").write_text("a pickle of the same")
            if state.global_step not in half:
                callback.on_save(arguments, state, control)
    return asked


@pytest.mark.parametrize(
    ("options", "asked", "left"),
    [
        ({}, [12], [12]),
        ({"seconds": 0.0}, list(range(1, 13)), [12]),
        ({"keep_every": 5}, [5, 10, 12], [5, 10, 12]),
        ({"keep_every": 4, "seconds": 0.0}, list(range(1, 13)), [4, 8, 12]),
    ],
)
def test_what_is_asked_for_and_what_is_left(tmp_path, options, asked, left):
    assert train(tmp_path, 12, **options) == asked
    names = [f"checkpoint-{step}" for step in left]
    assert [folder.name for folder in complete_checkpoints(tmp_path)] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for folder in complete_checkpoints(tmp_path):
        assert sorted(path.name for path in folder.iterdir()) == [COMPLETE, "weights"]


def test_half_a_checkpoint_is_none(tmp_path):
    train(tmp_path, 11, keep_every=3, half=(11,))
    (tmp_path / CIRCUMSTANCES).write_text('{"device": "cpu", "dtype": "float32", "threads": 1}')
    assert last_checkpoint(tmp_path).name == "checkpoint-9"  # not the first by its letters
    assert (tmp_path / "checkpoint-11").exists()
    remove_broken_checkpoints(tmp_path)
    assert not (tmp_path / "checkpoint-11").exists()
    assert last_checkpoint(tmp_path / "none") is None
