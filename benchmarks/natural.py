r"""What do scores see of quality that nobody planted? Sets of rows that people judged.

    python benchmarks/natural.py --llama work/smollm2 --data data --out work/natural   # all GPUs
    python benchmarks/natural.py --base work/base --data data --out work/natural --minutes 9
    python benchmarks/natural.py --tiny --data data --out work/tiny                    # a CPU
    python benchmarks/natural.py ... --list                            # the parts and their seconds

Scores the sets of ``natural_sets`` by selectmoe's own components: length, answer loss, IFD by both
ratios, the router before and after a contrastive warm-up, and blends. Then, by cross-validation
over prompts, warm-ups on preference pairs of these sets (``[warmup.pairs]``, all weights and gates,
with all pairs and with fewer) beside a plain reward head: a regression on the last hidden states of
the same base, on exactly the pairs that the warm-up learned from. Then both without one set, which
is judged. Rows of the pool with planted damage are scored as well, to show which kinds each warm-up
finds, and answers of models of known strength, if they are there (``natural_models``).

What learns from a fold is thrown away with it: nothing that is fitted on judged rows is kept, and
no option was chosen by these figures.

What each part costs on one H100, about (``--list``): the base 40 s of training; scores without a
router 81 s; a warm-up on the pool and its scores 88 s, seven of them; the router without a warm-up
47 s; states 27 s; a fold 124 s (all weights 35, gates 46, 500 pairs 33, two heads 10); a set left
out 85 s. In all 29 min, on four GPUs 9, on eight 6. These are the rates of the last run, 3.8 ms a
pair in training and 25 s beside it. The arithmetic alone would be far less: this base takes .43
GFLOP a token forward, a fifth of OLMoE-1B-7B, which an H100 scores at 231,000 tokens a second and
whose gates it trains at 41,758; loading and small kernels take the time.

Each part leaves its scores and a JSON line with its figures; a second run does what is missing. One
process on each visible GPU does the parts (``--gpus``), and with ``--minutes`` none begins that
would not end in time. ``--table`` prints what is there. The base is made as in ``evidence.py``, or
given: ``evidence_base_run.py`` makes a better one and carries it between machines.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from evidence_bench import base_options, free, shrink, work_folder
from evidence_data import Judged, apart, held_out, overlap, read_planted, read_pool
from natural_heads import converted
from natural_models import read_models
from natural_parts import FOREVER, Clock, alone, devices, spread
from natural_run import NaturalBench, Run
from natural_sets import Together, absent, read_sets
from rows import Rows

from selectmoe_core import ModelRef
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat


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


def prepare(chosen: argparse.Namespace, clock: Clock) -> Run:
    """Read the rows; what is judged is not in the pool."""
    registry = Registry(load_plugins())
    if chosen.llama:
        chosen.llama = unpacked(chosen.llama, work_folder(chosen), registry)
    chat = ChatFormat(ChatConfig(template="tulu", max_length=chosen.max_length))
    together = Together.join(read_sets(chosen.data, 40 if chosen.tiny else None))
    planted = read_planted(chosen.data / "planted_dev.jsonl")
    if chosen.tiny:
        planted = Judged(planted.name, planted.examples[-80:], planted.kinds[-80:])
    models = read_models(chosen.data)
    for file in absent(chosen.data):
        print(f"not there: {file}", flush=True)
    judged = [*(one.judged for one in together.sets), planted]
    judged += [] if models is None else [models.judged]
    whole = read_pool(chosen.data / "less")
    touched = overlap(whole, [row for one in judged for row in one.examples]).touched
    whole = [row for row in whole if row.id not in touched][: chosen.rows]
    held = min(1500, len(whole) // 4)
    judged.append(held_out(whole[:held], registry.damages, seed=7))
    work = work_folder(chosen)
    pool = Rows(apart(whole[held:], whole[:held]), chat, work / "pool-tokens")
    rows = Rows([row for one in judged for row in one.examples], chat, work / "judged-tokens")
    bench = NaturalBench(chosen, registry, chat, pool, tuple(judged), rows)
    bench.out.mkdir(parents=True, exist_ok=True)
    start = {one.about.name: [len(one.examples), len(one.pairs)] for one in together.sets}
    print(json.dumps({"pool": len(pool), "rows, pairs": start}), flush=True)
    return Run(bench, together, models, clock)


def main(arguments: list[str] | None = None) -> int:
    """Do what is missing and print the tables; return 1 where a part failed."""
    chosen = options(arguments)
    clock = Clock(chosen.minutes)
    if chosen.child is not None:
        run = prepare(chosen, clock)
        run.all()
        return 0 if run.fine else 1
    with alone(chosen.out):
        run = prepare(chosen, clock)
        if chosen.list or chosen.table:
            clock.minutes = 0.0
        if chosen.list:
            return listed(run)
        if not chosen.table:
            whole(run, sys.argv[1:] if arguments is None else arguments)
        run.all()
        print(f"{(time.monotonic() - run.clock.begun) / 60:.1f} min before the tables", flush=True)
        print(run.report())
    return 0 if run.fine else 1


def whole(run: Run, arguments: list[str]) -> None:
    """Make what all processes share, and let one process on each device do the parts."""
    _ = converted(run.bench)
    names = devices(run.bench.chosen.gpus)
    if len(names) > 1 and run.clock.left > 0:
        free()
        shared = ["--bases", str(run.bench.chosen.bases or run.bench.work)]
        run.fine = spread(__file__, [*arguments, *shared], run.clock, names)


def listed(run: Run) -> int:
    """Print the parts and how long each takes."""
    parts = run.parts()
    for line in run.short:
        print(f"not there: {line}")
    for part in parts:
        print(f"{part.seconds:6.0f} s  {part.name}")
    print(f"{sum(part.seconds for part in parts) / 60:6.1f} min in all on one H100, and the base")
    return 0


def options(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="where results go")
    base_options(parser, heal=40.0)
    add("--base", type=Path, help="folder of an OLMoE checkpoint, in place of --llama")
    add("--epochs", type=float, default=0.5, help="of a contrastive warm-up on the pool")
    add("--folds", type=int, default=5)
    add("--sizes", type=int, nargs="*", default=[500, 1000, 2000], help="of the learning curve")
    add("--only", nargs="*", default=[], help="parts whose names begin so")
    add("--minutes", type=float, default=FOREVER, help="begin no part that would take longer")
    add("--gpus", type=int, help="processes, each with a GPU; by default one on each visible GPU")
    add("--child", type=int, help=argparse.SUPPRESS)
    add("--list", action="store_true", help="print the parts and their seconds on an H100")
    add("--table", action="store_true", help="print what is there")
    chosen = parser.parse_args(arguments)
    if chosen.tiny:
        shrink(chosen)
        chosen.folds, chosen.sizes, chosen.epochs = 2, [8, 5000], 0.5
    if chosen.child is not None:
        # Models are shared, but each process needs a folder of its own for what it is doing.
        chosen.work = work_folder(chosen) / f"process-{chosen.child}"
    if chosen.llama is None and chosen.base is None:
        parser.error("--llama FOLDER or --base FOLDER is missing (or --tiny)")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
