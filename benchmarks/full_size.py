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
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

OLMOE = {
    "architectures": ["OlmoeForCausalLM"],
    "model_type": "olmoe",
    "hidden_size": 2048,
    "intermediate_size": 1024,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "norm_topk_prob": False,
    "vocab_size": 50304,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.01,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
TINY = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 2048}
TINY_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4}
VOCABULARY = 32000
RECIPE = """
format = 1
name = "full-size"
[chat]
max_length = 2048
[pool]
use = "less"
path = "{data}/less/train/processed"
sources = ["cot", "dolly", "flan_v2", "oasst1"]
subset_ratio = {ratio}
[warmup]
use = "select-moe-warmup"
model = "{converted}"
max_steps = {warmup_steps}
batch_size = 4
{warmup_extra}
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


def main() -> None:
    """Run every step and print the table."""
    arguments = parse()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() and not arguments.tiny else "cpu"
    print(describe(device), flush=True)
    rows: dict[str, object] = {"machine": describe(device), "tiny": arguments.tiny}
    olmoe, llama = work / "olmoe", work / "llama"
    shape = TINY if arguments.tiny else {}
    heads = TINY_HEADS if arguments.tiny else {}
    vocabulary = 2048 if arguments.tiny else VOCABULARY
    tokenizer(arguments.data, work / "tokenizer", vocabulary)
    experts = {"num_experts": 16, "num_experts_per_tok": 4} if arguments.tiny else {}
    rows |= timed("make OLMoE", lambda: make(OLMOE | shape | heads | experts, olmoe, device))
    shutil.copytree(work / "tokenizer", olmoe, dirs_exist_ok=True)
    rows["checkpoint_bytes"] = sum(file.stat().st_size for file in olmoe.iterdir())
    rows |= conversion(olmoe, work)
    shutil.rmtree(work / "copy", ignore_errors=True)
    rows |= verification(olmoe, work, device)
    rows |= timed("make Llama", lambda: make(LLAMA | shape | heads, llama, device))
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


def describe(device: str) -> str:
    """Name the machine and the versions."""
    import transformers

    gpu = torch.cuda.get_device_name(0) if device == "cuda" else "no GPU"
    return (
        f"{gpu}, {os.cpu_count()} cores, python {platform.python_version()}, torch "
        f"{torch.__version__}, transformers {transformers.__version__}"
    )


def tokenizer(data: Path, out: Path, size: int) -> None:
    """Train a byte-level BPE on the pool: a vocabulary of realistic size without any hub."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if (out / "tokenizer.json").is_file():
        return
    files = sorted((data / "less/train/processed").glob("*/*.jsonl"))

    def texts() -> Iterator[str]:
        for file in files:
            with file.open(encoding="utf-8") as lines:
                for line in lines:
                    yield from (m["content"] for m in json.loads(line)["messages"])

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.save_pretrained(out)


