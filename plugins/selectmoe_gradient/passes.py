"""How many tokens a pass works on: as many as there is memory for, so that a GPU is busy.

A pass over a small model costs its kernels' launches, some ten for each LoRA weight, whatever the
number of tokens: with few tokens the GPU waits for them.
"""

from selectmoe_core.cost import Shape, activation_bytes

CPU_TOKENS = 2048
ACTIVATIONS = 18e9
"""Bytes for activations: 4,096 tokens of a 7B model, 23,000 of one with 135M parameters."""
SHARE = 0.5
"""Of the free memory, the most that activations take; gradients and logits need some too."""
LEAST, MOST = 512, 32768


def default_tokens(shape: Shape | None, dtype: str, free: float | None) -> int:
    """Return the tokens of a pass on a GPU.

    Args:
        shape: the model's sizes; ``None`` if the formulas do not fit its architecture.
        dtype: what it computes in.
        free: free bytes of the GPU once the model is loaded; ``None`` if that is not known.
    """
    if shape is None:
        return 4096
    room = ACTIVATIONS if free is None else min(ACTIVATIONS, SHARE * free)
    each = activation_bytes(shape, 1, dtype, recompute=False)
    return min(MOST, max(LEAST, int(room / each)))
