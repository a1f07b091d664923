"""Which examples make an optimizer step, and how they become tensors."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from selectmoe_core import RecipeError
from selectmoe_core.training import CountedRows
from selectmoe_llama.attention import Attention, groups
from selectmoe_llama.config import LoraTrainingConfig

NOTHING = -1
"""Stands in an order for no example: it fills up the last step of an epoch."""


class Place(NamedTuple):
    """An example's place in an optimizer step.

    Attributes:
        row: its number among the training rows, or ``NOTHING``.
        number: the pass that it is in, of its process's.
        passes: how many passes the step has.
    """

    row: int
    number: int = 0
    passes: int = 1


def share_of(config: LoraTrainingConfig, processes: int) -> int:
    """Return how many examples of an optimizer step each process gets.

    Raises:
        RecipeError: ``batch_size`` is not a multiple of the number of processes.
    """
    share, rest = divmod(config.batch_size, processes)
    if rest:
        raise RecipeError(
            f"llama-lora: batch_size = {config.batch_size} cannot be divided among "
            f"{processes} processes",
            hint=f"use a multiple of {processes}, or another number of processes",
        )
    return share


@dataclass(frozen=True)
class Row:
    """An example, ready to be collated.

    Attributes:
        ids: token ids ``[length]``.
        weights: the loss weight of each as a target, float32 ``[length]``.
        number: the pass that it goes into.
        passes: how many passes the step has.
    """

    ids: np.ndarray
    weights: np.ndarray
    number: int = 0
    passes: int = 1


class TrainingRows(CountedRows, Dataset[Row]):
    """The encoded examples in which at least one token counts, by their places in a step."""

    def __getitem__(self, item: Place) -> Row:
        if item.row == NOTHING:
            nothing = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
            return Row(*nothing, item.number, item.passes)
        row = int(self.rows[item.row])
        ids, weights = np.asarray(self.encoded[row].ids), self.loss_weights(row)
        return Row(ids, weights, item.number, item.passes)


class StepSampler(Sampler[Place]):
    """The order of examples: a permutation per epoch, cut into optimizer steps.

    Which examples make a step depends on the seed, the epoch and the total batch alone. Inside a
    step they are divided so that processes and passes cost the same, which changes no sum.

    Args:
        lengths: tokens of each example.
        share: examples of a step per process.
        processes: processes that train together.
        seed: of the permutations.
        tokens: the most tokens of a pass; a longer example has its own pass.
        most: the most examples of a pass.
        packing: whether padding costs nothing.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        share: int,
        processes: int,
        seed: int,
        *,
        tokens: int,
        most: int | None = None,
        packing: bool = True,
    ) -> None:
        self.lengths = lengths
        self.share = share
        self.processes = processes
        self.seed = seed
        self.tokens = tokens
        self.most = most or share
        self.packing = packing
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        total = self.share * self.processes
        return -(-len(self.lengths) // total) * total

    def __iter__(self) -> Iterator[Place]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.lengths))
        total = self.share * self.processes
        for start in range(0, len(order), total):
            yield from self._arranged(order[start : start + total])

    def _arranged(self, step: np.ndarray) -> Iterator[Place]:
        filled = np.full(self.share * self.processes, NOTHING)
        filled[: len(step)] = step[np.argsort(-self.lengths[step], kind="stable")]
        dealt = filled.reshape(self.share, self.processes)
        # Every other row is reversed, so that all get about the same number of tokens.
        dealt[1::2] = dealt[1::2, ::-1]
        shares = [[int(row) for row in share if row != NOTHING] for share in dealt.T]
        lengths = [[int(self.lengths[row]) for row in share] for share in shares]
        cut = balanced if self.packing else neighbours
        # The same number of passes everywhere: processes that split a model's weights work in step.
        passes = max(len(cut(sizes, self.tokens, self.most)) for sizes in lengths)
        for share, sizes in zip(shares, lengths, strict=True):
            for number, members in enumerate(cut(sizes, self.tokens, self.most, passes)):
                for member in members:
                    yield Place(share[member], number, passes)
            for _ in range(self.share - len(share)):
                yield Place(NOTHING, 0, passes)


