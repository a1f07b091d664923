"""A tiny random Llama with a byte-level tokenizer, and jobs around it."""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from selectmoe_core.data.examples import Example, Message, content_id
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.protocols import Inputs, Job
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import Encoded, encode
from selectmoe_llama.config import LoraTrainingConfig
from selectmoe_llama.trainer import LlamaLora

ADAPTER = "adapter_model.safetensors"

TINY: dict[str, Any] = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
"""Large weights, so that a mistake in attention or mask shows in the logits."""


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, behind the end-of-sequence token."""
    names = ["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    built = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=built, eos_token="<eos>", pad_token="<eos>")


def llama(folder: Path, seed: int = 0, **changes: Any) -> ModelRef:
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**TINY | changes)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return ModelRef(str(folder))


def example(*turns: str, source: str = "test") -> Example:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[n % 2], text) for n, text in enumerate(turns))
    return Example(content_id(messages).hex(), source, messages)


class Examples:
    """An ``ExampleSource`` over a list."""

    def __init__(self, examples: list[Example], folder: Path, chat: ChatFormat) -> None:
        self.examples = examples
        self.folder = folder
        self.chat = chat

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self):
        return iter(self.examples)

    def encoded(self, tokens: Any) -> Encoded:
        return encode(self.examples, self.folder, self.chat, tokens)


def job(folder: Path, model: ModelRef | None = None, **changes: Any) -> Job:
    chat = ChatFormat.load(ChatConfig(**changes.pop("chat", {})))
    options: dict[str, Any] = {
        "seed": 7,
        "chat": chat,
        "inputs": Inputs(model=model),
        "scratch": folder / "scratch",
        "checkpoints": folder / "checkpoints",
    }
    return Job(**options | changes)


def conversations(count, seed=0):
    chosen = random.Random(seed)
    letters = "abcdefgh "
    made = []
    for number in range(count):
        turns = [
            "".join(chosen.choices(letters, k=chosen.randint(1, 30))) + str(number)
            for _ in range(chosen.choice([2, 2, 4]))
        ]
        made.append(example(*turns))
    return made


def options(**changes):
    defaults = {
        "batch_size": 8,
        "lora_rank": 4,
        "lora_alpha": 16.0,
        "learning_rate": 1e-2,
        "warmup_ratio": 0.0,
        "max_steps": 4,
    }
    return LoraTrainingConfig(**defaults | changes)


def train(base, examples, folder, config, **changes):
    made = job(folder, base, **changes)
    source = Examples(examples, folder / "encoded", made.chat)
    facts = LlamaLora(config).train(base, source, folder / "model", made)
    return facts, folder / "model"


DIALECTS = (
    frozenset({"window_size", "scale", "enable_gqa"}),
    frozenset({"window_size", "scale"}),
    frozenset({"is_causal", "scale"}),
    frozenset({"is_causal"}),
)
"""What torch's variable-length attention knows, from release to release, the newest first."""


def attended(query, key, value, starts, *, scale, window=None):
    """Look at every pair of tokens: ``[heads, tokens, size]`` -> ``[tokens, heads, size]``."""
    place = torch.arange(query.shape[1])
    example = torch.bucketize(place, torch.tensor(starts[1:]), right=True)
    behind = place[:, None] - place[None, :]
    seen = (example[:, None] == example[None, :]) & (behind >= 0)
    if window is not None:
        seen &= behind < window
    outs = []
    for head in range(query.shape[0]):
        of = head * key.shape[0] // query.shape[0]
        scores = (query[head] @ key[of].T * scale).masked_fill(~seen, float("-inf"))
        outs.append(scores.softmax(dim=-1) @ value[of])
    return torch.stack(outs, dim=1)
