"""What the benchmarks of Llama-2-7B's shape share: command line, random weights, examples."""

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from device import OnDevice, hardware, versions
from device import ceiling as product_rate
from parts import Parts, Work
from pool_sample import conversations, tokenizer_of
from random_weights import random_model
from shapes import LLAMA, TINY
from transformers import LlamaConfig, LlamaForCausalLM

from selectmoe_core import Example, Message
from selectmoe_core.data.examples import content_id
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat


def command_line(about: str | None, name: str, seconds: float) -> argparse.ArgumentParser:
    """Return the options of every such benchmark.

    Args:
        about: the text above the options.
        name: the benchmark's, for its file of JSON lines.
        seconds: after which no part begins, by default.
    """
    shown = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=shown)
    folder = Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=folder)
    parser.add_argument("--json", type=Path, default=Path(f"{name}.jsonl"))
    parser.add_argument("--tiny", action="store_true", help="a small model, on the CPU")
    parser.add_argument("--only", nargs="*", help="parts to run; by default all")
    parser.add_argument("--seconds", type=float, default=seconds, help="begin no part after it")
    return parser


class LlamaBench(OnDevice):
    """A device, the model's shape and the parts.

    Attributes:
        shape: the fields of the model's configuration.
        chat: the format of the examples.
        parameters: of the model, once it is made.
        parts: the parts and what they found.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.shape: dict[str, Any] = LLAMA | (TINY | {"intermediate_size": 96} if self.tiny else {})
        self.chat = ChatFormat(ChatConfig(max_length=128 if self.tiny else 2048))
        self.parameters = 0
        self.parts = Parts(arguments.json, after=self.free, seconds=arguments.seconds)

    def free(self) -> None:
        """Give back the memory of a part."""
        if self.cuda:
            torch.cuda.empty_cache()

    def begin(self, **needed: Work) -> None:
        """Name the machine, measure its ceiling, then run what every other part needs."""
        first: dict[str, Work] = {"machine": self.machine, "ceiling": self.measure_ceiling}
        for name, work in (first | needed).items():
            self.parts.run(name, work)

    def machine(self) -> dict[str, Any]:
        """Name the machine and the versions."""
        named = versions("torch", "transformers", "peft")
        return {"machine": hardware(self.device), "versions": named}

    def measure_ceiling(self) -> dict[str, Any]:
        """Measure a large matrix product."""
        self.ceiling = product_rate(self.device, self.dtype)
        return {"tflops": round(self.ceiling / 1e12, 1)}

    def random_base(self) -> Any:  # noqa: ANN401
        """Return the model with random weights, made on the device itself."""
        config = LlamaConfig(**self.shape, pad_token_id=0)
        base = random_model(LlamaForCausalLM, config, self.device, self.dtype)
        self.parameters = sum(weight.numel() for weight in base.parameters())
        return base

    def examples_of_data(self) -> Iterator[Example]:
        """Yield every example of the data; its source is the name of its file."""
        for source, turns in conversations(self.arguments.data):
            messages = tuple(Message(turn["role"], turn["content"]) for turn in turns)
            yield Example(content_id(messages).hex(), source, messages)

    def no_data(self) -> SystemExit:
        """Return the error where the data has no such example."""
        return SystemExit(f"no pool in {self.arguments.data}: name its folder with --data")

    def tokenizer_for(self, examples: Iterable[Example]) -> Any:  # noqa: ANN401
        """Return a byte-level BPE trained on some examples."""
        texts = (message.content for example in examples for message in example.messages)
        special = {"bos_token": "<s>", "eos_token": "</s>"}
        return tokenizer_of(texts, self.shape["vocab_size"], **special)
