"""The shared trainer on a model of two numbers, beside the same steps by hand."""

import json

import pytest
import torch
from torch import nn
from transformers import Trainer

from selectmoe_core.errors import StageError
from selectmoe_core.plugin.protocols import Job
from selectmoe_core.training.arguments import training_arguments
from selectmoe_core.training.checkpoints import last_checkpoint
from selectmoe_core.training.trainer import StepTrainer

RATE, SHARE = 0.1, 4
POINTS = torch.linspace(-2, 2, 10)


class Options:
    """What every trainer's options have."""

    epochs, max_steps, scheduler, warmup_ratio = 2.0, None, "constant_with_warmup", 0.0
    weight_decay, max_grad_norm, activation_checkpointing = 0.0, 1e9, False


class Line(nn.Module):
    """A line whose intercept is not trained."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5))
        self.intercept = nn.Parameter(torch.tensor(1.0), requires_grad=False)

    def forward(self, x):
        return self.slope * x + self.intercept


class Backwards(torch.utils.data.Sampler):
    """An order that is none of Trainer's own."""

    def __len__(self):
        return len(POINTS)

    def __iter__(self):
        return iter(range(len(POINTS) - 1, -1, -1))


class Fitted(StepTrainer):
    """Fits the line to 3 x; notes where its weights were saved and loaded."""

    saved, loaded = (), ()

    def pass_loss(self, model, inputs):
        return ((model(inputs) - 3 * inputs) ** 2).sum() / self.totals[1]

    def save_weights(self, folder, whole):
        assert whole is None
        self.saved += (folder.name,)
        (folder / "slope.json").write_text(json.dumps(self.model.slope.item()))

    def load_weights(self, model, folder):
        self.loaded += (folder.name,)
        with torch.no_grad():
            model.slope.fill_(json.loads((folder / "slope.json").read_text()))

    def figures(self):
        return {"slope": self.model.slope.item()}


def passes(rows):
    """Cut a share into passes of three."""
    x = torch.stack(list(rows))
    return {"passes": list(x.split(3)), "totals": torch.tensor([7.0 * len(x), float(len(x))])}


def trainer(folder, *, metrics=lambda *_: None):
    job = Job(seed=3, checkpoints=folder, metrics=metrics)
    arguments = training_arguments(job, Options(), learning_rate=RATE, share=SHARE, bf16=False)
    return Fitted(
        model=Line(),
        args=arguments,
        train_dataset=list(POINTS),
        data_collator=passes,
        sampler=Backwards(),
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": RATE}),
        job=job,
        label="fitting",
        checkpoint_minutes=1e-9,
    )


def by_hand(steps):
    """Return the loss and the slope before each step, and the last slope."""
    slope, found = torch.tensor(0.5, dtype=torch.float64), []
    while len(found) < steps:
        for x in POINTS.double().flip(0).split(SHARE):
            error = slope * x + 1 - 3 * x
            found.append(((error**2).mean().item(), slope.item()))
            slope = slope - RATE * (2 * error * x).mean()
    return found[:steps], slope.item()


def test_steps_of_several_passes_are_those_of_whole_shares(tmp_path):
    curve = {}
    made = trainer(tmp_path, metrics=lambda step, values: curve.update({step: values}))
    made.train_from(None)
    wanted, slope = by_hand(6)  # two epochs of three steps, the third of two points
    assert [values["loss"] for values in curve.values()] == pytest.approx([w[0] for w in wanted])
    assert made.model.slope.item() == pytest.approx(slope, rel=1e-5)
    assert curve[6]["slope"] == pytest.approx(slope, rel=1e-5)
    assert made.trained_tokens == 2 * 7 * len(POINTS)
    assert [entry["step"] for entry in made.logged_steps] == list(range(1, 7))


def test_the_private_hook_is_called_on_resume_and_by_nothing_else(tmp_path):
    """Trainer names it ``_load_from_checkpoint``; were it renamed, no weights would be loaded."""
    assert callable(Trainer._load_from_checkpoint)

    def killed(step, _):
        if step == 5:
            raise InterruptedError

    recorded = '{"device": "cpu", "dtype": "float32", "threads": 1}'
    (tmp_path / "circumstances.json").write_text(recorded)
    first = trainer(tmp_path, metrics=killed)
    with pytest.raises(InterruptedError):
        first.train_from(None)
    assert first.saved == tuple(f"checkpoint-{step}" for step in range(1, 5))
    assert first.loaded == ()
    resumed = trainer(tmp_path)
    resumed.train_from(last_checkpoint(tmp_path))
    assert resumed.loaded == ("checkpoint-4",)
    assert resumed.state.global_step == 6
    assert resumed.model.slope.item() == pytest.approx(by_hand(6)[1], rel=1e-5)
    finished = trainer(tmp_path)
    finished.train_from(last_checkpoint(tmp_path))
    assert (finished.loaded, finished.saved) == (("checkpoint-6",), ())
    assert finished.model.slope.item() == resumed.model.slope.item()


def test_a_loss_that_is_not_finite_stops(tmp_path):
    made = trainer(tmp_path)
    with torch.no_grad():
        made.model.intercept.fill_(float("inf"))
    with pytest.raises(StageError, match="not finite at step 1"):
        made.train_from(None)
