"""The adapter's README: what it was trained on and how to load it."""

import json
from pathlib import Path

from selectmoe_core import Facts, Job, ModelRef
from selectmoe_llama.config import LoraTrainingConfig

FROM_FOLDER = """from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("path/of/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")"""
FROM_GGUF = """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({folder}, gguf_file={file})
model = PeftModel.from_pretrained(base, "path/of/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")"""
SHOWN = (
    *(
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "learning_rate",
        "epochs",
        "max_steps",
    ),
    *("batch_size", "scheduler", "warmup_ratio", "weight_decay", "quantization"),
)


def write_card(
    out: Path, model: ModelRef, config: LoraTrainingConfig, facts: Facts, job: Job
) -> None:
    """Write ``README.md`` into the adapter's folder: the base, how to load it, how it was made."""
    place = job.models.local(model)
    local = place is not None and place.parent.name != "snapshots"
    head = ["library_name: peft", "pipeline_tag: text-generation", "tags: [lora, selectmoe]"]
    if not local:  # the hub accepts only names of its own models
        head.insert(0, f"base_model: {json.dumps(model.location)}")
    code = FROM_FOLDER
    gguf = place if place is not None and place.is_file() else None
    if gguf is not None:
        code = FROM_GGUF.format(folder=json.dumps(str(gguf.parent)), file=json.dumps(gguf.name))
    rows = [f"| {name} | {_shown(getattr(config, name))} |" for name in SHOWN]
    chat = job.chat.config
    rows += [f"| chat template | {chat.template} |", f"| max_length | {chat.max_length} |"]
    rows += [f"| seed | {job.seed} |", f"| dtype | {job.dtype} |"]
    rows += [f"| {name} | {facts[name]} |" for name in ("steps", "examples", "tokens")]
    text = [
        *("---", *head, "---", "", "# LoRA adapter", ""),
        f"Base model: `{place if local else model}`. The adapter was trained by selectmoe's",
        "`llama-lora` on instruction data. `adapter_config.json` names the base; if it",
        "has moved, change `base_model_name_or_path` there.",
        *("", "```python", code, "```", "", "| option | value |", "|---|---|", *rows, ""),
    ]
    (out / "README.md").write_text("\n".join(text), encoding="utf-8")


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
