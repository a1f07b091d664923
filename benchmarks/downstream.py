r"""Does training on what a score selects help? LoRA on the best part of a half-damaged pool.

    python benchmarks/downstream.py pool --out work/pool --seed 1
    python benchmarks/downstream.py target --gguf SmolLM2-135M-Instruct.Q4_1.gguf --out work/smollm2
    # any program scores work/pool/pool.jsonl: id and score, as parquet or JSON lines
    python benchmarks/downstream.py run --pool work/pool --target work/smollm2 \
        --scores contrastive=work/contrastive.parquet --out work/downstream.jsonl
    python benchmarks/downstream.py table --out work/downstream.jsonl
    python benchmarks/downstream.py run --tiny --out work/tiny.jsonl     # generated data, on a CPU

Each arm is a strategy (base, random, oracle, length, or a score that was given), with or without a
quota per source, at a fraction, with a seed. It leaves one JSON line, keyed by a digest of all that
decides it: a second run does what is missing. Several runs may share one device and one file:
``--shard 0/3``, ``1/3``, ``2/3``. The oracle draws at random among the clean rows.
"""

import argparse
import fnmatch
import gc
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from downstream_arm import BASE, MADE_HERE, ORACLE, RANDOM, Arm, Setting, run_arm
from downstream_pool import HalfPool, make_pool
from downstream_table import tables
from filelock import FileLock

from selectmoe_core import Job, ModelRef
from selectmoe_core.config import parse
from selectmoe_core.errors import RecipeError, SelectMoEError
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.overrides import parse_value
from selectmoe_core.tokens.chat import ChatConfig

TASKS = Path(__file__).resolve().parents[1] / "recipes/tasks/local_eval"
TRAIN = {
    "learning_rate": 2e-4,
    "epochs": 2,
    "lora_rank": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "batch_size": 32,
    "pass_tokens": 8192,
}
EVALUATE = {
    "tasks": ("arc_easy_local", "sciq_local", "hellaswag_local"),
    "include_path": (TASKS,),
    "allow_task_code": True,
    "limit": 500,
    "batch_size": 32,  # logits in float32 over 49,152 tokens: 128 took 15 GB at once
}
TINY_TRAIN = TRAIN | {
    "learning_rate": 5e-3,
    "epochs": 1,
    "lora_rank": 4,
    "lora_alpha": 8,
    "batch_size": 16,
}
TINY_EVALUATE = {"tasks": ("bundled:nano",), "limit": 20}


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return 1 where an arm failed."""
    chosen = _parser().parse_args(arguments)
    try:
        return int(chosen.work(chosen))
    except SelectMoEError as error:
        print(f"{error}\nHint: {error.hint}", file=sys.stderr)
        return error.exit_code


def write_pool(chosen: argparse.Namespace) -> int:
    """Make a half-damaged pool and what is held out from it."""
    registry = Registry(load_plugins())
    damages = registry.damages
    wanted = chosen.kinds or sorted(damages)
    if unknown := [kind for kind in wanted if kind not in damages]:
        raise RecipeError(
            f"there is no kind of damage '{unknown[0]}'", hint=f"there are {', '.join(damages)}"
        )
    use, table = "less", {"path": chosen.data / "less"}
    if chosen.tiny:
        use, table = "nano", {"examples": 400, "damaged": 0.0}
    component = registry.get(Kind.READER, use, where="downstream").component
    reader = component.build(parse(component.config, table, where=use))
    about = make_pool(
        reader.read(Job(seed=chosen.seed)),
        {kind: damages[kind] for kind in wanted},
        chosen.out,
        heldout=40 if chosen.tiny else chosen.heldout,
        seed=chosen.seed,
    )
    print(json.dumps(about, indent=2), flush=True)
    return 0


def write_target(chosen: argparse.Namespace) -> int:
    """Write a GGUF model out once as bf16 safetensors, which load in no time."""
    models, ref = Registry(load_plugins()).models, ModelRef(str(chosen.gguf))
    models.load(ref, dtype="bfloat16", device="cpu").save_pretrained(chosen.out)
    models.tokenizer(ref).save_pretrained(chosen.out)
    print(f"wrote {chosen.out}", flush=True)
    return 0


def run(chosen: argparse.Namespace) -> int:
    """Run the arms that are wanted, of this shard, and not done; then print the tables."""
    setting = _setting(chosen)
    arms = [(setting.key(arm), arm) for arm in _arms(chosen)]
    done = {line["key"] for line in results(chosen.out)}
    number, of = (int(part) for part in chosen.shard.split("/"))
    mine = [(key, arm) for key, arm in arms[number::of] if key not in done]
    finished = sum(key in done for key, _ in arms)
    print(f"{len(arms)} arms, {finished} done, {len(mine)} to do here", flush=True)
    failed = 0
    for place, (key, arm) in enumerate(mine, start=1):
        if chosen.list:
            print(f"  {arm}", flush=True)
            continue
        start = time.monotonic()
        try:
            line = _one(setting, arm, chosen.out.parent)
        except Exception:
            failed += 1
            print(f"[{place}/{len(mine)}] {arm} FAILED\n{traceback.format_exc()}", flush=True)
            continue
        line |= {"key": key, "common": setting.common, "machine": _machine(setting.device)}
        line["seconds"]["all"] = round(time.monotonic() - start, 2)
        append(chosen.out, line)
        print(f"[{place}/{len(mine)}] {arm}: {_shown(line)}", flush=True)
    if not chosen.list:
        show(chosen)
    return int(failed > 0)


def show(chosen: argparse.Namespace) -> int:
    """Print the tables of what is done so far."""
    print(tables(list(results(chosen.out))), flush=True)
    return 0


def results(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the finished arms; a line that a killed run cut short is named and passed over."""
    if not path.is_file():
        return
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            yield json.loads(text)
        except ValueError:
            if text:
                print(f"{path}:{number} is cut short: its arm counts as not done", flush=True)


