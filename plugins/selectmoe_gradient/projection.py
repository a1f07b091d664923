"""Random projections of gradients that keep inner products (Johnson and Lindenstrauss).

Both are sums over the weights of a model: each weight has its own random part, named by the seed
and the weight's name, so the order of the weights does not matter. For vectors x and y and a
projection P to ``width`` numbers, the mean of ``<Px, Py>`` over the seeds is ``<x, y>``, and its
variance is at most ``(|x|^2 |y|^2 + <x, y>^2) / width``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from selectmoe_gradient.directions import Direction, direction
from selectmoe_gradient.random_signs import below, key_of, signs

BLOCK_ENTRIES = 1 << 24
"""Entries of a block of the dense matrix: 64 MiB in fp32."""

Kernel = Callable[..., Tensor]


class WeightProjection(Protocol):
    """The part of a projection that belongs to one weight."""

    def arranged(self, values: Tensor) -> Tensor:
        """Put numbers of the entries, ``[entries]``, into the order that ``project`` reads."""
        ...

    def project(self, gradients: Tensor, precondition: Direction | None) -> Tensor:
        """Return projected gradients, fp32 ``[examples, width]``.

        Args:
            gradients: ``[examples, entries]``.
            precondition: moments that are ``arranged``; ``None`` takes the gradients as they are.
        """
        ...


@dataclass(frozen=True)
class Rademacher:
    """A dense matrix of random signs divided by the root of ``width``, as LESS projects.

    It is made again for each call, block by block, so its cost grows with entries times width.
    """

    key: int
    entries: int
    width: int

    def arranged(self, values: Tensor) -> Tensor:
        """Return the numbers as they are."""
        return values

    def project(self, gradients: Tensor, precondition: Direction | None) -> Tensor:
        """Multiply by the matrix."""
        taken = gradients.float()
        if precondition is not None:
            taken = direction(taken, precondition.first, precondition.second, precondition.factors)
        rows = max(1, BLOCK_ENTRIES // self.width)
        total = taken.new_zeros(len(taken), self.width)
        for first in range(0, self.entries, rows):
            count = min(rows, self.entries - first)
            block = signs(self.key, first, count, self.width, taken.device)
            total += taken[:, first : first + count] @ block.float()
        return total.div_(self.width**0.5)


class CountSketch:
    """A CountSketch: each entry is added to one of ``width`` sums, with a random sign.

    The entries are cut into blocks of ``width``. Within a block each entry has a sum of its own;
    each block is turned by a random number of places, so that two entries of different blocks meet
    with probability 1 / width. The cost is one addition for each entry (Charikar, Chen and
    Farach-Colton 2002; as a projection that keeps inner products: Weinberger et al. 2009).

    Args:
        key: names the random numbers.
        entries: entries of the weight.
        width: how many sums.
        device: where it works.
        kernels: the functions for preconditioned and for plain gradients, possibly compiled.
    """

    def __init__(
        self,
        key: int,
        entries: int,
        width: int,
        device: torch.device | str,
        kernels: tuple[Kernel, Kernel],
    ) -> None:
        self.kernels = kernels
        blocks = -(-entries // width)
        turns = below(key, torch.arange(blocks, device=device), width)
        column = (torch.arange(width, device=device) - turns[:, None]) % width
        places = column + torch.arange(blocks, device=device)[:, None] * width
        drawn = signs(key + 1, 0, blocks, width, device)
        beyond = places >= entries  # the last block is filled up with zeros
        self.signs = drawn.masked_fill(beyond, 0)
        self.places = places.masked_fill(beyond, 0).to(torch.int32)

    def arranged(self, values: Tensor) -> Tensor:
        """Return the numbers by block and sum, ``[blocks, width]``."""
        return values[self.places.long()]

    def project(self, gradients: Tensor, precondition: Direction | None) -> Tensor:
        """Add up the entries of each sum."""
        if precondition is None:
            return self.kernels[1](gradients, self.places, self.signs)
        moments = precondition.first, precondition.second, precondition.factors
        return self.kernels[0](gradients, self.places, self.signs, *moments)


def sketched(
    gradients: Tensor,
    places: Tensor,
    drawn: Tensor,
    first: Tensor,
    second: Tensor,
    factors: Tensor,
) -> Tensor:
    """Return the sketch of preconditioned gradients, fp32 ``[examples, width]``.

    Args:
        gradients: ``[examples, entries]``.
        places: the entry of each block and sum, int32 ``[blocks, width]``.
        drawn: its sign, or 0 for no entry, int8 ``[blocks, width]``.
        first: its first moment, fp32 ``[blocks, width]``.
        second: its second moment, fp32 ``[blocks, width]``.
        factors: see ``Adam.factors``.
    """
    taken = _arranged(gradients, places)
    return (direction(taken, first, second, factors) * drawn).sum(1)


def sketched_plain(gradients: Tensor, places: Tensor, drawn: Tensor) -> Tensor:
    """Return the sketch of gradients as they are; see ``sketched``."""
    return (_arranged(gradients, places).float() * drawn).sum(1)


def _arranged(gradients: Tensor, places: Tensor) -> Tensor:
    """Return the entry of each block and sum, ``[examples, blocks, width]``."""
    return gradients.index_select(1, places.flatten()).view(len(gradients), *places.shape)


@dataclass(frozen=True)
class Projector:
    """Makes the projection of each weight.

    Attributes:
        kind: ``count-sketch`` or ``rademacher``.
        width: the numbers that a gradient becomes.
        seed: of the random numbers.
        device: where it works.
        compiled: whether the kernels of ``count-sketch`` are compiled.
    """

    kind: str
    width: int
    seed: int
    device: str
    compiled: bool = False

    def weights(self, sizes: dict[str, int]) -> dict[str, WeightProjection]:
        """Return the projection of each weight, by name, for its number of entries."""
        kernels: tuple[Kernel, Kernel] = (sketched, sketched_plain)
        if self.compiled:
            kernels = tuple(torch.compile(kernel, dynamic=True) for kernel in kernels)  # type: ignore[assignment]
        return {name: self._of_weight(name, size, kernels) for name, size in sizes.items()}

    def _of_weight(
        self, name: str, entries: int, kernels: tuple[Kernel, Kernel]
    ) -> WeightProjection:
        key = key_of(self.seed, name)
        if self.kind == "rademacher":
            return Rademacher(key, entries, self.width)
        return CountSketch(key, entries, self.width, self.device, kernels)