def make(config: dict[str, object], folder: Path, device: str) -> None:
    """Write a checkpoint of random bf16 weights in the layout the hub has, a shard a few layers."""
    if (folder / "model.safetensors.index.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(device).manual_seed(0)
    layers = int(str(config["num_hidden_layers"]))
    shards = list(shard_names(config, layers))
    weight_map: dict[str, str] = {}
    total = 0
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for name, shape in names:
            tensor = (
                torch.ones(shape) if "norm" in name else random_weight(shape, generator, device)
            )
            tensors[name] = tensor.to(torch.bfloat16).cpu()
            weight_map[name] = file
            total += tensors[name].numel() * 2
        save_file(tensors, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def random_weight(shape: tuple[int, ...], generator: torch.Generator, device: str) -> torch.Tensor:
    """Return a normal matrix of standard deviation 0.02."""
    return torch.randn(shape, generator=generator, device=device) * 0.02


def shard_names(
    config: dict[str, object], layers: int
) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    """Yield names and shapes of each shard: embeddings, groups of layers, the head."""
    hidden, wide = int(str(config["hidden_size"])), int(str(config["intermediate_size"]))
    vocabulary = int(str(config["vocab_size"]))
    experts = int(str(config.get("num_experts", 0)))
    group = max(1, -(-layers // 3))
    for first in range(0, layers, group):
        names: list[tuple[str, tuple[int, ...]]] = []
        if first == 0:
            names.append(("model.embed_tokens.weight", (vocabulary, hidden)))
        for layer in range(first, min(first + group, layers)):
            at = f"model.layers.{layer}"
            names += [(f"{at}.self_attn.{x}_proj.weight", (hidden, hidden)) for x in "qkvo"]
            names += [
                (f"{at}.{x}_layernorm.weight", (hidden,)) for x in ("input", "post_attention")
            ]
            blocks = [f"{at}.mlp"]
            if experts:
                names += [(f"{at}.self_attn.{x}_norm.weight", (hidden,)) for x in "qk"]
                names.append((f"{at}.mlp.gate.weight", (experts, hidden)))
                blocks = [f"{at}.mlp.experts.{expert}" for expert in range(experts)]
            for block in blocks:
                names += [(f"{block}.{x}_proj.weight", (wide, hidden)) for x in ("gate", "up")]
                names.append((f"{block}.down_proj.weight", (hidden, wide)))
        if first + group >= layers:
            names += [("model.norm.weight", (hidden,)), ("lm_head.weight", (vocabulary, hidden))]
        yield names


def conversion(olmoe: Path, work: Path) -> dict[str, object]:
    """Time ``cp -r`` and the conversion of the same checkpoint, both from a cold cache."""
    shutil.rmtree(work / "copy", ignore_errors=True)
    shutil.rmtree(work / "converted", ignore_errors=True)
    cold = drop_caches()
    copy = call(["cp", "-r", str(olmoe), str(work / "copy")])
    drop_caches()
    convert = call([*selectmoe(), "convert", str(olmoe), str(work / "converted")])
    ratio = float(convert["seconds"]) / max(float(copy["seconds"]), 1e-9)
    return {
        "cold_cache": cold,
        "cp_seconds": copy["seconds"],
        "convert_seconds": convert["seconds"],
        "convert_over_cp": ratio,
        "convert_anonymous_bytes": convert["anonymous"],
        "interpreter_anonymous_bytes": call([sys.executable, "-c", "import torch"])["anonymous"],
    }


def verification(olmoe: Path, work: Path, device: str) -> dict[str, object]:
    """Verify tensors and logits."""
    command = [*selectmoe(), "verify", str(work / "converted"), str(olmoe)]
    tensors = call([*command, "--no-logits"])
    found: dict[str, object] = {
        "verify_tensors_seconds": tensors["seconds"],
        "verify_tensors_anonymous_bytes": tensors["anonymous"],
    }
    for dtype in ("bfloat16", "float16", "float32"):
        result = call([*command, "--device", device, "--dtype", dtype])
        found[f"verify_{dtype}_seconds"] = result["seconds"]
    return found


def chain(arguments: argparse.Namespace, work: Path, device: str) -> dict[str, object]:
    """Warm up, score, select and train through ``selectmoe run``; read what the artifacts say."""
    lines = 0
    for name in ("cot", "dolly", "flan_v2", "oasst1"):
        path = arguments.data / f"less/train/processed/{name}/{name}_data.jsonl"
        with path.open("rb") as file:
            lines += sum(1 for _ in file)
    text = RECIPE.format(
        data=arguments.data,
        ratio=min(1.0, arguments.examples / lines),
        converted=work / "converted",
        llama=work / "llama",
        warmup_steps=arguments.warmup_steps,
        lora_steps=arguments.lora_steps,
        warmup_extra="activation_checkpointing = true",
    )
    recipe = work / "recipe.toml"
    recipe.write_text(text, encoding="utf-8")
    outputs = work / "outputs"
    call(
        [*selectmoe(), "run", str(recipe), "--outputs", str(outputs), "--device", device], show=True
    )
    found: dict[str, object] = {}
    for manifest in sorted((outputs / "store").glob("*/artifact.json")):
        value = json.loads(manifest.read_text(encoding="utf-8"))
        if value["stage"] in ("pool", "warmup", "score", "train"):
            stage = value["stage"]
            found[f"{stage}_seconds"] = value["seconds"]
            details = value["details"]
            found[f"{stage}_peak_gpu_bytes"] = details.get("peak_gpu_bytes")
            for fact in (
                "examples",
                "scored",
                "steps",
                "tokens",
                "tokens_per_second",
                "final_loss",
            ):
                if fact in value["facts"] and not isinstance(value["facts"][fact], dict):
                    found[f"{stage}_{fact}"] = value["facts"][fact]
    return found


def selectmoe() -> list[str]:
    """Return the command."""
    return [sys.executable, "-m", "selectmoe_core"]


def call(command: list[str], *, show: bool = False) -> dict[str, float]:
    """Run a command and return its wall seconds and the peak of its anonymous memory in bytes."""
    start = time.monotonic()
    output = None if show else subprocess.PIPE
    process = subprocess.Popen(command, stdout=output, stderr=output)
    peak = [0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], anonymous(process.pid))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    out, err = process.communicate()
    if process.returncode:
        print((out or b"").decode(), (err or b"").decode(), file=sys.stderr)
        raise SystemExit(f"{command} ended with {process.returncode}")
    if out and not show:
        print((out or b"").decode()[-1500:], flush=True)
    return {"seconds": round(time.monotonic() - start, 2), "anonymous": peak[0]}


def anonymous(process: int) -> int:
    """Return a process's anonymous resident memory."""
    try:
        with Path(f"/proc/{process}/status").open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def drop_caches() -> bool:
    """Write everything back and empty the page cache, where we may."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def timed(name: str, work: object) -> dict[str, object]:
    """Call ``work`` and say how long it took."""
    start = time.monotonic()
    work()  # type: ignore[operator]
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
