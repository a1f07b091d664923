"""The rivals of the router: scores that need none, and what the base model's states could tell."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_bench import Bench, digest, scratch
from evidence_data import HELD, held_out
from evidence_measures import by_kind, logistic
from rows import Rows

from selectmoe_core import ModelRef
from selectmoe_core.data.examples import Part
from selectmoe_core.models.batches import padded, within_budget
from selectmoe_core.tokens.chat import answer_ends
from selectmoe_core.tokens.encoding import Encoded

TAUGHT = 2 * HELD
"""Rows of the pool that teach the logistic regression, half of them damaged."""
BATCH_TOKENS = 32768
BLENDED = "ifd, low, base"
"""The rival that the arms are blended with."""
CEILING = "logistic regression on hidden states"


class Rivals:
    """Scores of the judged rows by what needs no router.

    Attributes:
        found: AUROCs, by set, rival and kind.
        seconds: how long each rival took.
        scores: of each rival, ``[rows]``.
    """

    def __init__(self, bench: Bench) -> None:
        self.found: dict[str, dict[str, Any]] = {one.name: {} for one in bench.judged}
        self.seconds: dict[str, float] = {}
        self.scores: dict[str, np.ndarray] = {}
        self._bench = bench

    def add(self, name: str, score: np.ndarray) -> None:
        """Judge a rival's score and keep it."""
        self.scores[name] = score
        for judged, part in self._bench.of_sets(score):
            self.found[judged.name][name] = by_kind(part, judged)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Note how long something takes."""
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)
        print(f"  rivals, {name}: {self.seconds[name]} s", flush=True)


def rivals_key(bench: Bench) -> str:
    """Return the digest of what decides the rivals' results."""
    return digest(bench.setting, "rivals", TAUGHT)


def rivals_file(bench: Bench) -> Path:
    """Return where the rivals' scores are kept for the blends."""
    return bench.out / f"rivals-{rivals_key(bench)}.npz"


def run_rivals(bench: Bench) -> None:
    """Score the judged rows by all rivals; keep the scores for the blends."""
    base, start = bench.base, time.monotonic()
    rivals = Rivals(bench)
    with scratch(bench.work / "rivals") as work:
        for name, model in (("llama", bench.chosen.llama), ("base", base)):
            with rivals.timed(f"ifd, {name}"):
                details = bench.scores("ifd", {}, model, bench.rows, work).details
            # Damaged answers are harder to say: a low ratio is the better one here.
            rivals.add(f"ifd, low, {name}", -details["ifd"])
            # The mean over answers: what the perplexity scorer says of rows with one turn.
            rivals.add(f"answer loss, low, {name}", -details["loss"])
        with rivals.timed("length"):
            rivals.add("length", bench.scores("length", {}, base, bench.rows, work).score)
        with rivals.timed(CEILING):
            score, kernel = _ceiling(bench, work)
            rivals.add(CEILING, score)
    np.savez_compressed(rivals_file(bench), **rivals.scores)
    line = {"auroc": rivals.found, "each_seconds": rivals.seconds, "experts": kernel}
    bench.note("rivals", line, time.monotonic() - start, rivals_key(bench))


def _ceiling(bench: Bench, work: Path) -> tuple[np.ndarray, str]:
    """Return how sound a regression on the base's last states takes the judged rows to be.

    It learns from rows of the pool, half of them damaged in all kinds there are.

    Returns:
        The score, and which experts implementation read the rows.
    """
    taught = held_out(bench.pool.examples[:TAUGHT], bench.registry.damages, seed=3)
    job, ref = bench.job(0, work), ModelRef(str(bench.base))
    tokenizer = job.models.tokenizer(ref)
    model = job.models.load(ref, dtype=job.dtype, device=job.device)
    rows = Rows(taught.examples, bench.chat, work / "taught")
    features = answer_states(model, rows.encoded(tokenizer), BATCH_TOKENS)
    asked = answer_states(model, bench.rows.encoded(tokenizer), BATCH_TOKENS)
    return logistic(features, ~taught.clean, asked), model.config._experts_implementation  # noqa: SLF001


@torch.inference_mode()
def answer_states(model: Any, encoded: Encoded, budget: int) -> np.ndarray:  # noqa: ANN401
    """Return the mean last hidden state of each row's answers, and of the answers' last tokens.

    Args:
        model: a causal language model.
        encoded: the rows' tokens.
        budget: tokens of a forward pass, padding included.

    Returns:
        fp32 ``[rows, 2 * hidden]``; zero where there is no answer.
    """
    ids = [one.ids for one in encoded]
    masks = (
        [np.asarray(one.parts) == Part.RESPONSE for one in encoded],
        [answer_ends(one.parts) for one in encoded],
    )
    found = np.zeros((len(ids), 2 * model.config.hidden_size), dtype=np.float32)
    for rows in within_budget(encoded.lengths, budget):
        # No attention mask: behind a causal mask no real token sees the padding.
        answers, ends = (padded(rows, ids, mask, model.device.type) for mask in masks)
        states = model.model(input_ids=answers.ids, use_cache=False).last_hidden_state.float()
        means = [_mean(states, batch.mask.float()) for batch in (answers, ends)]
        found[rows] = torch.cat(means, dim=1).cpu().numpy()
    return found


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the masked mean over tokens, ``[rows, hidden]``."""
    counts = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("bl,blh->bh", mask, states) / counts
