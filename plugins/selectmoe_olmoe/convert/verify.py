"""Verify that a converted model is its original plus trash rows: tensors first, then logits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selectmoe_core import Job, ModelError, ModelRef, StageError, VerifyOptions
from selectmoe_olmoe.convert.checkpoint import Checkpoint, open_shard
from selectmoe_olmoe.convert.file_copy import readers, same_bytes
from selectmoe_olmoe.convert.layout import Layout, Run

SAMPLE = (
    "The router sends each token to the experts that know it best.",
    "Q: A train leaves at 9:40 and arrives at 11:05. How long is the journey?\nA: 85 minutes.",
    "def area(radius):\n    return 3.14159 * radius ** 2",
    "Rain.",
)
SHOWN = 8
SIGMAS = 6.0
PIECE = 1 << 22
"""Numbers that are compared at once, because a whole embedding would fill gigabytes."""


@dataclass
class Moments:
    """Running count, sum and sum of squares of the trash rows."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, rows: Tensor) -> None:
        """Add ``[trash, hidden]``."""
        values = rows.double()
        self.count += values.numel()
        self.total += values.sum().item()
        self.squares += values.square().sum().item()

    @property
    def mean(self) -> float:
        """The mean of all values."""
        return self.total / max(self.count, 1)

    @property
    def std(self) -> float:
        """The standard deviation of all values."""
        return math.sqrt(max(self.squares / max(self.count, 1) - self.mean**2, 0.0))


@dataclass
class Comparison:
    """The result of the comparison of tensors."""

    tensors: int = 0
    largest: float = 0.0
    differ: list[str] = field(default_factory=list)
    trash: Moments = field(default_factory=Moments)


def verify_converted(
    converted: Path, original: ModelRef, how: VerifyOptions, job: Job
) -> dict[str, Any]:
    """Compare a converted checkpoint with its original.

    Every tensor except the gates must be equal within ``how.tolerance`` (0: the same bits), and
    so must the first rows of each gate. The trash rows must fit the stated normal distribution.
    Then the logits of sample text with the trash rows off must equal the original's.

    Raises:
        StageError: names the tensors that differ, or the largest difference of the logits.
        ModelError: one of the two is not a valid model of its kind.
    """
    mine = Checkpoint.open(converted, converted=True)
    theirs = Checkpoint.open(job.models.find(original), converted=False)
    found = compare_tensors(mine, theirs, how.tolerance, job)
    if found.differ:
        more = f" and {len(found.differ) - SHOWN} more" if len(found.differ) > SHOWN else ""
        raise StageError(
            f"{converted}: {len(found.differ)} of {found.tensors} tensors differ from {original}: "
            f"{', '.join(found.differ[:SHOWN])}{more}",
            hint="is this its original? If so, convert the model again",
        )
    facts: dict[str, Any] = {
        "tensors": found.tensors,
        "largest_difference": found.largest,
        "trash_rows_mean": found.trash.mean,
        "trash_rows_std": found.trash.std,
    }
    _check_trash(found.trash, mine)
    mine.family.register()
    return facts | (_check_logits(converted, original, how, job) if how.logits else {})


def compare_tensors(mine: Checkpoint, theirs: Checkpoint, tolerance: float, job: Job) -> Comparison:
    """Compare tensor by tensor: first the bytes, and the numbers if the bytes differ."""
    found = Comparison()
    found.differ = [f"{name} (only in one)" for name in sorted(_lone(mine, theirs))]
    ours, other = mine.where, theirs.where
    names = [name for name in ours if name in other]
    gates = theirs.gates
    layouts = {
        path: Layout.read(path)
        for model in (mine, theirs)
        for path in (model.folder / shard for shard in model.shards)
    }

    def same(name: str) -> bool:
        pair = mine.folder / ours[name], theirs.folder / other[name]
        return _same_bits(name, *pair, layouts, grown=name in gates)

    with readers() as pool, job.progress.task("verify", len(names), "tensors") as advance:
        for name, equal in zip(names, pool.map(same, names), strict=True):
            found.tensors += 1
            rows = theirs.shape.experts if name in gates else None
            if rows is not None:
                found.trash.add(_tensor(mine, ours[name], name)[rows:])
            if not equal:
                pair = _tensor(mine, ours[name], name)[:rows], _tensor(theirs, other[name], name)
                difference = _difference(*pair)
                found.largest = max(found.largest, difference)
                if difference > tolerance:
                    found.differ.append(f"{name} (by {difference:.3g})")
            advance(1)
    return found


def _lone(mine: Checkpoint, theirs: Checkpoint) -> set[str]:
    return set(mine.where.keys() ^ theirs.where.keys())


