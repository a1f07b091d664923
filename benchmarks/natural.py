r"""What do scores see of quality that nobody planted? Sets of rows that people judged.

    python benchmarks/natural.py --llama work/smollm2 --data data --out work/natural   # one GPU
    python benchmarks/natural.py --base work/base --data data --out work/natural
    python benchmarks/natural.py --tiny --data data --out work/tiny                    # a CPU

Scores the sets of ``natural_sets`` by selectmoe's own components: length, answer loss, IFD by both
ratios, the router before and after a contrastive warm-up, and blends. Then, by cross-validation
over prompts, warm-ups on preference pairs of these sets (``[warmup.pairs]``) beside a plain reward
head on hidden states of the same base. Rows of the pool with planted damage are scored as well, to
show which kinds each warm-up finds. Each part leaves a JSON line and its scores; a second run does
what is missing. ``--table`` prints what is there. The base is made as in ``evidence.py``.
"""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from evidence_arms import CONTRAST, Arm
from evidence_bench import Bench, digest, results, scratch, work_folder
from evidence_data import Judged, apart, held_out, overlap, read_planted, read_pool
from evidence_measures import blended, logistic, ranks
from evidence_rivals import BATCH_TOKENS, answer_states
from natural_heads import Fit, fit_pairs, fits, left_out, reward_head
from natural_sets import Together, read_sets
from natural_table import planted_table, set_table
from rows import Rows

from selectmoe_core import ModelRef
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.store import FileHashes
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_damage.config import RATES

MEANING = {"sentence_shuffle": 1.5, "number_slip": 1.0, "name_swap": 0.5, "negation": 0.5}
"""Rates of the kinds that the default mixture leaves out."""
ROUTERS = ("contrastive", "contrastive, all kinds")
BLENDS = ("min", "sum 1:1", "sum 3:1")


class NaturalBench(Bench):
    """The bench of the evidence, with a base that may be given."""

    @cached_property
    def base_key(self) -> str:
        """The digest of what makes the base model, or of the given one."""
        if self.chosen.base:
            return digest(FileHashes(None).of_tree(self.chosen.base))
        key: str = super().base_key
        return key

    @cached_property
    def base(self) -> Path:
        """The base model."""
        given: Path | None = self.chosen.base
        made: Path = given or super().base
        return made