def append(path: Path, line: dict[str, Any]) -> None:
    """Add a line, safe beside other processes that do so too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        cut_short = path.is_file() and not path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" * cut_short + json.dumps(line) + "\n")


def _one(setting: Setting, arm: Arm, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".arm-") as work:
        try:
            return run_arm(setting, arm, Path(work))
        finally:
            gc.collect()
            if setting.device == "cuda":
                import torch

                torch.cuda.empty_cache()


def _arms(chosen: argparse.Namespace) -> list[Arm]:
    """Return the wanted arms, those that all others are compared with first."""
    given = [name for name in chosen.given if name not in (RANDOM, ORACLE)]
    strategies = [RANDOM, ORACLE, *given]
    arms = [Arm(BASE)]
    for fraction, seed, quota in product(chosen.fractions, chosen.seeds, (False, True)):
        arms += [Arm(name, quota, fraction, seed) for name in strategies]
    only = chosen.only or ["*"]
    return [arm for arm in arms if any(fnmatch.fnmatchcase(str(arm), one) for one in only)]


def _setting(chosen: argparse.Namespace) -> Setting:
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    torch.set_float32_matmul_precision("high")  # TF32: what is measured is measured in float32
    registry = Registry(load_plugins())
    if chosen.tiny and chosen.pool is None:
        chosen.pool = chosen.out.parent / "tiny-pool"
        if not chosen.pool.exists():
            write_pool(_parser().parse_args(["pool", "--tiny", "--out", str(chosen.pool)]))
    if not chosen.tiny and (chosen.pool is None or chosen.target is None):
        raise RecipeError("run needs --pool and --target", hint="or --tiny, which brings its own")
    scores = dict(map(_named, chosen.scores))
    if taken := sorted(scores.keys() & set(MADE_HERE)):
        raise RecipeError(f"--scores {taken[0]}=...: this name is taken", hint="choose another")
    chosen.given = ["length", *scores] if chosen.length else [*scores]
    device = "cuda" if torch.cuda.is_available() and not chosen.tiny else "cpu"
    kind = chosen.target_kind
    template = chosen.template or ("tulu" if kind == "base" or chosen.tiny else "model")
    train = (TINY_TRAIN if chosen.tiny else TRAIN) | dict(map(_pair, chosen.train))
    evaluate = dict(TINY_EVALUATE if chosen.tiny else EVALUATE)
    if chosen.tasks is not None:
        evaluate["tasks"] = tuple(chosen.tasks)
    if chosen.limit is not None:
        evaluate["limit"] = chosen.limit
    chosen.fractions = chosen.fractions or ([0.25] if chosen.tiny else [0.1, 0.05, 0.3])
    chosen.seeds = chosen.seeds or ([0, 1] if chosen.tiny else [0, 1, 2])
    return Setting(
        registry=registry,
        pool=HalfPool.open(chosen.pool),
        scores={
            name: lambda seed, text=text: Path(text.replace("{seed}", str(seed)))
            for name, text in scores.items()
        },
        target=ModelRef("bundled:nano-llama" if chosen.tiny else str(chosen.target.resolve())),
        target_kind=kind,
        device=device,
        chat=ChatConfig(template=template, max_length=chosen.max_length),
        train=train,
        evaluate=evaluate,
    )


def _named(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise RecipeError(f"--scores {text}: not NAME=FILE", hint="--scores ifd=work/ifd.parquet")
    return name, file


def _pair(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, parse_value(value)


def _shown(line: dict[str, Any]) -> str:
    loss = line["heldout"]["loss"]
    parts = [f"held-out loss {sum(loss) / len(loss):.4f}"]
    if "clean" in line:
        parts.append(f"{line['selected']} rows, {line['clean']:.1%} clean")
    for task, of in line["tasks"].items():
        parts.append(f"{task} {of['right'].count('1') / len(of['right']):.3f}")
    parts.append(", ".join(f"{name} {value} s" for name, value in line["seconds"].items()))
    return "; ".join(parts)


def _machine(device: str) -> str:
    import torch
    import transformers

    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    return f"{name}, torch {torch.__version__}, transformers {transformers.__version__}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    pool = commands.add_parser("pool", help="make a half-damaged pool")
    pool.set_defaults(work=write_pool)
    pool.add_argument("--out", type=Path, required=True, help="a folder")
    pool.add_argument("--seed", type=int, default=1)
    pool.add_argument("--data", type=Path, default=_data(), help="the folder that holds less/")
    pool.add_argument("--kinds", nargs="*", help="kinds of damage; by default all")
    pool.add_argument("--heldout", type=int, default=1000)
    pool.add_argument("--tiny", action="store_true", help="from generated questions")
    target = commands.add_parser("target", help="write a GGUF model as safetensors")
    target.set_defaults(work=write_target)
    target.add_argument("--gguf", type=Path, required=True)
    target.add_argument("--out", type=Path, required=True)
    _add_run(commands.add_parser("run", help="train and measure the arms"))
    table = commands.add_parser("table", help="print the tables")
    table.set_defaults(work=show)
    table.add_argument("--out", type=Path, required=True)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(work=run)
    parser.add_argument("--pool", type=Path, help="a folder that 'pool' wrote")
    parser.add_argument("--target", type=Path, help="the folder of a Llama-like model")
    parser.add_argument("--target-kind", choices=("instruct", "base"), default="instruct")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, an arm each")
    parser.add_argument("--scores", nargs="*", default=[], help="NAME=FILE; {seed} in FILE is ok")
    parser.add_argument("--length", action="store_true", help="answer length as a strategy too")
    parser.add_argument("--fractions", type=float, nargs="+", help="in this order: 0.1 0.05 0.3")
    parser.add_argument("--seeds", type=int, nargs="+", help="by default 0 1 2")
    parser.add_argument("--only", nargs="*", help="arms, as 'random/0.1/*' 'oracle+quota/*'")
    parser.add_argument("--list", action="store_true", help="print what is to do, do nothing")
    parser.add_argument("--shard", default="0/1", help="this process's share of the arms: i/n")
    parser.add_argument("--tasks", nargs="*", help="of lm-eval; without any, the loss alone")
    parser.add_argument("--limit", type=int, help="questions of a task, 500 by default")
    parser.add_argument("--train", nargs="*", default=[], help="options of llama-lora: KEY=VALUE")
    parser.add_argument("--template", help="chat template; by default the instruct model's own")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--tiny", action="store_true", help="the nano Llama, on the CPU")


def _data() -> Path:
    return Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))


if __name__ == "__main__":
    sys.exit(main())
