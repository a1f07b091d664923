"""Pretrain the nano OLMoE and the nano Llama on generated text, and say what they learned.

    python tools/pretrain_nano.py --out OUT --minutes 3        (one GPU)
    python tools/pretrain_nano.py --out OUT --tiny             (a quick check, CPU)

Writes OUT/models/<name>/ and OUT/nano-models.tar. Needs torch, transformers, tokenizers, numpy.

Only pretraining text differs between the two. The Llama is the target of tuning: it sees plain
"question, newline, answer" text and never the chat format, so that tuning has something to
teach. The OLMoE is the judge: half of its text is in the chat format, because the pool is scored
in that format, and a judge that is surprised by the format itself would drown what the answers say.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import tarfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from nano_check import accuracy, damage_aurocs
from nano_corpus import Rows, corpus, train_tokenizer
from nano_models import Model, build_llama, build_olmoe, losses, save
from tokenizers import Tokenizer
from torch import nn

from selectmoe_nano import generator
from selectmoe_nano.examination import PER_FAMILY, SEED

PROMPT_WEIGHT = 0.1
BALANCE_WEIGHT = 0.01
SNAPSHOTS = (0.125, 0.25, 0.5)


@dataclass
class Options:
    """The command line."""

    out: Path
    minutes: float
    llama_minutes: float
    llama_steps: int
    examples: int
    batch: int
    length: int
    rate: float
    seed: int
    workers: int
    tiny: bool
    device: str


def options() -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.0, help="training time of each model")
    parser.add_argument("--llama-minutes", type=float, default=0.0, help="the Llama's, if another")
    parser.add_argument("--llama-steps", type=int, default=0, help="at most so many, if given")
    parser.add_argument("--examples", type=int, default=2_400_000, help="distinct rows of text")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--length", type=int, default=80, help="tokens of a row")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that it works")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = Options(**vars(parser.parse_args()))
    if chosen.tiny:
        chosen.minutes, chosen.examples, chosen.batch, chosen.workers = 0.1, 20_000, 32, 2
    chosen.llama_minutes = chosen.llama_minutes or chosen.minutes
    return chosen


class Text:
    """The corpus on the device, drawn in random batches, epoch after epoch."""

    def __init__(self, rows: Rows, device: str, batch: int) -> None:
        self.ids = torch.from_numpy(rows.ids).to(device)
        self.start = torch.from_numpy(rows.start).to(device)[:, None]
        self.stop = torch.from_numpy(rows.stop).to(device)[:, None]
        self.batch, self.at, self.order = batch, len(self.ids), torch.empty(0)

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids [batch, length] and the loss weights of what follows [batch, length - 1]."""
        if self.at + self.batch > len(self.ids):
            self.order = torch.randperm(len(self.ids), device=self.ids.device)
            self.at = 0
        chosen = self.order[self.at : self.at + self.batch]
        self.at += self.batch
        ids = self.ids[chosen].long()
        place = torch.arange(1, ids.shape[1], device=ids.device)[None]
        weights = torch.where(place >= self.start[chosen], 1.0, PROMPT_WEIGHT)
        return ids, weights * (place < self.stop[chosen])


def make_optimizer(model: Model, rate: float) -> torch.optim.Optimizer:
    """Return AdamW; matrices decay, embeddings and norms don't (unseen tokens keep their rows)."""
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim == 1 or "embed" in n]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=next(iter(rest)).is_cuda)


