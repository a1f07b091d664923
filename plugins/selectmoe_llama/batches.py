"""Which examples make an optimizer step, and how they become tensors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from selectmoe_core.encoding import Encoded
from selectmoe_core.errors import RecipeError, StageError
from selectmoe_llama.config import LoraTrainingConfig

CPU_TOKENS, GPU_TOKENS, GPU_TOKENS_KEPT = 2048, 8192, 4096
"""Tokens of a forward pass where the options leave it open; the last where activations are kept.

Small passes leave a GPU waiting for its kernels to be launched: on an H100, 16 passes of 1,100
tokens through a 7B model took 12 s, where the arithmetic takes 2.
"""
NOTHING = -1
"""Stands in an order for no example: it fills up the last step of an epoch."""


@dataclass(frozen=True)
class Split:
    """How a total batch is divided.

    Attributes:
        batch: examples of a forward pass.
        accumulation: forward passes of an optimizer step, per process.
        processes: processes that train together.
    """

    batch: int
    accumulation: int
    processes: int

    @property
    def total(self) -> int:
        """Examples of an optimizer step."""
        return self.batch * self.accumulation * self.processes


def pass_tokens(config: LoraTrainingConfig, device: str) -> int:
    """Return the tokens that a forward pass should hold."""
    if config.pass_tokens is not None:
        return config.pass_tokens
    if device == "cpu":
        return CPU_TOKENS
    return GPU_TOKENS if config.activation_checkpointing else GPU_TOKENS_KEPT


def split_batch(
    config: LoraTrainingConfig, processes: int, length: float = 512.0, tokens: int = CPU_TOKENS
) -> Split:
    """Divide the total batch over processes and forward passes.

    Args:
        config: the options.
        processes: processes that train together.
        length: mean tokens of an example.
        tokens: what a forward pass takes about, where ``per_device_batch`` is left open.

    Raises:
        RecipeError: it does not divide.
    """
    total = config.total_batch
    if total % processes:
        raise RecipeError(
            f"[train] total_batch = {total} cannot be divided among {processes} processes",
            hint=f"use a multiple of {processes}, or another number of processes",
        )
    share = total // processes
    batch = config.per_device_batch
    if batch is None:
        most = min(share, max(1, int(tokens / length)))
        batch = next(size for size in range(most, 0, -1) if share % size == 0)
    if share % batch:
        of = f" on {processes} processes" if processes > 1 else ""
        fitting = [size for size in range(1, share + 1) if share % size == 0]
        raise RecipeError(
            f"[train] total_batch = {total}{of} is not a multiple of per_device_batch = {batch}",
            hint=f"per_device_batch can be {', '.join(map(str, fitting))}",
        )
    return Split(batch, share // batch, processes)


@dataclass(frozen=True)
class Row:
    """Token ids ``[length]`` and the loss weight of each as a target, float32 ``[length]``."""

    ids: np.ndarray
    weights: np.ndarray


class TrainingRows(Dataset[Row]):
    """The encoded examples in which at least one token counts; the others are left out.

    Attributes:
        rows: their positions in ``encoded``, in its order.
        lengths: their numbers of tokens.
    """

    def __init__(self, encoded: Encoded) -> None:
        self.encoded = encoded
        self.per_example = encoded.chat.config.average == "example"
        self.rows = np.array([row for row in range(len(encoded)) if self._counts(row).any()])
        if not len(self.rows):
            raise StageError(
                f"in none of the {len(encoded)} examples does a token count for the loss",
                hint="raise [chat] max_length, or set [chat] loss_on = 'everything'",
            )
        self.lengths = encoded.lengths[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> Row:
        if item == NOTHING:
            return Row(np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.float32))
        row = int(self.rows[item])
        weights = self._counts(row).astype(np.float32)
        if self.per_example:
            weights /= weights.sum()
        return Row(np.asarray(self.encoded[row].ids), weights)

    def _counts(self, row: int) -> np.ndarray:
        counts = self.encoded.chat.counts(self.encoded[row].parts).copy()
        counts[:1] = False  # nothing predicts the first token
        return counts


class StepSampler(Sampler[int]):
    """The order of examples: a permutation per epoch, cut into optimizer steps.

    Which examples make a step depends on the seed, the epoch and the total batch alone. Inside a
    step they are arranged so that forward passes cost alike, which changes no sum.
    """

    def __init__(self, lengths: np.ndarray, split: Split, seed: int, *, packing: bool) -> None:
        self.lengths = lengths
        self.split = split
        self.seed = seed
        self.packing = packing
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        unit = self.split.batch * self.split.processes
        full, rest = divmod(len(self.lengths), self.split.total)
        return full * self.split.total + -(-rest // unit) * unit

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.lengths))
        for start in range(0, len(order), self.split.total):
            yield from self._arranged(order[start : start + self.split.total])

    def _arranged(self, step: np.ndarray) -> list[int]:
        unit = self.split.batch * self.split.processes
        passes = -(-len(step) // unit) * self.split.processes
        filled = np.full(passes * self.split.batch, NOTHING)
        filled[: len(step)] = step[np.argsort(-self.lengths[step], kind="stable")]
        if not self.packing:
            return [int(row) for row in filled]  # neighbours of like length: little padding
        dealt = filled.reshape(self.split.batch, passes)
        dealt[1::2] = dealt[1::2, ::-1]  # there and back, so that every pass gets as many tokens
        return [int(row) for row in dealt.T.reshape(-1)]


class Collator:
    """Turns rows into tensors, laid end to end or padded on the right.

    Neither needs an attention mask: a packed example is known by its positions beginning at zero,
    and what stands behind a row's end is never seen by causal attention.
    """

    def __init__(self, *, packing: bool, packed_length: int) -> None:
        self.packing = packing
        self.packed_length = packed_length

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return ``input_ids``, ``loss_weights`` and, where needed, ``position_ids``.

        Each is ``[bins, longest]``; ``tokens`` is the number of tokens of examples among them.
        ``loss_weights[b, t]`` is the weight of token t as a target, so the first of an example has
        none.
        """
        bins = (
            first_fit([len(row.ids) for row in rows], self.packed_length)
            if self.packing
            else ([[number] for number in range(len(rows))])
        )
        longest = max(sum(len(rows[number].ids) for number in members) for members in bins)
        ids = torch.zeros((len(bins), longest), dtype=torch.long)
        weights = torch.zeros((len(bins), longest))
        positions = torch.arange(longest).repeat(len(bins), 1)
        for place, members in enumerate(bins):
            start = 0
            for number in members:
                stop = start + len(rows[number].ids)
                ids[place, start:stop] = torch.from_numpy(rows[number].ids.astype(np.int64))
                weights[place, start:stop] = torch.from_numpy(rows[number].weights)
                positions[place, start:] = torch.arange(longest - start)
                start = stop
            positions[place, start:] = torch.arange(longest - start)
        real = sum(len(row.ids) for row in rows if row.weights.any())
        batch = {"input_ids": ids, "loss_weights": weights, "tokens": torch.tensor(real)}
        if len(bins) < len(rows):
            batch["position_ids"] = positions
        return batch


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put items into as few bins as first-fit decreasing finds; an item may exceed the capacity.

    Returns:
        the items of each bin; no bin holds more than the capacity or its one item.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        place = next((n for n, free in enumerate(room) if free >= lengths[item]), None)
        if place is None:
            bins.append([item])
            room.append(capacity - lengths[item])
        else:
            bins[place].append(item)
            room[place] -= lengths[item]
    return bins
