"""The whole method at full size with random weights: convert, verify, warm up, score, LoRA.

    python benchmarks/full_size.py --data data --work /tmp/full     # one 80 GB GPU, 60 GB of disk
    python benchmarks/full_size.py --tiny --data data               # the same steps on a CPU

Random weights say nothing about quality; measured are time, memory and that every step works
on a model of OLMoE-1B-7B's and Llama-2-7B's shape. Conversion is timed beside ``cp -r`` of the same
checkpoint, both from a cold page cache where the kernel lets us drop it. Prints a table and writes
JSON.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from device import describe, device_for
from measuring import SELECTMOE, Measured, call, drop_caches
from pool_sample import RECIPE_HEAD, make_tokenizer, subset_ratio
from random_weights import make_checkpoint
from shapes import LLAMA_CHECKPOINT, OLMOE_CHECKPOINT, TINY, TINY_EXPERTS

RECIPE = (
    RECIPE_HEAD
    + """
[warmup]
use = "select-moe-constraint"
model = "{converted}"
max_steps = {warmup_steps}
batch_size = 4
activation_checkpointing = true
[score]
use = "router"
[select]
use = "top-fraction"
fraction = 0.6
[train]
use = "llama-lora"
model = "{llama}"
max_steps = {lora_steps}
activation_checkpointing = true
"""
)
FACTS = ("examples", "scored", "steps", "tokens", "tokens_per_second", "final_loss")


def main() -> None:
    """Run every step and print the table."""
    arguments = parse()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    device = device_for(tiny=arguments.tiny)
    rows: dict[str, object] = {"machine": describe(device), "tiny": arguments.tiny}
    print(rows["machine"], flush=True)
    olmoe, llama = work / "olmoe", work / "llama"
    shape = TINY if arguments.tiny else {}
    experts = TINY_EXPERTS if arguments.tiny else {}
    made = OLMOE_CHECKPOINT | shape | experts, LLAMA_CHECKPOINT | shape
    make_tokenizer(arguments.data, work / "tokenizer", 2048 if arguments.tiny else 32000)
    rows |= timed("make OLMoE", lambda: make_checkpoint(made[0], olmoe, device))
    shutil.copytree(work / "tokenizer", olmoe, dirs_exist_ok=True)
    rows["checkpoint_bytes"] = sum(file.stat().st_size for file in olmoe.iterdir())
    rows |= conversion(olmoe, work)
    shutil.rmtree(work / "copy", ignore_errors=True)
    rows |= verification(olmoe, work, device)
    rows |= timed("make Llama", lambda: make_checkpoint(made[1], llama, device))
    shutil.copytree(work / "tokenizer", llama, dirs_exist_ok=True)
    rows |= chain(arguments, work, device)
    report(rows, arguments.json)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))
    )
    parser.add_argument("--work", type=Path, default=Path("outputs/full-size"))
    parser.add_argument("--json", type=Path, default=Path("full_size.json"))
    parser.add_argument(
        "--tiny", action="store_true", help="a model of a few thousand weights, on the CPU"
    )
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--warmup-steps", type=int, default=20)
    parser.add_argument("--lora-steps", type=int, default=10)
    arguments = parser.parse_args()
    arguments.data = arguments.data.resolve()
    return arguments


def conversion(olmoe: Path, work: Path) -> dict[str, object]:
    """Time ``cp -r`` and the conversion of the same checkpoint, both from a cold cache."""
    shutil.rmtree(work / "copy", ignore_errors=True)
    shutil.rmtree(work / "converted", ignore_errors=True)
    cold = drop_caches()
    copy = call(["cp", "-r", str(olmoe), str(work / "copy")])
    drop_caches()
    convert = told("convert", str(olmoe), str(work / "converted"))
    return {
        "cold_cache": cold,
        "cp_seconds": round(copy.seconds, 2),
        "convert_seconds": round(convert.seconds, 2),
        "convert_over_cp": convert.seconds / copy.seconds,
        "convert_anonymous_bytes": convert.anonymous,
        "interpreter_anonymous_bytes": call([sys.executable, "-c", "import torch"]).anonymous,
    }


def verification(olmoe: Path, work: Path, device: str) -> dict[str, object]:
    """Verify tensors and logits."""
    command = ("verify", str(work / "converted"), str(olmoe))
    tensors = told(*command, "--no-logits")
    found: dict[str, object] = {
        "verify_tensors_seconds": round(tensors.seconds, 2),
        "verify_tensors_anonymous_bytes": tensors.anonymous,
    }
    for dtype in ("bfloat16", "float16", "float32"):
        result = told(*command, "--device", device, "--dtype", dtype)
        found[f"verify_{dtype}_seconds"] = round(result.seconds, 2)
    return found


def told(*arguments: str) -> Measured:
    """Run a command of selectmoe and print the end of what it says."""
    found = call([*SELECTMOE, *arguments])
    print(found.output[-1500:], flush=True)
    return found


def chain(arguments: argparse.Namespace, work: Path, device: str) -> dict[str, object]:
    """Warm up, score, select and train through ``selectmoe run``; read what the artifacts say."""
    text = RECIPE.format(
        name="full-size",
        data=arguments.data,
        ratio=subset_ratio(arguments.data, arguments.examples),
        converted=work / "converted",
        llama=work / "llama",
        warmup_steps=arguments.warmup_steps,
        lora_steps=arguments.lora_steps,
    )
    recipe = work / "recipe.toml"
    recipe.write_text(text, encoding="utf-8")
    outputs = work / "outputs"
    command = [*SELECTMOE, "run", str(recipe), "--outputs", str(outputs), "--device", device]
    call(command, show=True)
    found: dict[str, object] = {}
    for manifest in sorted((outputs / "store").glob("*/artifact.json")):
        value = json.loads(manifest.read_text(encoding="utf-8"))
        stage = value["stage"]
        if stage in ("pool", "warmup", "score", "train"):
            found[f"{stage}_seconds"] = value["seconds"]
            found[f"{stage}_peak_gpu_bytes"] = value["details"].get("peak_gpu_bytes")
            for fact in FACTS:
                if fact in value["facts"] and not isinstance(value["facts"][fact], dict):
                    found[f"{stage}_{fact}"] = value["facts"][fact]
    return found


def timed(name: str, work: Callable[[], object]) -> dict[str, object]:
    """Call ``work`` and say how long it took."""
    start = time.monotonic()
    work()
    seconds = round(time.monotonic() - start, 2)
    print(f"{name}: {seconds} s", flush=True)
    return {f"{name.lower().replace(' ', '_')}_seconds": seconds}


def report(rows: dict[str, object], path: Path) -> None:
    """Print the table and write it as JSON."""
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    for name, value in rows.items():
        if name.endswith("_bytes") and isinstance(value, (int, float)):
            print(f"{name:<36} {value / 2**30:10.3f} GiB")
        else:
            print(f"{name:<36} {value}")


if __name__ == "__main__":
    main()
