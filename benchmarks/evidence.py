r"""Can a router tell good data from bad? Warm-ups of one base model beside their rivals.

    python benchmarks/evidence.py --llama work/smollm2 --data data --out work/evidence    # one GPU
    python benchmarks/evidence.py --tiny --out work/tiny                                   # a CPU
    python benchmarks/evidence.py --list                       # the arms, and how long each takes

Makes a base OLMoE once (``evidence_base``), converts it, and for each arm (``evidence_arms``) warms
it up on the pool and scores two sets of rows by selectmoe's own components: ``planted`` (a file of
rows of which half are damaged, disjoint from the pool, never fitted on) and ``held`` (rows of the
pool that no training saw, half of them damaged in all kinds there are). Each arm leaves one JSON
line, keyed by all that decides it; a second run does what is missing. ``--table`` prints them.

An arm of all parameters takes 35 GB of the device, the gates alone 24 GB: several runs can share a
large one. ``--only rivals`` first makes the base; then each run names arms of its own, its own
``--work``, and the same ``--out`` and ``--bases``.
"""

import argparse
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from evidence_arms import Arm, arms
from evidence_bench import (
    Bench,
    base_options,
    digest,
    free,
    results,
    scratch,
    shrink,
    work_folder,
)
from evidence_data import (
    HELD,
    Judged,
    about,
    apart,
    held_out,
    overlap,
    read_planted,
    read_pool,
    read_rows,
)
from evidence_measures import blended, by_kind, goes_by, unseen
from evidence_rivals import BLENDED, rivals_file, rivals_key, run_rivals
from evidence_table import BLEND, table
from rows import Rows

from selectmoe_core import ModelRef
from selectmoe_core.data.examples import Part
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import Encoded

TOKENS = ("end", "response", "all")
STATISTICS = ("trash_mass", "trash_slots", "topk_ratio")
POOL_BLENDS = {"blend": "min", "blend3": "sum 3:1"}
"""What is written for another pool beside its two scores: files, and the blends in them."""
BEST = 0.05
"""The share of the pool of which is told what is in it."""


def run_arm(bench: Bench, arm: Arm) -> None:
    """Convert, warm up, score, judge."""
    start = time.monotonic()
    with np.load(rivals_file(bench)) as rivals:
        ifd = rivals[BLENDED]
    with scratch(bench.work / "arm") as work:
        model, facts = bench.warmed(arm, bench.pool, work)
        line: dict[str, Any] = {"facts": facts, "epochs": arm.epochs, "left_out": arm.left_out}
        line["auroc"] = _judge(bench, arm, model, ifd, work)
        if (arm.name, arm.seed) == ("contrastive", 1):
            line["pool"] = _on_the_pool(bench, arm, model, work)
    bench.note(arm.label, line, time.monotonic() - start, bench.key(arm))


