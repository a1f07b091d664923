"""What the evidence compares: warm-ups of one base model, and scores that need none."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from selectmoe_damage.config import RATES

GROUPS = {
    "relation": ("answer_swap", "prompt_echo", "role_swap", "wrong_numbers"),
    "noise": ("answer_shuffle", "instruction_garble", "mojibake", "html_debris"),
    "form": ("answer_truncate", "answer_loop", "refusal_boilerplate"),
}
"""Kinds left out of a warm-up together: it has seen nothing like them."""
SHARED = {
    "batch_size": 96,
    "micro_batch_size": 32,
    # A step of 96 pairs has about 25,000 tokens, which go through the model at once: each pass
    # casts all weights and launches some thousand small kernels, so three passes cost three times.
    "pass_tokens": 32768,
    # A bf16 weight of .05 has neighbours 2.4e-4 apart, and a step at this learning rate is as long:
    # rounding at random would add as much noise, to spare a cast that moves 4 GB a pass (2 ms).
    "weights": "float32",
    "scheduler": "cosine",
    "balance_over": "regular",
    "statistics": False,
    "checkpoint_minutes": 60.0,
}
CONTRAST = SHARED | {
    "trainable": "all",
    "learning_rate": 2e-4,
    "lm_weight": 0.2,
}
GATES = CONTRAST | {"trainable": "router", "lm_weight": 0.0}
GATE_RATES = ((8e-3, 1.8), (2e-3, 0.9), (3e-2, 1.8))
"""Learning rates of the gates alone, and epochs of each."""
CONSTRAINT = SHARED | {"trainable": "router"}
CONSTRAINT_RATES = ((1e-3, 0.225), (1e-2, 0.9), (1e-4, 4.0))
"""Learning rates of the constraint, and epochs of each; the last is the published one."""
CONSTRAINT_WEIGHTS = (0.0, 0.01, 0.1, 1.0)

FIXED = 30.0
"""Seconds of an arm beside its training: to convert, load, save and score."""
EPOCH = {"all": 68.0, "router": 66.0, "constraint": 31.0}
"""Seconds of an epoch over 17,700 rows on an H200 that two arms share, by what is trained."""


@dataclass(frozen=True)
class Arm:
    """One warm-up, and what its router is asked.

    Attributes:
        name: in the tables.
        warmup: options of the warm-up; ``None`` leaves the router as converted.
        epochs: passes over the pool.
        seed: of copies, order and initial trash rows.
        left_out: kinds that the warm-up does not see.
        tokens: what the ``router`` scorer averages over for the main figure.
        statistic: the main figure's statistic.
        use: the component that warms up.
        convert: options of the converter.
    """

    name: str
    warmup: Mapping[str, Any] | None
    epochs: float = 1.0
    seed: int = 1
    left_out: tuple[str, ...] = ()
    tokens: str = "end"
    statistic: str = "trash_mass"
    use: str = "select-moe-contrastive"
    convert: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name and seed."""
        return f"{self.name}/{self.seed}"

    @property
    def estimate(self) -> float:
        """Seconds, for a pool of 17,700 rows."""
        if self.warmup is None:
            return FIXED
        constraint = self.use == "select-moe-constraint"
        return FIXED + self.epochs * EPOCH["constraint" if constraint else self.warmup["trainable"]]


def arms(seeds: int, scale: float = 1.0, other_seeds: int = 1) -> list[Arm]:
    """Return all arms, the most important first.

    Args:
        seeds: of the final configuration.
        scale: of all arms' epochs.
        other_seeds: of the best gates alone, and of each group of kinds left out.
    """
    final = [Arm("contrastive", CONTRAST, 1.35 * scale, seed=seed + 1) for seed in range(seeds)]
    gates = [
        Arm(f"contrastive, gates at {rate:g}", GATES | {"learning_rate": rate}, epochs * scale)
        for rate, epochs in GATE_RATES
    ]
    left_out = [
        Arm(
            f"contrastive without {group}",
            CONTRAST | {"damages": {k: v for k, v in RATES.items() if k not in kinds}},
            0.9 * scale,
            left_out=kinds,
        )
        for group, kinds in GROUPS.items()
    ]
    constraint = [
        Arm(
            f"constraint {weight:g} at {rate:g}",
            CONSTRAINT | {"constraint_loss_weight": weight, "learning_rate": rate},
            epochs * scale,
            tokens="all",
            use="select-moe-constraint",
        )
        for rate, epochs in CONSTRAINT_RATES
        for weight in CONSTRAINT_WEIGHTS
    ]
    mean = CONTRAST | {"contrast_tokens": "response"}
    again = [
        replace(arm, seed=seed + 1)
        for seed in range(1, other_seeds)
        for arm in (*gates[:1], *left_out)
    ]
    return [
        *final[:1],
        *gates[:1],
        *left_out,
        *final[1:],
        *again,
        Arm("unwarmed", None, 0.0, tokens="all"),
        *constraint,
        *gates[1:],
        Arm("contrastive, answers' mean", mean, 0.9 * scale, tokens="response"),
        Arm("contrastive, each layer", CONTRAST | {"contrast_layers": "each"}, 0.9 * scale),
    ]
