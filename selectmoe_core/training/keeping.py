"""When a trainer keeps checkpoints for later stages, and how they are written."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import Tensor
from transformers import TrainerCallback

from selectmoe_core.runtime.writing import give_usual_permissions
from selectmoe_core.training.checkpoints import step_of
from selectmoe_core.training.kept import KEPT, MOMENTS, AdamState, KeptCheckpoint


class KeepCheckpoints(TrainerCallback):
    """Keeps checkpoints after the last step and after every so many steps before it.

    Args:
        folder: the folder of the checkpoints; they go to ``kept`` in it.
        every: steps between them.
        most: how many are kept, the newest; ``all`` keeps every one.
        weights: the trained weights by the names that their files have.
        save: writes the trained weights into a folder.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        most: int | Literal["all"],
        weights: Mapping[str, Tensor],
        save: Callable[[Path], None],
    ) -> None:
        self.folder = folder / KEPT
        self.every = every
        self.most = most
        self.weights = weights
        self.save = save

    def on_step_end(
        self,
        args: Any,  # noqa: ANN401, ARG002
        state: Any,  # noqa: ANN401
        control: Any,  # noqa: ANN401, ARG002
        *,
        optimizer: Any,  # noqa: ANN401
        lr_scheduler: Any,  # noqa: ANN401
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Keep a checkpoint if one is due; the first process writes it."""
        step = state.global_step
        if not state.is_world_process_zero or (step % self.every and step < state.max_steps):
            return
        rates = _learning_rates(lr_scheduler, (step - 1) // self.every * self.every, step)
        group = optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        adam = AdamState(step, float(beta1), float(beta2), float(group["eps"]))
        self._write(optimizer, float(state.epoch), rates, adam)
        self._forget_old()

    def _write(self, optimizer: Any, epoch: float, rates: list[float], adam: AdamState) -> None:  # noqa: ANN401
        name = f"checkpoint-{adam.step}"
        folder, made = self.folder / name, self.folder / f".{name}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        self.save(made)
        moments = {
            f"{name}.{kind}": optimizer.state[weight][kind].detach().cpu().contiguous()
            for name, weight in self.weights.items()
            for kind in ("exp_avg", "exp_avg_sq")
        }
        save_file(moments, made / MOMENTS, metadata={"format": "pt"})
        give_usual_permissions(made / MOMENTS)
        KeptCheckpoint(made, epoch, rates[-1], sum(rates) / len(rates), adam).write()
        shutil.rmtree(folder, ignore_errors=True)  # of a killed run that came further
        made.rename(folder)

    def _forget_old(self) -> None:
        if self.most != "all":
            for old in sorted(self.folder.glob("checkpoint-*"), key=step_of)[: -self.most]:
                shutil.rmtree(old)


def _learning_rates(scheduler: Any, first: int, last: int) -> list[float]:  # noqa: ANN401
    """Return the learning rates of the steps after ``first`` up to ``last``.

    They are computed, not recorded, so that a resumed run finds those before it, too.
    """
    scheduler = getattr(scheduler, "scheduler", scheduler)  # accelerate's wrapper
    peak, factor = scheduler.base_lrs[0], scheduler.lr_lambdas[0]
    return [float(peak * factor(step)) for step in range(first, last)]