def balanced(lengths: Sequence[int], tokens: int, most: int, least: int = 1) -> list[list[int]]:
    """Divide examples, given the longest first, into passes with about the same number of tokens.

    Args:
        lengths: tokens of each example.
        tokens: the most tokens of a pass; a longer example has its own pass.
        most: the most examples of a pass.
        least: passes to make at least; some may stay empty.

    Returns:
        the examples of each pass, the longest first.
    """
    filled = min(len(lengths), -(-sum(lengths) // tokens))
    passes = max(least, filled, -(-len(lengths) // most))
    while True:
        dealt: list[list[int]] = [[] for _ in range(passes)]
        open_ = [(0, number) for number in range(passes)]
        for example, length in enumerate(lengths):
            held, number = heapq.heappop(open_)
            dealt[number].append(example)
            if len(dealt[number]) < most:
                heapq.heappush(open_, (held + length, number))
        sums = (sum(lengths[example] for example in members) for members in dealt)
        if all(
            len(members) < 2 or held <= tokens for members, held in zip(dealt, sums, strict=True)
        ):
            return dealt
        passes += 1


def neighbours(lengths: Sequence[int], tokens: int, most: int, least: int = 1) -> list[list[int]]:
    """Divide examples, given the longest first, into passes with little padding.

    See ``balanced``.
    """
    passes: list[list[int]] = [[]]
    for example in range(len(lengths)):
        longest = lengths[passes[-1][0]] if passes[-1] else lengths[example]
        if passes[-1] and (len(passes[-1]) == most or (len(passes[-1]) + 1) * longest > tokens):
            passes.append([])
        passes[-1].append(example)
    return passes + [[] for _ in range(least - len(passes))]


class Collator:
    """Turns a process's share of a step into passes, in one sequence or padded on the right.

    Neither needs an attention mask: packed examples have their bounds, and with causal attention
    nothing attends to the padding after a row's end.
    """

    def __init__(self, attention: Attention) -> None:
        self.attention = attention

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return ``passes``, arguments of ``PackedModel.forward`` each, and ``totals``.

        ``totals`` holds the number of tokens of examples and the sum of all loss weights.
        """
        passes = []
        for number in range(rows[0].passes):
            members = [row for row in rows if row.number == number and len(row.ids)]
            members = members or [Row(np.zeros(1, np.int32), np.zeros(1, np.float32))]
            passes.append(self._packed(members) if self.attention.packed else _padded(members))
        weight = sum(float(row.weights.sum(dtype=np.float64)) for row in rows)
        totals = torch.tensor([sum(len(row.ids) for row in rows), weight], dtype=torch.float32)
        return {"passes": passes, "totals": totals}

    def _packed(self, rows: Sequence[Row]) -> dict[str, Any]:
        rows = sorted(rows, key=lambda row: -len(row.ids))
        lengths = [len(row.ids) for row in rows]
        ids = np.concatenate([row.ids for row in rows])
        weights = np.concatenate([row.weights for row in rows])
        positions = np.concatenate([np.arange(length) for length in lengths])
        made = _targets(ids, weights) | {
            "input_ids": torch.from_numpy(ids.astype(np.int64))[None],
            "position_ids": torch.from_numpy(positions)[None],
            "starts": torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32),
            "longest": max(lengths),
        }
        if self.attention.grouped:
            made["group_rows"], made["group_back"] = groups(lengths)
        return made


def _padded(rows: Sequence[Row]) -> dict[str, Any]:
    longest = max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    weights = np.zeros((len(rows), longest), dtype=np.float32)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = row.ids
        weights[place, : len(row.ids)] = row.weights
    return _targets(ids.reshape(-1), weights.reshape(-1)) | {"input_ids": torch.from_numpy(ids)}


def _targets(ids: np.ndarray, weights: np.ndarray) -> dict[str, Tensor]:
    """Find the targets; the first token of an example is not predicted and has no weight."""
    (places,) = weights.nonzero()
    return {
        "predicting": torch.from_numpy(places - 1),
        "targets": torch.from_numpy(ids[places].astype(np.int64)),
        "weights": torch.from_numpy(weights[places]),
    }
