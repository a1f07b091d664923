"""Which optimizer trains, and how weights that are kept in bf16 take steps smaller than a bit."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from selectmoe_core import StageError
from selectmoe_olmoe.config import WarmupConfig

Made = tuple[type[Optimizer], dict[str, Any]]
"""A class and its arguments, as ``Trainer`` takes them."""

LOW_BITS = 16
"""What fp32 has and bf16 does not."""


class StochasticRounding(Optimizer):
    """Runs another optimizer in fp32 over bf16 parameters, one parameter at a time.

    A step is computed in an fp32 copy and rounded up or down at random, so that the mean of the
    rounded weight is the weight: a bf16 weight of 0.02 would lose every step below 6e-5 otherwise.
    No fp32 copy outlives the step of its parameter. Parameters in fp32 are stepped directly.

    Args:
        params: parameters or their groups.
        inner: the optimizer's class.
        lr: learning rate, which a group may override.
        weight_decay: likewise.
        **options: other options of the class.
    """

    def __init__(
        self,
        params: Any,  # noqa: ANN401
        *,
        inner: type[Optimizer],
        lr: float,
        weight_decay: float = 0.0,
        **options: Any,  # noqa: ANN401
    ) -> None:
        options |= {"lr": lr, "weight_decay": weight_decay}
        super().__init__(params, options)
        self._inner = [
            inner([_shadow(weight)], **options)
            for group in self.param_groups
            for weight in group["params"]
        ]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        assert closure is None, "no closure is known here"
        inner = iter(self._inner)
        for group in self.param_groups:
            for weight in group["params"]:
                optimizer = next(inner)
                if weight.grad is None:
                    continue
                own = optimizer.param_groups[0]
                own["lr"], own["weight_decay"] = group["lr"], group["weight_decay"]
                _step(optimizer, own["params"][0], weight)

    def state_dict(self) -> dict[str, Any]:
        """Return the groups, and of each parameter the state of its optimizer."""
        inner = [optimizer.state_dict() for optimizer in self._inner]
        return {**super().state_dict(), "inner": inner}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned."""
        super().load_state_dict({name: state_dict[name] for name in ("state", "param_groups")})
        for optimizer, state in zip(self._inner, state_dict["inner"], strict=True):
            optimizer.load_state_dict(state)


def _shadow(weight: Tensor) -> Tensor:
    """Return a parameter in fp32: itself, or an empty fp32 one in its place."""
    if weight.dtype == torch.float32:
        return weight
    return nn.Parameter(torch.empty(0, dtype=torch.float32, device=weight.device))


def _step(inner: Optimizer, shadow: Tensor, weight: Tensor) -> None:
    if shadow is weight:
        inner.step()
        return
    assert weight.grad is not None
    shadow.data, shadow.grad = weight.float(), weight.grad.float()
    inner.step()
    weight.copy_(stochastically_rounded(shadow.data))
    shadow.data, shadow.grad = shadow.data.new_empty(0), None


def stochastically_rounded(values: Tensor) -> Tensor:
    """Return fp32 values rounded at random to bf16, by their distance to both neighbours."""
    bits = values.view(torch.int32)
    noise = torch.randint_like(bits, 1 << LOW_BITS)
    return ((bits + noise) & -(1 << LOW_BITS)).view(torch.float32).to(torch.bfloat16)


def optimizer_of(config: WarmupConfig) -> Made | None:
    """Return the optimizer and its options; ``None`` is the ``Trainer``'s own AdamW.

    Raises:
        StageError: its library is not installed.
    """
    narrow = config.all_weights and config.weights == "bfloat16"
    options: dict[str, Any] = {"lr": config.peak_learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        made: type[Optimizer] = Adafactor
        options |= {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    elif config.optimizer == "adamw_8bit":
        made = _adamw_8bit()
    elif narrow:
        made = torch.optim.AdamW
    else:
        return None
    if narrow:
        return StochasticRounding, {"inner": made, **options}
    return made, options


def _adamw_8bit() -> type[Optimizer]:
    if find_spec("bitsandbytes") is None:
        raise StageError(
            "[warmup] optimizer: 'adamw_8bit' needs bitsandbytes, which is not installed",
            hint="pip install bitsandbytes, or use 'adafactor'",
        )
    found: type[Optimizer] = import_module("bitsandbytes.optim").AdamW8bit
    return found