def _judge(bench: Bench, arm: Arm, model: Path, ifd: np.ndarray, work: Path) -> dict[str, Any]:
    """Return AUROCs, by set, signal and kind."""
    signals: dict[str, np.ndarray] = {}
    for tokens in TOKENS:
        details = bench.scores("router", {"tokens": tokens}, model, bench.rows, work).details
        signals |= {f"{name}, {tokens}": details[name] for name in STATISTICS}
        if tokens == arm.tokens:
            signals["main"] = details[arm.statistic]
            layers = details["layers"]
            signals["later half"] = layers[:, layers.shape[1] // 2 :].mean(axis=1)
    found: dict[str, Any] = {one.name: {} for one in bench.judged}
    for name, score in signals.items():
        for judged, part in bench.of_sets(score):
            found[judged.name][name] = by_kind(part, judged)
    # Other blends can be tried on what is kept here without a GPU.
    np.savez_compressed(bench.out / f"scores-{bench.key(arm)}.npz", **signals)
    pairs = zip(bench.of_sets(signals["main"]), bench.of_sets(ifd), strict=True)
    for (judged, main), (_, rival) in pairs:
        of_set = found[judged.name]
        of_set["unseen"] = unseen(of_set["main"], arm.left_out)
        for how, both in blended(main, rival).items():
            of_set[f"{how}{BLEND}"] = by_kind(both, judged)
    return found


def _on_the_pool(bench: Bench, arm: Arm, model: Path, work: Path) -> dict[str, Any]:
    """Return what the score goes by on the pool itself, in which nothing was planted."""
    scored = bench.scores("router", {"tokens": arm.tokens}, model, bench.pool, work)
    encoded = bench.pool.encoded(bench.registry.models.tokenizer(ModelRef(str(model))))
    sources = [example.source for example in bench.pool]
    return goes_by(scored.score, answer_lengths(encoded), sources, BEST)


def answer_lengths(encoded: Encoded) -> np.ndarray:
    """Return how many answer tokens each row has, int64 ``[rows]``."""
    tokens = encoded.joined(np.arange(len(encoded)))
    return tokens.sums(tokens.parts == Part.RESPONSE)


def score_pool(bench: Bench, done: set[str]) -> None:
    """Warm up on another pool and score it: rows of a file in, ``id`` and ``score`` out.

    The warmed-up model is kept: another call with the same rows does not make it again.
    """
    path: Path = bench.chosen.score_pool
    start = time.monotonic()
    arm = arms(1, bench.chosen.epochs)[0]
    tokens = bench.work / "score-pool-tokens"
    rows = Rows([row for row, _ in read_rows(path)], bench.chat, tokens)
    key = digest(bench.base_key, bench.key(arm), rows.ids)
    out = bench.out / f"pool-scores-{path.stem}"
    if key in done and out.is_dir():
        return
    kept = bench.work / f"warmed-{key}"
    with scratch(bench.work / "arm") as work:
        if not kept.is_dir():
            warmed, _ = bench.warmed(arm, rows, work)
            warmed.rename(kept)
        router = bench.scores("router", {"tokens": arm.tokens}, kept, rows, work).score
        ifd = -bench.scores("ifd", {}, bench.base, rows, work).details["ifd"]
    out.mkdir(parents=True, exist_ok=True)
    both = blended(router, ifd)
    scores = {"contrastive": router, "ifd": ifd}
    scores |= {name: both[how] for name, how in POOL_BLENDS.items()}
    for name, score in scores.items():
        with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for row, value in zip(rows, score.tolist(), strict=True):
                file.write(json.dumps({"id": row.id, "score": value}) + "\n")
    line = {"rows": len(rows), "folder": out.name}
    bench.note("scored pool", line, time.monotonic() - start, key)


def prepare(chosen: argparse.Namespace) -> Bench:
    """Read the rows and check that nothing to be judged is in the pool.

    Raises:
        SystemExit: a planted row is in the pool.
    """
    registry = Registry(load_plugins())
    chat = ChatFormat(ChatConfig(template="tulu", max_length=chosen.max_length))
    planted = read_planted(chosen.data / "planted_dev.jsonl")
    whole = read_pool(chosen.data / "less")
    shared = overlap(whole, planted.examples)
    if shared.whole:
        raise SystemExit(f"{shared.whole} planted rows are in the pool of {chosen.data}")
    whole = [row for row in whole if row.id not in shared.touched][: chosen.rows]
    held = min(HELD, len(whole) // 4)
    if chosen.tiny:
        planted = Judged(planted.name, planted.examples[-80:], planted.kinds[-80:])
    judged = (planted, held_out(whole[:held], registry.damages, seed=7))
    rows = [row for one in judged for row in one.examples]
    work = work_folder(chosen)
    taught = apart(whole[held:], whole[:held])
    pool = Rows(taught, chat, work / "pool-tokens")
    bench = Bench(chosen, registry, chat, pool, judged, Rows(rows, chat, work / "judged-tokens"))
    bench.out.mkdir(parents=True, exist_ok=True)
    where = torch.cuda.get_device_name() if bench.device == "cuda" else platform.processor()
    described = {
        "rows_left_out_for_held_ones": len(whole) - held - len(taught),
        "device": where,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "options": {name: str(value) for name, value in vars(chosen).items()},
    }
    start = about(len(pool), judged, shared) | described
    print(json.dumps(start), flush=True)
    bench.note("start", start, 0)
    return bench


def attempt(what: Callable[[], None]) -> bool:
    """Do something; where it fails, print why and go on."""
    try:
        what()
    except Exception:
        traceback.print_exc()
        return False
    finally:
        free()
    return True


def run(chosen: argparse.Namespace, wanted: list[Arm]) -> bool:
    """Do what is missing; return whether nothing failed."""
    begin = time.monotonic()
    done = {line["key"] for line in results(chosen.out)}
    bench = prepare(chosen)
    late = f"{chosen.limit:.0f} s have passed: not begun:"
    fine = True
    if rivals_key(bench) not in done or not rivals_file(bench).is_file():
        fine = attempt(lambda: run_rivals(bench))
    for arm in wanted if rivals_file(bench).is_file() else []:
        if bench.key(arm) in done:
            print(f"{arm.label} is there", flush=True)
        elif time.monotonic() - begin > chosen.limit:
            print(late, arm.label, flush=True)
        else:
            fine = attempt(lambda arm=arm: run_arm(bench, arm)) and fine  # type: ignore[misc]
    if chosen.score_pool and time.monotonic() - begin > chosen.limit:
        print(late, f"the scores of {chosen.score_pool}", flush=True)
    elif chosen.score_pool:
        fine = attempt(lambda: score_pool(bench, done)) and fine
    print(table(results(chosen.out), bench.setting))
    return fine


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing; return 1 where an arm failed."""
    chosen = options(arguments)
    every = arms(chosen.seeds, chosen.epochs, chosen.other_seeds)
    starts = [one for one in chosen.only or [""] if one != "rivals"]
    wanted = [arm for arm in every if any(arm.label.startswith(one) for one in starts)]
    for one in starts:
        if not any(arm.label.startswith(one) for arm in every):
            raise SystemExit(f"--only {one!r}: no arm begins so, see --list")
    if chosen.list:
        for arm in wanted:
            print(f"{arm.estimate:5.0f} s  {arm.epochs:4.2f} epochs  {arm.label}")
        print(f"{sum(arm.estimate for arm in wanted):5.0f} s in all, base and rivals beside them")
        return 0
    if chosen.table:
        print(table(results(chosen.out)))
        return 0
    return 0 if run(chosen, wanted) else 1


def options(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, help="where results go")
    base_options(parser, heal=70.0)
    add("--epochs", type=float, default=1.0, help="scale of all arms' epochs")
    add("--seeds", type=int, default=3, help="of the final configuration")
    add("--other-seeds", type=int, default=1, help="of the gates alone and the kinds left out")
    add("--only", nargs="*", default=[], help="arms whose labels begin so; 'rivals' for no arm")
    add("--limit", type=float, default=1e9, help="begin no arm after these seconds")
    add("--score-pool", type=Path, help="JSON lines to warm up on and to score")
    add("--list", action="store_true", help="print the arms and their seconds on an H200")
    add("--table", action="store_true", help="print what is there")
    chosen = parser.parse_args(arguments)
    if chosen.tiny:
        shrink(chosen)
        chosen.seeds = 1
        chosen.epochs *= 0.2
    if chosen.out is None and not chosen.list:
        parser.error("--out FOLDER is missing")
    if chosen.llama is None and not (chosen.list or chosen.table):
        parser.error("--llama FOLDER is missing (or --tiny)")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