class Run:
    """The parts of a run, in the order of their worth; each is done once."""

    def __init__(self, bench: NaturalBench, together: Together) -> None:
        self.bench = bench
        self.together = together
        self.begun = time.monotonic()
        self.done = {line["key"]: line for line in results(bench.out)}
        self.scores: dict[str, np.ndarray] = {}
        self.folded: set[str] = set()
        self.fine = True

    def part(self, name: str, make: Callable[[], tuple[dict[str, np.ndarray], Any]]) -> None:
        """Do a part unless it is there, the time is over or it is not wanted."""
        key = digest(self.bench.setting, name, self.bench.chosen.epochs)
        path = self.bench.out / f"natural-{key}.npz"
        only = self.bench.chosen.only
        if key not in self.done or not path.is_file():
            late = time.monotonic() - self.begun > self.bench.chosen.limit
            if late or (only and not any(name.startswith(start) for start in only)):
                print(f"not begun: {name}", flush=True)
                return
            start = time.monotonic()
            try:
                scores, facts = make()
            except Exception:
                traceback.print_exc()
                self.fine = False
                return
            np.savez_compressed(path, **scores)
            self.bench.note(name, {"facts": facts}, time.monotonic() - start, key)
        with np.load(path) as kept:
            self.scores |= {signal: kept[signal] for signal in kept.files}

    def all(self) -> None:
        """Do every part."""
        self.part("plain scores", self.plain)
        for name in ROUTERS:
            self.part(name, lambda name=name: self.router(name))  # type: ignore[misc]
        self.part("unwarmed router", lambda: self.router("unwarmed router"))
        self.part("states", self.states)
        chosen = self.bench.chosen
        for fit in (
            *fits(self.together, chosen.folds, chosen.sizes),
            *left_out(self.together),
        ):
            self.part(f"{fit.name}/{fit.fold}", lambda fit=fit: self.pairs(fit))  # type: ignore[misc]

    def plain(self) -> tuple[dict[str, np.ndarray], Any]:
        """Score by what needs no router."""
        bench = self.bench
        with scratch(bench.work / "plain") as work:
            details = bench.scores("ifd", {}, bench.base, bench.rows, work).details
            length = bench.scores("length", {}, bench.base, bench.rows, work).score
        loss, alone = details["loss"], details["loss_alone"]
        found = {
            "length": length,
            "answer loss, low": -loss,
            "IFD, low": -details["ifd"],
            "IFD of perplexities, low": alone - loss,
        }
        return found, None

    def router(self, name: str) -> tuple[dict[str, np.ndarray], Any]:
        """Warm up, or not, and score by the router."""
        bench, epochs = self.bench, self.bench.chosen.epochs
        options = CONTRAST if name == ROUTERS[0] else CONTRAST | {"damages": RATES | MEANING}
        arm = Arm(name, None if name not in ROUTERS else options, epochs)
        with scratch(bench.work / "arm") as work:
            model, facts = bench.warmed(arm, bench.pool, work)
            found = {
                name: bench.scores("router", {"tokens": "end"}, model, bench.rows, work).score,
            }
        return found, facts

    def states(self) -> tuple[dict[str, np.ndarray], Any]:
        """Read the base's states of the judged sets: what the reward head learns from."""
        bench = self.bench
        job, ref = bench.job(0, bench.work), ModelRef(str(bench.base))
        model = job.models.load(ref, dtype=job.dtype, device=job.device)
        encoded = bench.rows.encoded(job.models.tokenizer(ref))
        count = len(self.together.examples)
        whole = answer_states(model, encoded.take(np.arange(count)), BATCH_TOKENS)
        return {"states": whole.astype(np.float16)}, {"width": whole.shape[1]}

    def pairs(self, fit: Fit) -> tuple[dict[str, np.ndarray], Any]:
        """Warm up on pairs; score the rows that were held out, beside a reward head."""
        overrides = {"epochs": 1.0, "batch_size": 8, "micro_batch_size": 8}
        score, facts = fit_pairs(
            self.bench, self.together, fit, overrides if self.bench.chosen.tiny else {}
        )
        found = {f"{fit.name}/{fit.fold}": self._placed(score, fit.held)}
        if fit.way == "all weights" and "states" in self.scores:
            head = reward_head(
                self.scores["states"].astype(np.float32),
                self.together.others(fit.held, fit.size),
                self.together.groups,
                fit.held,
            )
            name = fit.name.replace("pairs", "reward head").replace(", all weights", "")
            found[f"{name}/{fit.fold}"] = self._placed(head, fit.held)
        return found, facts

    def _placed(self, score: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Return ranks of the rows that were held out among all judged rows, NaN elsewhere.

        Ranks, because the scores of different folds come from different models.
        """
        whole = np.full(len(self.bench.rows), np.nan)
        whole[np.flatnonzero(held)] = ranks(score)
        return whole

    # ------------------------------------------------------------------------------- judging

    def judged(self) -> dict[str, np.ndarray]:
        """Return every score of the judged rows; NaN where a fold is not done."""
        count = len(self.bench.rows)
        found: dict[str, np.ndarray] = {}
        for key, score in self.scores.items():
            name, _, fold = key.rpartition("/")
            if fold.isdigit():
                place = found.setdefault(name, np.full(count, np.nan))
                place[np.isfinite(score)] = score[np.isfinite(score)]
                self.folded.add(name)
            elif len(score) == count:
                found[key] = score
        for main in ROUTERS:
            if main in found and "IFD, low" in found:
                for how, score in blended(found[main], found["IFD, low"]).items():
                    if how in BLENDS:
                        found[f"{main} with IFD, {how}"] = score
                found |= self._learned(main, found)
        return found

    def _learned(self, main: str, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return a blend whose weights come from planted damage, as an audit could learn them."""
        names = (main, "IFD, low", "answer loss, low")
        table = np.column_stack([ranks(scores[name]) for name in names])
        parts = self.bench.of_sets(np.arange(len(table)))
        held, rows = next((one, rows) for one, rows in parts if one.name == "held")
        score = logistic(table[rows], ~held.clean, table)
        return {f"{main}, weights learned from plants": score}

    def report(self) -> str:
        """Return the tables, and keep their figures."""
        scores = self.judged()
        sets = {one.about.name: one for one in self.together.sets}
        texts, figures = [], {}
        for judged, rows in self.bench.of_sets(np.arange(len(self.bench.rows))):
            of_set = {name: score[rows] for name, score in scores.items()}
            if judged.name in sets:
                natural = sets[judged.name]
                text, kept = set_table(natural, of_set, of_set["length"], self.folded)
            else:
                text, kept = planted_table(judged.name, of_set, judged)
            texts.append(text)
            figures[judged.name] = kept
        path = self.bench.out / "natural.json"
        path.write_text(json.dumps(figures, indent=1), encoding="utf-8")
        return "\n\n".join(texts)


def unpacked(path: Path, work: Path, registry: Registry) -> Path:
    """Return the folder of a model; a GGUF file is written once as a folder in bf16."""
    if path.is_dir():
        return path
    folder = work / path.stem
    if not folder.is_dir():
        part, ref = folder.with_suffix(".part"), ModelRef(str(path))
        registry.models.load(ref, dtype="bfloat16", device="cpu").save_pretrained(part)
        registry.models.tokenizer(ref).save_pretrained(part)
        part.rename(folder)
    return folder


def prepare(chosen: argparse.Namespace) -> Run:
    """Read the rows; what is judged is not in the pool."""
    registry = Registry(load_plugins())
    if chosen.llama:
        chosen.llama = unpacked(chosen.llama, work_folder(chosen), registry)
    chat = ChatFormat(ChatConfig(template="tulu", max_length=chosen.max_length))
    together = Together.join(read_sets(chosen.data, 40 if chosen.tiny else None))
    planted = read_planted(chosen.data / "planted_dev.jsonl")
    if chosen.tiny:
        planted = Judged(planted.name, planted.examples[-80:], planted.kinds[-80:])
    whole = read_pool(chosen.data / "less")
    judged_rows = [*planted.examples, *together.examples]
    touched = overlap(whole, judged_rows).touched
    whole = [row for row in whole if row.id not in touched][: chosen.rows]
    held = min(1500, len(whole) // 4)
    judged = (
        *(one.judged for one in together.sets),
        planted,
        held_out(whole[:held], registry.damages, seed=7),
    )
    work = work_folder(chosen)
    pool = Rows(apart(whole[held:], whole[:held]), chat, work / "pool-tokens")
    rows = Rows([row for one in judged for row in one.examples], chat, work / "judged-tokens")
    bench = NaturalBench(chosen, registry, chat, pool, judged, rows)
    bench.out.mkdir(parents=True, exist_ok=True)
    start = {one.about.name: [len(one.examples), len(one.pairs)] for one in together.sets}
    print(json.dumps({"pool": len(pool), "rows, pairs": start}), flush=True)
    return Run(bench, together)


def main(arguments: list[str] | None = None) -> int:
    """Do what is missing and print the tables; return 1 where a part failed."""
    chosen = options(arguments)
    begun = time.monotonic()
    run = prepare(chosen)
    run.begun = begun
    if chosen.table:
        chosen.limit = -1.0
    run.all()
    print(f"{time.monotonic() - begun:.0f} s before the tables", flush=True)
    print(run.report())
    return 0 if run.fine else 1


def options(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    default = Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))
    add("--out", type=Path, required=True, help="where results go")
    add("--work", type=Path, help="where models go (OUT/work)")
    add("--bases", type=Path, help="where base models go (WORK)")
    add("--data", type=Path, default=default, help="by default SELECTMOE_DATA")
    add("--llama", type=Path, help="folder or GGUF file of a small Llama, of which a base is made")
    add("--base", type=Path, help="folder of an OLMoE checkpoint, in place of --llama")
    add("--rows", type=int, help="of the pool at most")
    add("--heal", type=float, default=40.0, help="seconds of healing the base")
    add("--tokens", type=int, default=24576, help="of a step of healing")
    add("--documents", type=int, default=2500, help="of plain text for healing")
    add("--max-length", type=int, default=512)
    add("--epochs", type=float, default=0.5, help="of a contrastive warm-up on the pool")
    add("--folds", type=int, default=3)
    add("--sizes", type=int, nargs="*", default=[500], help="of the learning curve, beside all")
    add("--only", nargs="*", default=[], help="parts whose names begin so")
    add("--limit", type=float, default=1e9, help="begin no part after these seconds")
    add("--table", action="store_true", help="print what is there")
    add("--tiny", action="store_true", help="bundled nano model, few rows")
    chosen = parser.parse_args(arguments)
    if chosen.tiny:
        models = Registry(load_plugins()).models
        chosen.llama = chosen.llama or models.find(ModelRef("bundled:nano-llama"))
        chosen.rows, chosen.heal, chosen.tokens, chosen.documents = 160, 1.0, 1024, 4
        chosen.max_length, chosen.folds, chosen.sizes, chosen.epochs = 128, 2, [], 2.0
    if chosen.llama is None and chosen.base is None:
        parser.error("--llama FOLDER or --base FOLDER is missing (or --tiny)")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
