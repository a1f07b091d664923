"""Training rows in one sequence without padding, and joining micro-batches into one pass.

A packed batch is a mapping, so that loaders can move it to a device; ``N`` tokens, ``R`` rows:

- ``input_ids`` int64 ``[N]``, ``positions`` int32 ``[N]`` in their rows, ``starts`` int32
  ``[R + 1]``, ``longest``: tokens of the longest row;
- ``predicts`` int64 ``[M]``: tokens whose next one counts for the loss, ``labels`` int64 ``[M]``:
  those next ones, ``label_weights`` fp32 ``[M]``;
- ``micro`` fp32 ``[B, N]``: 1 where a token is of a micro-batch and of no corrupted copy;
- ``clean_tokens`` and ``clean_pairs``, int64: the tokens that the contrast counts of examples that
  have a corrupted copy, and the number of their pair; ``corrupted_tokens`` and ``corrupted_pairs``:
  the same of the copies; ``pairs``: how many there are;
- ``clean_place_tokens``, ``clean_places``, ``corrupted_place_tokens``, ``corrupted_places`` and
  ``places``: the same of the tokens around damaged places, for the pairs that have one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selectmoe_olmoe.warmup.batches import Batch, Row
from selectmoe_olmoe.warmup.pairs import Pair

Packed = Batch

OF_TOKENS = (
    "predicts",
    "clean_tokens",
    "corrupted_tokens",
    "clean_place_tokens",
    "corrupted_place_tokens",
)
OF_PAIRS = ("clean_pairs", "corrupted_pairs")
OF_PLACES = ("clean_places", "corrupted_places")
JOINED = ("input_ids", "positions", "labels", "label_weights")


def collate_packed(rows: Sequence[Row]) -> Packed:
    """Return a packed micro-batch of rows without copies."""
    return _packed([Pair(row, None) for row in rows])


def collate_packed_pairs(pairs: Sequence[Pair]) -> Packed:
    """Return a packed micro-batch: the clean examples, followed by the copies of some."""
    return _packed(pairs)


def packed_counts(batch: Packed) -> Tensor:
    """Return the tokens of clean examples and the loss weights of a pass, fp32 ``[2]``."""
    return torch.stack([batch["micro"].sum(), batch["label_weights"].sum()])


def packed_pair_counts(batch: Packed) -> Tensor:
    """Return the same and the number of pairs, fp32 ``[3]``."""
    return torch.cat([packed_counts(batch), torch.tensor([float(batch["pairs"])])])


def merged(batches: Sequence[Packed], budget: int) -> list[Packed]:
    """Join neighbours while a pass has no more than ``budget`` tokens; none is split."""
    groups: list[list[Packed]] = []
    tokens = 0
    for batch in batches:
        size = len(batch["input_ids"])
        if groups and tokens + size <= budget:
            groups[-1].append(batch)
            tokens += size
        else:
            groups.append([batch])
            tokens = size
    return [_joined(group) for group in groups]


def _packed(pairs: Sequence[Pair]) -> Packed:
    rows = [pair.clean for pair in pairs]
    copies = [(place, pair.copy) for place, pair in enumerate(pairs) if pair.copy is not None]
    every = [*rows, *(copy for _, copy in copies)]
    lengths = np.array([len(row.ids) for row in every])
    starts = np.concatenate([[0], lengths.cumsum()])
    ids = np.concatenate([row.ids for row in every]).astype(np.int64)
    weights = np.concatenate([row.weights for row in every]).astype(np.float32)
    weights[starts[:-1]] = 0.0  # the first token is not predicted
    labels = weights.nonzero()[0]
    micro = torch.zeros(1, len(ids))
    micro[0, : starts[len(rows)]] = 1.0
    micro[0, starts[: len(rows)][[row.is_nothing for row in rows]]] = 0.0
    positions = np.arange(len(ids)) - np.repeat(starts[:-1], lengths)
    found: Packed = {
        "input_ids": torch.from_numpy(ids),
        "positions": torch.from_numpy(positions.astype(np.int32)),
        "starts": torch.from_numpy(starts.astype(np.int32)),
        "longest": int(lengths.max()),
        "predicts": torch.from_numpy(labels - 1),
        "labels": torch.from_numpy(ids[labels]),
        "label_weights": torch.from_numpy(weights[labels]),
        "micro": micro,
        "pairs": len(copies),
    }
    return found | _contrasted(pairs, copies, starts)


def _contrasted(
    pairs: Sequence[Pair], copies: Sequence[tuple[int, Row]], starts: np.ndarray
) -> Packed:
    """Return the tokens that the contrast counts, and those around damaged places.

    Args:
        pairs: of the micro-batch.
        copies: the copies with the numbers of their pairs.
        starts: of the clean rows, followed by the copies.
    """
    found: Packed = {}
    places = [pairs[place].places for place, _ in copies]
    found["places"] = sum(each is not None for each in places)
    for side, name in enumerate(("clean", "corrupted")):
        at = [starts[len(pairs) + n if side else place] for n, (place, _) in enumerate(copies)]
        rows = [copy if side else pairs[place].clean for place, copy in copies]
        answers = [(start, row.answer) for start, row in zip(at, rows, strict=True)]
        around = [(start, p[side]) for start, p in zip(at, places, strict=True) if p is not None]
        found[f"{name}_tokens"], found[f"{name}_pairs"] = _picked(answers)
        found[f"{name}_place_tokens"], found[f"{name}_places"] = _picked(around)
    return found


def _picked(rows: Sequence[tuple[int, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Return the tokens that masks pick in rows with the given starts, and the row of each."""
    tokens = [start + mask.nonzero()[0] for start, mask in rows]
    pairs = [np.full(len(some), number) for number, some in enumerate(tokens)]
    empty = [np.zeros(0, dtype=np.int64)]
    return (
        torch.from_numpy(np.concatenate(tokens or empty).astype(np.int64)),
        torch.from_numpy(np.concatenate(pairs or empty).astype(np.int64)),
    )


def _joined(batches: Sequence[Packed]) -> Packed:
    if len(batches) == 1:
        return batches[0]
    token = np.cumsum([0, *(len(batch["input_ids"]) for batch in batches)]).tolist()
    pair = np.cumsum([0, *(batch["pairs"] for batch in batches)]).tolist()
    found: Packed = {name: torch.cat([batch[name] for batch in batches]) for name in JOINED}
    place = np.cumsum([0, *(batch["places"] for batch in batches)]).tolist()
    for names, offsets in ((OF_TOKENS, token), (OF_PAIRS, pair), (OF_PLACES, place)):
        for name in names:
            parts = zip(batches, offsets, strict=False)
            found[name] = torch.cat([batch[name] + first for batch, first in parts])
    starts = [batch["starts"][:-1] + first for batch, first in zip(batches, token, strict=False)]
    end = batches[-1]["starts"][-1:] + token[-2]
    micro = batches[0]["micro"].new_zeros(len(batches), token[-1])
    for number, batch in enumerate(batches):
        micro[number, token[number] : token[number + 1]] = batch["micro"][0]
    return {
        **found,
        "starts": torch.cat([*starts, end]),
        "longest": max(batch["longest"] for batch in batches),
        "micro": micro,
        "pairs": pair[-1],
        "places": place[-1],
    }