def sync(device: str) -> float:
    """Return the time once the device has done its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def train(
    model: Model,
    text: Text,
    chosen: Options,
    minutes: float,
    limit: int,
    visit: Callable[[int, int], None],
) -> dict[str, Any]:
    """Train for about ``minutes`` or ``limit`` steps; ``visit(step, total)`` sees some steps.

    The number of steps is fixed after the first 60, from the time that steps 20 to 60 took.
    """
    optimizer = make_optimizer(model, chosen.rate)
    warm, probe = (5, (3, 8)) if chosen.tiny else (200, (20, 60))
    total, step, begin, mark, log = 10**9, 0, sync(chosen.device), 0.0, []
    while step < total:
        factor = min(1.0, (step + 1) / warm)
        if total < 10**9:
            factor *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / total))
        for group in optimizer.param_groups:
            group["lr"] = chosen.rate * factor
        ids, weights = text.draw()
        cross, balance = losses(model, ids, weights)
        torch.autograd.backward([cross + BALANCE_WEIGHT * balance])
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step == probe[0]:
            mark = sync(chosen.device)
        if step == probe[1]:
            each = (sync(chosen.device) - mark) / (probe[1] - probe[0])
            total = max(step + 1, int((60 * minutes - (time.perf_counter() - begin)) / each) + step)
            total = min(total, limit or total)
            print(f"  {1000 * each:.1f} ms a step, {total} steps", flush=True)
        if step % max(1, min(total, 10_000) // 20) == 0 or step == total:
            log.append(
                {"step": step, "loss": round(cross.item(), 4), "balance": round(balance.item(), 4)}
            )
            print(f"  {log[-1]} {sync(chosen.device) - begin:.0f} s", flush=True)
        if total < 10**9:
            visit(step, total)
    seconds = sync(chosen.device) - begin
    return {
        "steps": step, "tokens": step * text.batch * text.ids.shape[1], "rows": step * text.batch,
        "seconds": round(seconds, 1), "final_loss": log[-1]["loss"],
        "final_balance": log[-1]["balance"], "log": log,
    }  # fmt: skip


def finish(folder: Path, facts: dict[str, Any]) -> None:
    """Write ``training.json`` and, last, ``checksums.json``."""
    (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != "checksums.json"
    }
    (folder / "checksums.json").write_text(json.dumps(sums, indent=1) + "\n")


def evaluate(
    model: Model, tokenizer: Tokenizer, exam: list[generator.ExamQuestion], tiny: bool
) -> dict[str, Any]:
    """Return and print accuracies and AUROCs in both formats."""
    found: dict[str, Any] = {}
    for style in ("plain", "chat"):
        total, families = accuracy(model, tokenizer, exam, style)
        ratings = damage_aurocs(model, tokenizer, style, 200 if tiny else 4000)
        found[style] = {"accuracy": total, "auroc": ratings, "families": families}
        print(f"  {style}: accuracy {total:.3f}; AUROC of the answer loss "
              + ", ".join(f"{k} {v:.3f}" for k, v in ratings.items()))  # fmt: skip
        print("   " + ", ".join(f"{k} {v:.2f}" for k, v in families.items()), flush=True)
    return found


def make_text(name: str, tokenizer: Tokenizer, chosen: Options) -> Rows:
    """Generate and tokenise the text of one model."""
    begin = time.perf_counter()
    moe = name == "nano-olmoe"
    rows = corpus(tokenizer, chosen.examples, 0.5 if moe else 0.0, chosen.length,
                  10_000 * (2 * chosen.seed + moe), chosen.workers)  # fmt: skip
    print(f"{name}: {len(rows.ids)} rows, {rows.stop.mean():.1f} tokens a row, longest "
          f"{rows.stop.max()}, {time.perf_counter() - begin:.0f} s", flush=True)  # fmt: skip
    return rows


def run(
    name: str, rows: Rows, tokenizer: Tokenizer, chosen: Options, exam: list[generator.ExamQuestion]
) -> None:
    """Build, train, check and write one model."""
    moe = name == "nano-olmoe"
    torch.manual_seed(chosen.seed)
    model = (build_olmoe if moe else build_llama)(tokenizer).to(chosen.device)
    text = Text(rows, chosen.device, chosen.batch)
    looks = dict.fromkeys((SNAPSHOTS[0],) if chosen.tiny else (0.05, *SNAPSHOTS, 0.75), exam[::2])

    def visit(step: int, total: int) -> None:
        for share in [f for f in looks if step >= f * total]:
            sample = looks.pop(share)
            marks = [accuracy(model, tokenizer, sample, s)[0] for s in ("plain", "chat")]
            print(f"  at {share:.1%}: plain {marks[0]:.3f}, chat {marks[1]:.3f}", flush=True)
            if share in SNAPSHOTS and not moe:
                save(model, tokenizer, chosen.out / "snapshots" / f"{name}-{share:g}")

    minutes, limit = (chosen.minutes, 0) if moe else (chosen.llama_minutes, chosen.llama_steps)
    facts = train(model, text, chosen, minutes, limit, visit)
    hardware = torch.cuda.get_device_name() if text.ids.is_cuda else platform.processor()
    folder = chosen.out / "models" / name
    save(model, tokenizer, folder)
    finish(folder, {
        "model": name, "parameters": sum(p.numel() for p in model.parameters()),
        "hardware": hardware, "torch": torch.__version__, "transformers": transformers.__version__,
        "distinct_rows": len(rows.ids), **facts,
        "options": {k: v for k, v in asdict(chosen).items() if k != "out"},
        "check": evaluate(model, tokenizer, exam, chosen.tiny),
    })  # fmt: skip


def main() -> None:
    """Train both models and pack them."""
    chosen = options()
    # Forked workers and the tokenizer's threads do not go together.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.backends.cuda.matmul.allow_tf32 = True
    begin = time.perf_counter()
    tokenizer = train_tokenizer(4_000 if chosen.tiny else 60_000)
    exam = generator.exam(PER_FAMILY, SEED)[:: 16 if chosen.tiny else 1]
    size, seconds = tokenizer.get_vocab_size(), time.perf_counter() - begin
    print(f"tokenizer of {size} in {seconds:.0f} s", flush=True)
    texts = {name: make_text(name, tokenizer, chosen) for name in ("nano-llama", "nano-olmoe")}
    for name, rows in texts.items():
        print(name, flush=True)
        run(name, rows, tokenizer, chosen, exam)
        pack(chosen.out)
        print(f"done after {time.perf_counter() - begin:.0f} s", flush=True)


def pack(out: Path) -> None:
    """Write ``nano-models.tar`` and ``nano-snapshots.tar``."""
    for folder in ("models", "snapshots"):
        with tarfile.open(out / f"nano-{folder}.tar", "w") as tar:
            tar.add(out / folder, folder)


if __name__ == "__main__":
    main()
