"""A warm-up of a tiny Llama that kept its checkpoints."""

from dataclasses import dataclass
from pathlib import Path

from llama_models import conversations, llama, options, train

from selectmoe_core.models.models import ModelRef
from selectmoe_core.training import KeptCheckpoint, kept_checkpoints


@dataclass(frozen=True)
class WarmUp:
    base: ModelRef
    adapter: ModelRef
    folder: Path
    kept: list[KeptCheckpoint]


def make_warm_up(folder: Path) -> WarmUp:
    """Three epochs of two steps, whose learning rate falls to zero."""
    base = llama(folder / "base")
    config = options(
        checkpoint_every="epoch",
        max_steps=6,
        batch_size=8,
        lora_dropout=0.1,
        target_modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    )
    _, out = train(base, conversations(16, seed=3), folder, config)
    checkpoints = folder / "checkpoints"
    return WarmUp(base, ModelRef(str(out)), checkpoints, kept_checkpoints(checkpoints))
