r"""A better base model for the evidence: trained for a number of tokens, in several runs.

    python benchmarks/evidence_base_run.py make --llama work/smollm2 --data data --out work/base10 \
        --total 37e6 --minutes 9
    python benchmarks/evidence_base_run.py cut work/base10/model --out work/pieces
    python benchmarks/evidence_base_run.py join work/pieces --out work/base
    python benchmarks/natural.py --base work/base --data data --out work/natural

``make`` upcycles a small Llama as ``evidence_base`` does, and trains until ``--total`` tokens were
read. It stops when the minutes are over, saves weights and optimizer, and a second run goes on: it
ends with what one long run gives. No judged row is trained on. ``cut`` writes the model as
safetensors files of less than 60 MB, so that it can be carried where only small files can, and
``join`` puts them together again and checks each.

The base of the lab notes has read about 3.7 million tokens in 70 s on an H200 (53,000 a second; on
an H100 beside other work 38,000). Ten times as many, 37 million, take 12 minutes at the first rate
and 16 at the second: two runs of 9 minutes. The arithmetic alone (1.3 GFLOP a token) would take
less than 3; the rest goes to small kernels and to AdamW over 692 million fp32 weights. The state of
an unfinished run takes 8.3 GB and about half a minute to write; the model has 1.4 GB, 24 pieces.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import natural
import numpy as np
import torch
from evidence_base import (
    ROW,
    SHAPE,
    MasterWeights,
    optimizer_of,
    plain_text,
    scale,
    steps,
    train_step,
    upcycle,
)
from evidence_bench import digest
from measuring import append
from natural_parts import Clock
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

STATE = "state.pt"
MODEL = "model"
LOG = "log.jsonl"
PIECES = "pieces.json"
LIMIT = 58_000_000
"""Bytes of tensors in a piece at most."""


class Training:
    """A training that can be left and taken up again.

    Args:
        model: an upcycled model on its device.
        out: where its state, its log and the finished model go.
        key: names what decides the result; another state is not taken up.
    """

    def __init__(self, model: Any, out: Path, key: str) -> None:  # noqa: ANN401
        self.model = model
        self.out = out
        self.key = key
        self.masters = MasterWeights(model)
        self.optimizer = optimizer_of(self.masters, model.device.type)
        self.step = 0
        self.seen = 0

    def load(self) -> None:
        """Take up a saved state, if there is one."""
        path = self.out / STATE
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.model.device, weights_only=True)
        if state["key"] != self.key:
            raise SystemExit(f"{path} belongs to other options or data; use another --out")
        with torch.no_grad():
            for name, weight in self.masters.named.items():
                weight.copy_(state["masters"][name])
        self.masters.give_back()
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seen = state["step"], state["seen"]
        print(f"goes on at step {self.step}, {self.seen:,} tokens", flush=True)

    def save(self) -> None:
        """Write the state; it is there whole or not at all."""
        partial = self.out / f".{STATE}"
        state = {
            "key": self.key,
            "masters": {name: weight.data for name, weight in self.masters.named.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seen": self.seen,
        }
        torch.save(state, partial)
        partial.rename(self.out / STATE)

    def run(self, batches: Iterator[np.ndarray], total: float, clock: Clock, every: float) -> bool:
        """Train until ``total`` tokens were read; return whether that was reached in time.

        Args:
            batches: of the whole training, from its first step.
            total: tokens.
            clock: the time.
            every: seconds between two saved states.
        """
        begun = saved = time.monotonic()
        before = self.seen
        for ids in islice(batches, self.step, None):
            if self.seen >= total:
                return True
            loss = train_step(
                self.model, self.masters, self.optimizer, ids, scale(self.step, self.seen / total)
            )
            self.step += 1
            self.seen += int((ids >= 0).sum())
            if self.step % 30 == 1:
                self._tell(loss, (self.seen - before) / (time.monotonic() - begun), total)
            if clock.left <= 0:
                return self.seen >= total
            if time.monotonic() - saved > every:
                self.save()
                saved = time.monotonic()
        raise RuntimeError("the batches have no end")

    def _tell(self, loss: Tensor, rate: float, total: float) -> None:
        entry = {
            "step": self.step,
            "tokens": self.seen,
            "loss": round(loss.item(), 4),
            "tokens_per_second": round(rate),
        }
        append(self.out / LOG, entry)
        left = (total - self.seen) / rate / 60
        print(f"{entry}; {left:.1f} min left for all tokens", flush=True)


def make(chosen: argparse.Namespace) -> int:
    """Train the base; return 0 where it is finished, and 3 where another run has to go on."""
    clock = Clock(chosen.minutes)
    given = ["--data", str(chosen.data), "--out", str(chosen.out / "rows")]
    given += ["--tiny"] if chosen.tiny else []
    given += ["--llama", str(chosen.llama)] if chosen.llama else []
    options = natural.options(given)
    if (chosen.out / MODEL).is_dir():
        print(f"{chosen.out / MODEL} is there")
        return 0
    bench = natural.prepare(options, clock).bench
    llama = bench.chosen.llama
    tokenizer = AutoTokenizer.from_pretrained(llama)
    pool = bench.pool.encoded(tokenizer)
    text = plain_text(chosen.data / "text", tokenizer, chosen.documents, ROW)
    probe = [pool[row].ids for row in range(min(64, len(pool)))]
    model = upcycle(llama, probe, chosen.experts, chosen.top_k, bench.device).to(bench.device)
    model.set_experts_implementation("grouped_mm")
    settings = [chosen.total, chosen.tokens, chosen.documents, chosen.experts, chosen.top_k]
    training = Training(model, chosen.out, digest(bench.base_key, settings))
    training.load()
    # A state takes a while to write: begin it before the time is over.
    clock.minutes -= chosen.saving
    done = training.run(
        steps(pool, text, chosen.tokens), chosen.total, clock, 60 * chosen.save_every
    )
    if not done:
        training.save()
        print("the time is over; run it again", flush=True)
        return 3
    partial = chosen.out / f".{MODEL}"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(chosen.out / MODEL)
    (chosen.out / STATE).unlink(missing_ok=True)
    print(f"{chosen.out / MODEL}: {training.seen:,} tokens in {training.step:,} steps")
    return 0


def cut(chosen: argparse.Namespace) -> int:
    """Write a checkpoint as pieces, each with less than ``LIMIT`` bytes of tensors."""
    chosen.out.mkdir(parents=True, exist_ok=True)
    pieces: list[dict[str, str]] = []
    shapes: dict[str, list[int]] = {}
    parts: dict[str, Tensor] = {}

    def close() -> None:
        if parts:
            name = f"piece-{len(pieces):03d}.safetensors"
            save_file(parts, chosen.out / name)
            pieces.append({"name": name, "sha256": _hash(chosen.out / name)})
            parts.clear()

    for name, tensor in _tensors(chosen.folder):
        shapes[name] = list(tensor.shape)
        flat, size = tensor.reshape(-1), tensor.element_size()
        at = 0
        while at < len(flat):
            room = (chosen.limit - sum(p.nbytes for p in parts.values())) // size
            if room <= 0:
                close()
                continue
            parts[f"{name}:{at}"] = flat[at : at + room].clone()
            at += room
    close()
    small = [path for path in sorted(chosen.folder.iterdir()) if path.suffix != ".safetensors"]
    small = [path for path in small if not path.name.endswith(".index.json")]
    for path in small:
        shutil.copyfile(path, chosen.out / path.name)
    notes = {"pieces": pieces, "shapes": shapes, "files": [path.name for path in small]}
    (chosen.out / PIECES).write_text(json.dumps(notes), encoding="utf-8")
    print(f"{chosen.out}: {len(pieces)} pieces")
    return 0


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                yield name, file.get_tensor(name)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def join(chosen: argparse.Namespace) -> int:
    """Put pieces together; each must be there and be what was written."""
    notes = json.loads((chosen.folder / PIECES).read_text(encoding="utf-8"))
    wrong = [
        piece["name"]
        for piece in notes["pieces"]
        if not (path := chosen.folder / piece["name"]).is_file() or _hash(path) != piece["sha256"]
    ]
    if wrong:
        raise SystemExit(f"{chosen.folder}: missing or damaged: {', '.join(wrong)}")
    found: dict[str, list[tuple[int, Tensor]]] = {}
    for piece in notes["pieces"]:
        for key, part in load_file(chosen.folder / piece["name"]).items():
            name, _, at = key.rpartition(":")
            found.setdefault(name, []).append((int(at), part))
    tensors = {
        name: torch.cat([part for _, part in sorted(parts, key=lambda part: part[0])])
        for name, parts in found.items()
    }
    shaped = {name: tensors[name].reshape(shape) for name, shape in notes["shapes"].items()}
    chosen.out.mkdir(parents=True, exist_ok=True)
    save_file(shaped, chosen.out / "model.safetensors", metadata={"format": "pt"})
    for name in notes["files"]:
        shutil.copyfile(chosen.folder / name, chosen.out / name)
    print(f"{chosen.out}: {len(shaped)} tensors")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make", help="train a base, or go on with it")
    making.set_defaults(do=make)
    add = making.add_argument
    add("--out", type=Path, required=True)
    add("--data", type=Path, required=True)
    add("--llama", type=Path, help="folder or GGUF file of a small Llama")
    add("--total", type=float, default=37e6, help="tokens of the whole training")
    add("--tokens", type=int, default=24576, help="of a step, padding included")
    add("--documents", type=int, default=10**9, help="of plain text at most")
    add("--experts", type=int, default=SHAPE[0])
    add("--top-k", type=int, default=SHAPE[1])
    add("--minutes", type=float, default=1e9, help="of this run")
    add("--saving", type=float, default=0.7, help="minutes of them to save the state in")
    add("--save-every", type=float, default=4.0, help="minutes between saved states")
    add("--tiny", action="store_true", help="bundled nano model, few rows")
    for name, do, text in (("cut", cut, "write pieces"), ("join", join, "put them together")):
        command = commands.add_parser(name, help=text)
        command.set_defaults(do=do)
        command.add_argument("folder", type=Path)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--limit", type=int, default=LIMIT, help="bytes of a piece")
    chosen = parser.parse_args(arguments)
    done: int = chosen.do(chosen)
    return done


if __name__ == "__main__":
    sys.exit(main())
