"""Checkpoints with mistakes of every kind: checked, converted, some of them loaded.

Only our errors may come of it, soon, and nothing may change outside the folder of the result.
"""

import functools
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzing.cases import Area, Report
from fuzzing.place import ROOT, call, changes, faults_of, fingerprint, working_in
from fuzzing.values import TEXTS, mutate, mutate_bytes, nested, odd

NANO = ROOT / "plugins" / "selectmoe_nano" / "models"
FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
INDEX = "model.safetensors.index.json"
TEMPLATES = ("single", "sharded", "sharded", "converted", "llama", "adapter", "partial")
CONVERTED = ("single", "sharded")
"""What ``convert`` is called with."""
DTYPES = ("F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "", "X", 1, None)
ODD_TEMPLATES = (
    "{% for x in range(10**9) %}x{% endfor %}", "{{ '' .__class__.__mro__ }}", "{% if %}", "{{ x",
    "",
    "{% set n = namespace(a='x') %}{% for i in range(60) %}{% set n.a = n.a + n.a %}{% endfor %}"
    "{{ n.a }}",
    "{{ raise_exception('no') }}", "{{ messages[99].content }}", "{% include '/etc/hostname' %}",
)  # fmt: skip
CONFIG_KEYS = [
    "num_hidden_layers", "num_experts", "num_experts_per_tok", "hidden_size", "intermediate_size",
    "vocab_size",
    "model_type", "architectures", "quantization_config", "auto_map", "torch_dtype", "dtype",
    "rope_parameters",
    "tie_word_embeddings", "num_trash_experts", "chat_template", "tokenizer_class",
    "added_tokens_decoder",
    "eos_token", "base_model_name_or_path", "peft_type", "target_modules", "r", "lora_alpha",
    "weight_map",
    "metadata", "total_size", "base", "location", "revision", "trash_cans", "top_k", "experts",
]  # fmt: skip


def run(generator: random.Random, folder: Path) -> Report:
    """Change a checkpoint, and let everything look at it that reads checkpoints."""
    report = Report()
    kind = generator.choice(TEMPLATES)
    report.did.append(f"model: {kind}")
    project, out = folder / "project", folder / "project" / "out"
    (folder / "victim").mkdir(parents=True)
    shutil.copyfile(
        NANO / "nano-olmoe" / "model.safetensors", folder / "victim" / "model.safetensors"
    )
    (folder / "victim" / "kept.txt").write_text("kept")
    model = shutil.copytree(_templates() / kind, project / "model")
    for _ in range(generator.choice((1, 1, 1, 2))):
        report.did.append(_damage(generator, model))
    before = fingerprint(folder, out, project / "outputs")
    with working_in(project):
        if kind in CONVERTED:
            _convert(report, model, out)
        _look(report, model, load=generator.random() < 0.2)
        if generator.random() < 0.1:
            _plan(report, kind, model)
    for change in changes(before, fingerprint(folder, out, project / "outputs")):
        report.fault("changed outside its folder", change)
    return report


def _convert(report: Report, model: Path, out: Path) -> None:
    said = call("convert", str(model), str(out))
    report.came = {0: "converted", 1: "refused", 2: "refused"}.get(said.code, f"exit {said.code}")
    for kind, what in faults_of(said, (0, 1, 2)):
        report.fault(f"convert: {kind}", what)
    if said.code:
        if (out / "config.json").exists() or list(out.glob("*.safetensors")):
            report.fault("half of a checkpoint is left", f"{list(out.iterdir())}\n{said.err}")
        return
    said = call("verify", str(out), str(model), "--no-logits")
    for kind, what in faults_of(said, (0,)):
        report.fault(f"what was converted does not verify: {kind}", what)


def _look(report: Report, model: Path, *, load: bool) -> None:
    """Ask everything that says something of a model without and with its weights."""
    from selectmoe_core import ModelRef, SelectMoEError
    from selectmoe_core.plugin.manager import load_plugins
    from selectmoe_core.plugin.registry import Registry

    models = Registry(load_plugins()).models
    ref = ModelRef(str(model))
    looks: list[Callable[[], Any]] = [
        lambda: models.config(ref),
        lambda: models.selector(ref),
        lambda: models.check(ref),
        lambda: models.tokenizer(ref),
    ]
    if load:
        looks.append(lambda: models.load(ref, dtype="float32", device="cpu"))
    answers = []
    for look in looks:
        try:
            look()
            answers.append("fine")
        except SelectMoEError as error:
            answers.append("refused")
            if not str(error).strip() or not error.hint:
                report.fault("an error without words or hint", repr(error))
    report.did.append(f"config, selector, check, tokenizer, load: {', '.join(answers)}")
    if report.came == "fine":
        report.came = "refused" if "refused" in answers else "looked at"


def _plan(report: Report, kind: str, model: Path) -> None:
    """Plan a recipe that uses it, as the stage does that fits."""
    stage = "train" if kind in ("llama", "adapter") else "score" if kind != "single" else "convert"
    said = call("plan", "default", f"{stage}.model={model}", "--outputs", "outputs")
    for name, what in faults_of(said, (0, 1, 2)):
        report.fault(f"plan: {name}", what)


@functools.cache
def _templates() -> Path:
    """Make the models that cases start from, once for each process."""
    place = Path(os.environ["HOME"]) / "templates"
    for name, source in (("single", "nano-olmoe"), ("llama", "nano-llama")):
        (place / name).mkdir(parents=True)
        for file in (*FILES, "model.safetensors"):
            shutil.copyfile(NANO / source / file, place / name / file)
    _shard(place / "single", place / "sharded")
    said = call("convert", str(place / "single"), str(place / "converted"))
    assert said.code == 0, said.err
    _adapter(place / "adapter")
    _partial(place / "partial", place / "converted")
    return place


def _shard(source: Path, out: Path) -> None:
    from safetensors.torch import load_file, save_file

    out.mkdir()
    for name in FILES:
        shutil.copyfile(source / name, out / name)
    tensors = load_file(source / "model.safetensors")
    places = {}
    for number in range(3):
        shard = f"model-0000{number + 1}-of-00003.safetensors"
        mine = {name: tensors[name] for name in sorted(tensors)[number::3]}
        save_file(mine, out / shard, metadata={"format": "pt"})
        places |= dict.fromkeys(mine, shard)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    (out / INDEX).write_text(json.dumps(index, indent=1))


def _adapter(out: Path) -> None:
    import torch
    from safetensors.torch import save_file

    out.mkdir()
    sizes = json.loads((NANO / "nano-llama" / "config.json").read_text())
    width = sizes["hidden_size"]
    tensors = {}
    for layer in range(sizes["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
        tensors |= {
            f"{name}A.weight": torch.zeros(4, width),
            f"{name}B.weight": torch.zeros(width, 4),
        }
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(NANO / "nano-llama"),
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj"],
    }
    (out / "adapter_config.json").write_text(json.dumps(config))


def _partial(out: Path, base: Path) -> None:
    from safetensors.torch import load_file, save_file

    out.mkdir()
    tensors = load_file(base / "model.safetensors")
    gates = {name: tensor for name, tensor in tensors.items() if name.endswith("gate.weight")}
    save_file(gates, out / "partial.safetensors", metadata={"format": "pt"})
    partial = {"base": {"location": str(base), "revision": None}, "weights": "partial.safetensors"}
    (out / "partial.json").write_text(json.dumps(partial))


def _damage(generator: random.Random, model: Path) -> str:
    """Change one file of a model, or what kind of file it is."""
    files = sorted(path for path in model.iterdir() if path.is_file() and not path.is_symlink())
    if not files:
        return "no file is left"
    kinds = (
        "header",
        "header",
        "json",
        "json",
        "json",
        "json",
        "index",
        "template",
        "bytes",
        "file",
    )
    match generator.choice(kinds):
        case "header" if weights := [path for path in files if path.suffix == ".safetensors"]:
            path = generator.choice(weights)
            return f"{path.name}: {_damage_header(generator, path)}"
        case "index" if (model / INDEX).is_file():
            return _damage_index(generator, model / INDEX)
        case "template":
            (model / "chat_template.jinja").write_text(template := generator.choice(ODD_TEMPLATES))
            return f"chat_template.jinja: {template[:60]!r}"
        case "bytes":
            path = generator.choice(files)
            content, did = mutate_bytes(generator, path.read_bytes())
            path.write_bytes(content)
            return f"{path.name}: {did}"
        case "file":
            return _replace(generator, generator.choice(files))
    described = [path for path in files if path.suffix == ".json" and path.stat().st_size < 20_000]
    return _damage_json(generator, generator.choice(described or files))


def _damage_json(generator: random.Random, path: Path) -> str:
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return f"{path.name} is no JSON any more"
    if not isinstance(tree, dict) or generator.random() < 0.05:
        tree = generator.choice(([], 1, "x", None, {}, [tree], nested(900, 1)))
        path.write_text(json.dumps(tree))
        return f"{path.name} is {tree!r:.60}"
    did = mutate(generator, tree, CONFIG_KEYS, lambda: odd(generator))
    try:
        path.write_text(json.dumps(tree))
    except (ValueError, RecursionError):
        return f"{path.name} stays"
    return f"{path.name}: {did}"


def _damage_index(generator: random.Random, path: Path) -> str:
    index = json.loads(path.read_bytes()) if path.stat().st_size else {}
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        return f"{path.name} has no places any more"
    shards = sorted({str(shard) for shard in places.values()})
    target = generator.choice(
        (*shards, "../victim/model.safetensors",
        str(path.parent.parent.parent / "victim" / "model.safetensors"),
         "../../victim/x.safetensors", "sub/model.safetensors", "model.safetensors",
         "./" + shards[0],
         generator.choice(TEXTS), 3, None, [shards[0]], shards[0].upper(), f"{shards[0]}\0")
    )  # fmt: skip
    names = list(places) if generator.random() < 0.3 else [generator.choice(list(places))]
    for name in names:
        places[name] = target
    if generator.random() < 0.2:
        places[generator.choice((*TEXTS, "model.extra.weight"))] = generator.choice(shards)
    path.write_text(json.dumps(index))
    return f"{path.name}: {len(names)} entries lead to {target!r:.100}"


def _damage_header(generator: random.Random, path: Path) -> str:
    content = path.read_bytes()
    if len(content) < 8:
        return "too short"
    size = struct.unpack("<Q", content[:8])[0]
    if generator.random() < 0.2:
        wrong = generator.choice((0, 1, size - 1, size + 1, len(content), 2**31, 2**63, 2**64 - 1))
        path.write_bytes(struct.pack("<Q", wrong % 2**64) + content[8:])
        return f"the header's length is {wrong} instead of {size}"
    try:
        header = json.loads(content[8 : 8 + size])
    except (ValueError, RecursionError):
        return "no header any more"
    did = _change_header(generator, header)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    if generator.random() < 0.1:
        text, more = mutate_bytes(generator, text)
        did += f"; in its text {more}"
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    return f"header: {did}"


def _change_header(generator: random.Random, header: Any) -> str:
    if not isinstance(header, dict) or not header:
        return "empty"
    name = generator.choice(sorted(header))
    entry = header[name]
    match generator.choice(("dtype", "shape", "offsets", "drop", "name", "metadata", "any", "any")):
        case "dtype" if "dtype" in entry:
            entry["dtype"] = generator.choice(DTYPES)
            return f"{name} has the dtype {entry['dtype']!r}"
        case "shape" if entry.get("shape"):
            shapes = (
                [],
                [0],
                [-1, 4],
                [2**62, 2**62],
                [1] * 200,
                ["a"],
                None,
                entry["shape"][::-1],
                [1.5],
            )
            entry["shape"] = generator.choice(shapes)
            return f"{name} has the shape {entry['shape']!r:.60}"
        case "offsets" if "data_offsets" in entry:
            first, last = entry["data_offsets"]
            entry["data_offsets"] = generator.choice(
                (
                    [last, first],
                    [first, last + 1],
                    [0, last],
                    [-1, last],
                    [2**63, 2**64],
                    [first],
                    "x",
                    [first, 10**30],
                )
            )
            return f"{name} has the offsets {entry['data_offsets']!r}"
        case "drop":
            del header[name]
            return f"no {name}"
        case "name":
            new = generator.choice(
                (*TEXTS, f"{name}.weight", name.upper(), "model.layers.99.mlp.gate.weight")
            )
            header[new] = header.pop(name)
            return f"{name} is named {new!r:.100}"
        case "metadata":
            header["__metadata__"] = generator.choice(
                (1, [], {"format": 3}, {"format": "tf"}, {}, {"a": {"b": "c"}})
            )
            return f"metadata {header['__metadata__']!r}"
    return mutate(generator, header, ["dtype", "shape", "data_offsets"], lambda: odd(generator))


def _replace(generator: random.Random, path: Path) -> str:
    """Put something else in the place of a file."""
    what = generator.choice(
        ("gone", "empty", "folder", "pipe", "loop", "link out", "device", "none", "copy")
    )
    if what == "copy":
        name = generator.choice(
            (
                path.name + ".bak",
                "pytorch_model.bin",
                "x.safetensors",
                "model.gguf",
                "tokenizer.model",
            )
        )
        shutil.copyfile(path, path.parent / name)
        return f"{path.name} is also {name}"
    path.unlink()
    match what:
        case "empty":
            path.write_bytes(b"")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path.name)
        case "link out":
            path.symlink_to("../../victim/model.safetensors")
        case "device":
            path.symlink_to("/dev/zero")
        case "none":
            path.symlink_to("nowhere")
    return f"{path.name} is {what}"


AREA = Area("checkpoints", run, seconds=60.0, chunk=125)
