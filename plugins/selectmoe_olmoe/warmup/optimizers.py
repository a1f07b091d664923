"""Which optimizer trains, and how weights that are kept in bf16 take steps smaller than a bit."""

from collections.abc import Callable, Mapping
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
TINY_SQUARE = 1e-30
"""Added to squared gradients, as transformers' ``Adafactor`` does."""
DECAY_RATE = -0.8
"""Power of the step's number that the averages of squares forget by."""


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


class RoundedAdafactor(Optimizer):
    """Adafactor with a given learning rate, in fp32 over bf16 weights that are rounded at random.

    The steps are those of transformers' ``Adafactor`` inside ``StochasticRounding``. There every
    operation writes an fp32 tensor as large as the weight, some 130 bytes a weight in all, which
    takes longer than the pass over 64 examples; compiled, weight and gradient are read a few times.

    Args:
        params: parameters or their groups, in bf16 or fp32.
        lr: learning rate, which a group may override.
        weight_decay: likewise.
        compiled: compile the step of bf16 weights; by default on a GPU.
    """

    def __init__(
        self,
        params: Any,  # noqa: ANN401
        *,
        lr: float,
        weight_decay: float = 0.0,
        compiled: bool | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        if compiled is None:
            compiled = any(
                weight.is_cuda for group in self.param_groups for weight in group["params"]
            )
        self._stepped = torch.compile(adafactor_step, dynamic=True) if compiled else adafactor_step

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        assert closure is None, "no closure is known here"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step(weight, weight.grad, group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned; torch alone would round the averages to bf16."""
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for number, state in state_dict["state"].items():
            weight = weights[number]
            moments = tuple(moment.to(weight.device) for moment in state["moments"])
            self.state[weight]["moments"] = moments

    def _step(self, weight: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state.update(step=0, moments=_no_moments(weight))
        state["step"] += 1
        # Tensors: a number would be part of the compiled code, which each step would compile again.
        keep, rate, decay = (
            torch.full((), value, dtype=torch.float32, device=weight.device)
            for value in (
                1.0 - state["step"] ** DECAY_RATE,
                group["lr"],
                group["weight_decay"],
            )
        )
        stepped = adafactor_step if weight.dtype == torch.float32 else self._stepped
        stepped(weight, gradient, state["moments"], keep, rate, decay)


def _no_moments(weight: Tensor) -> tuple[Tensor, ...]:
    """Return the first averages of squared gradients: of rows and columns, or of each entry."""
    if weight.dim() < 2:
        return (torch.zeros_like(weight, dtype=torch.float32),)
    shapes = (weight.shape[:-1], weight.shape[:-2] + weight.shape[-1:])
    return tuple(weight.new_zeros(shape, dtype=torch.float32) for shape in shapes)


def adafactor_step(
    weight: Tensor,
    gradient: Tensor,
    moments: tuple[Tensor, ...],
    keep: Tensor,
    rate: Tensor,
    decay: Tensor,
) -> None:
    """Take one step of Adafactor (Shazeer and Stern, 2018); a bf16 weight is rounded at random.

    Args:
        weight: ``[..., R, C]`` or ``[N]``; changed in place.
        gradient: of the same shape.
        moments: averages of squared gradients over columns ``[..., R]`` and over rows
            ``[..., C]``, or those of each entry ``[N]``; changed in place.
        keep: the share of the averages that remains, a scalar.
        rate: learning rate, a scalar.
        decay: weight decay, a scalar.
    """
    gradient = gradient.float()
    square = gradient * gradient + TINY_SQUARE
    means = (square,) if len(moments) == 1 else (square.mean(dim=-1), square.mean(dim=-2))
    for moment, mean in zip(moments, means, strict=True):
        moment.copy_(moment * keep + mean * (1.0 - keep))
    if len(moments) == 1:
        update = moments[0].rsqrt() * gradient
    else:
        rows, columns = moments
        rows = (rows / rows.mean(dim=-1, keepdim=True)).rsqrt()
        update = rows.unsqueeze(-1) * columns.rsqrt().unsqueeze(-2) * gradient
    size = (update * update).mean().sqrt()
    update = update * (rate / size.clamp(min=1.0))
    stepped = weight.float() * (1.0 - decay * rate) - update
    weight.copy_(stepped if weight.dtype == torch.float32 else stochastically_rounded(stepped))


def optimizer_of(config: WarmupConfig) -> Made | None:
    """Return the optimizer and its options; ``None`` is the ``Trainer``'s own AdamW.

    Raises:
        StageError: its library is not installed.
    """
    narrow = config.all_weights and config.weights == "bfloat16"
    options: dict[str, Any] = {"lr": config.peak_learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adafactor" and narrow:
        return RoundedAdafactor, options
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
