"""Random numbers by counter: the same on every device, in any order, without a state.

SplitMix64 (Steele, Lea and Flood 2014) turns a counter into 64 bits that pass the usual tests of
randomness. It needs only integer arithmetic, so a CPU and a GPU give the same bits.
"""

import hashlib

import torch
from torch import Tensor

WORD = 64
INCREMENT, FIRST, SECOND = (
    number - (1 << 64) if number >= 1 << 63 else number
    for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
"""The constants of SplitMix64 as signed numbers, because torch has no arithmetic on unsigned ones.
Products wrap around, which gives the same bits."""


def key_of(seed: int, name: str) -> int:
    """Return the key of a seed and a name, a signed number of 64 bits."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def words(key: int, counters: Tensor) -> Tensor:
    """Return 64 random bits for each counter, int64 of the counters' shape.

    Args:
        key: the state of SplitMix64 before its first number.
        counters: int64, from 0; counter ``n`` gives the number ``n`` of the sequence.
    """
    state = (counters + 1) * INCREMENT + key
    state = (state ^ _shifted(state, 30)) * FIRST
    state = (state ^ _shifted(state, 27)) * SECOND
    return state ^ _shifted(state, 31)


def below(key: int, counters: Tensor, bound: int) -> Tensor:
    """Return a random number from 0 to ``bound - 1`` for each counter; bound is at most 2^31."""
    return (_shifted(words(key, counters), 33) * bound) >> 31


def signs(key: int, first: int, count: int, width: int, device: torch.device | str) -> Tensor:
    """Return rows ``first`` to ``first + count - 1`` of a matrix of random signs, int8.

    Args:
        key: names the matrix.
        first: the first row.
        count: how many rows.
        width: columns.
        device: where the rows are made.
    """
    each = -(-width // WORD)
    counters = torch.arange(first * each, (first + count) * each, device=device)
    bits = torch.arange(WORD, device=device)
    drawn = (words(key, counters)[:, None] >> bits) & 1
    return (drawn.to(torch.int8) * 2 - 1).view(count, each * WORD)[:, :width]


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shift to the right with zeros from the left; torch would repeat the sign."""
    return (values >> bits) & ((1 << (WORD - bits)) - 1)