def _same_bits(
    name: str, mine: Path, theirs: Path, layouts: Mapping[Path, Layout], *, grown: bool
) -> bool:
    """Return whether a tensor, or a grown gate's first rows, hold the same bits in both files."""
    a, b = layouts[mine].places[name], layouts[theirs].places[name]
    shape = (b.shape[0], *a.shape[1:]) if grown and a.shape[0] > b.shape[0] else a.shape
    if a.dtype != b.dtype or shape != b.shape:
        return False
    run = Run(layouts[mine].begin + a.start, layouts[theirs].begin + b.start, b.stop - b.start)
    return same_bytes(mine, theirs, run)


def _tensor(model: Checkpoint, shard: str, name: str) -> Tensor:
    with open_shard(model.folder / shard) as reader:
        tensor: Tensor = reader.get_tensor(name)
        return tensor


def _difference(one: Tensor, other: Tensor) -> float:
    """Return the largest absolute difference of two tensors; infinite if shapes differ."""
    if one.shape != other.shape:
        return math.inf
    difference = 0.0
    for a, b in zip(one.reshape(-1).split(PIECE), other.reshape(-1).split(PIECE), strict=True):
        largest = (a.double() - b.double()).abs().max().item()
        if math.isnan(largest):
            return math.inf
        difference = max(difference, largest)
    # Equal values with other bits (-0, another dtype) are the smallest possible difference.
    return max(difference, math.ulp(0.0))


def _check_trash(found: Moments, mine: Checkpoint) -> None:
    """Raise unless mean and deviation are within six standard errors of the stated values."""
    mean, std = mine.config["trash_can_init_mean"], mine.config["trash_can_init_std"]
    rounding = 0.005 * (abs(mean) + std)
    error = SIGMAS * std / math.sqrt(max(found.count, 1))
    if abs(found.mean - mean) > error + rounding or abs(found.std - std) > error + rounding:
        raise StageError(
            f"{mine.folder}: the trash rows have mean {found.mean:.4g} and deviation "
            f"{found.std:.4g}; its config.json states {mean:.4g} and {std:.4g}",
            hint="was it trained after its conversion? verify is for models before their training",
        )


def _check_logits(
    converted: Path, original: ModelRef, how: VerifyOptions, job: Job
) -> dict[str, Any]:
    ids, mask, kind = _sample(original, job)
    expected, _ = _logits(original, ids, mask, how, job)
    found, trash = _logits(ModelRef(str(converted)), ids, mask, how, job, selector=True)
    difference = (found.double() - expected.double()).abs().max().item()
    if not torch.equal(found, expected) and not difference <= how.tolerance:
        raise StageError(
            f"{converted}: without trash rows its logits differ from those of {original} by "
            f"{difference:.3g} in {how.dtype} on {how.device}",
            hint="the tensors are equal, so the error is in the model's code: please report it",
        )
    return {
        "logits": "equal" if torch.equal(found, expected) else "within tolerance",
        "logits_largest_difference": difference,
        "sample": kind,
        "sample_tokens": int(mask.sum()),
        "trash_share_of_slots": trash,
    }


def _sample(original: ModelRef, job: Job) -> tuple[Tensor, Tensor, str]:
    """Return ids and mask ``[4, length]``, right padded; without a tokenizer, drawn ids."""
    config = job.models.config(original) or {}
    try:
        tokenizer = job.models.tokenizer(original)
        rows = [tokenizer(text)["input_ids"] for text in SAMPLE]
        kind = "text"
    except ModelError:  # a checkpoint without tokenizer can be verified too; the facts say how
        generator = torch.Generator().manual_seed(0)
        size = int(config["vocab_size"])
        rows = [torch.randint(size, (n,), generator=generator).tolist() for n in (48, 31, 17, 2)]
        kind = "random ids (the original has no tokenizer)"
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask, kind


@torch.no_grad()
def _logits(
    ref: ModelRef,
    ids: Tensor,
    mask: Tensor,
    how: VerifyOptions,
    job: Job,
    *,
    selector: bool = False,
) -> tuple[Tensor, float | None]:
    """Return the real tokens' logits on the CPU, and the share of slots that go to trash cans."""
    from selectmoe_olmoe.model.losses import trash_share

    model = job.models.load(ref, dtype=how.dtype, device=how.device)
    inputs = {"input_ids": ids.to(how.device), "attention_mask": mask.to(how.device)}
    trash = None
    if selector:
        config, flat = model.config, inputs["attention_mask"].reshape(-1)
        routed = model(**inputs, output_router_logits=True, use_cache=False).router_logits
        shares = trash_share(routed, flat, config.num_experts, config.num_experts_per_tok)
        trash = shares.mean().item()
        with model.trash_disabled():
            logits = model(**inputs, use_cache=False).logits
    else:
        logits = model(**inputs, use_cache=False).logits
    kept = logits[inputs["attention_mask"].bool()].cpu()
    del model, logits
    if how.device.startswith("cuda"):
        torch.cuda.empty_cache()  # the next model needs the memory
    return kept, trash
