"""What trainers read: each format turns selected rows into what its documentation asks for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """A format that a selection can be exported to.

    Attributes:
        about: what it is for, in a few words.
        file: the name of the file with the rows.
        line: turns a row of ``selected_data.jsonl`` into one of the format.
        page: where the format is documented.
        use: how the trainer is told of the file, as Markdown.
        unfit: why a row cannot be written so, or an empty text.
        others: further small files, by name.
    """

    about: str
    file: str
    line: Callable[[Row], dict[str, Any]]
    page: str
    use: str = ""
    unfit: Callable[[Row], str] = lambda _: ""
    others: Mapping[str, str | Mapping[str, Any]] | None = None


UNTRAINED = "have an answer that is not trained on (weight 0), and the format has no weights"
NOT_IN_TURN = "do not have user and assistant in turn"


def _untrained(row: Row) -> str:
    return UNTRAINED if any(turn.get("weight", 1) == 0 for turn in row["messages"]) else ""


def _not_in_turn(row: Row) -> str:
    """Return what LLaMA-Factory refuses: it drops such rows with a warning in its log."""
    roles = [turn["role"] for turn in row["messages"] if turn["role"] != "system"]
    expected = ["user", "assistant"] * (len(roles) // 2)
    return _untrained(row) or ("" if roles == expected else NOT_IN_TURN)


def _turns(row: Row) -> list[dict[str, str]]:
    return [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]]


def _messages(row: Row) -> dict[str, Any]:
    return {"messages": _turns(row)}


def _trained(turn: Row) -> bool:
    return bool(turn["role"] == "assistant" and turn.get("weight", 1) != 0)


def _axolotl(row: Row) -> dict[str, Any]:
    turns = zip(_turns(row), row["messages"], strict=True)
    return {"messages": [{**turn, "training": _trained(whole)} for turn, whole in turns]}


def _open_instruct(row: Row) -> dict[str, Any]:
    return {"dataset": row["source"], "id": row["id"], "messages": _turns(row)}


def _parquet(row: Row) -> dict[str, Any]:
    turns = [
        {**turn, "weight": int(_trained(whole))}
        for turn, whole in zip(_turns(row), row["messages"], strict=True)
    ]
    columns = {name: row[name] for name in ("id", "source", "rank", "score")}
    return {**columns, "messages": turns}


def _id(row: Row) -> dict[str, Any]:
    return {"id": row["id"]}


_LLAMAFACTORY = {
    "selected": {
        "file_name": "selected.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
}
_AXOLOTL = """\
datasets:
  - path: selected.jsonl
    ds_type: json
    type: chat_template
    field_messages: messages
    message_property_mappings:
      role: role
      content: content
    message_field_training: training
    roles_to_train: []
    train_on_eos: turn
"""
_USE_TRL = """\
```python
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

dataset = load_dataset("json", data_files="selected.jsonl", split="train")
trainer = SFTTrainer(
    model="HuggingFaceTB/SmolLM2-135M-Instruct",  # a hub id or a folder
    args=SFTConfig(output_dir="tuned"),           # without a GPU: use_cpu=True, bf16=False
    train_dataset=dataset,
)
trainer.train()
```

A model without a chat template, as most base models are, needs one:
`SFTConfig(chat_template_path=...)` takes a Jinja file, or a folder whose tokenizer has one. The
loss is over the whole conversation; `assistant_only_loss=True` restricts it to the answers, as
selectmoe does, if the template marks them.
"""
_USE_LLAMAFACTORY = """\
In the configuration of the training:

```yaml
dataset_dir: .       # this folder: it holds dataset_info.json
dataset: selected
```
"""
_USE_AXOLOTL = """\
Copy the lines of `datasets.yaml` into the configuration of the training. `path` starts from the
folder in which axolotl runs.
"""

FORMATS: Mapping[str, Format] = {
    "trl": Format(
        "TRL's SFTTrainer, conversational",
        "selected.jsonl",
        _messages,
        "https://huggingface.co/docs/trl/dataset_formats",
        _USE_TRL,
        _untrained,
    ),
    "llamafactory": Format(
        "LLaMA-Factory, in OpenAI's form of sharegpt, with dataset_info.json",
        "selected.jsonl",
        _messages,
        "https://llamafactory.readthedocs.io/en/latest/getting_started/data_preparation.html",
        _USE_LLAMAFACTORY,
        _not_in_turn,
        others={"dataset_info.json": _LLAMAFACTORY},
    ),
    "axolotl": Format(
        "Axolotl's chat_template, with the lines for its configuration",
        "selected.jsonl",
        _axolotl,
        "https://docs.axolotl.ai/docs/dataset-formats/conversation.html",
        _USE_AXOLOTL,
        others={"datasets.yaml": _AXOLOTL},
    ),
    "open-instruct": Format(
        "open-instruct's and Tulu's mixtures",
        "selected.jsonl",
        _open_instruct,
        "https://github.com/allenai/open-instruct",
        unfit=_untrained,
    ),
    "parquet": Format(
        "one table for anything else",
        "selected.parquet",
        _parquet,
        "id, source, rank, score, messages: a list of role, content, weight (1 where trained on)",
    ),
    "ids": Format("the ids alone, a line each", "ids.txt", _id, "32 hexadecimal digits"),
}
"""The formats by name."""
