"""A byte-level Llama, examples, and losses by hand, for tests of scorers by language models."""

import math
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from selectmoe_core import Example, Job, Message, ModelRef, Shard, ShardScores
from selectmoe_core.data.examples import content_id
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.testing.pools import Bench
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import encode

EOS = 256
TINY = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": EOS,
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {"<eos>": EOS}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def save_model(model, folder: Path) -> ModelRef:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return ModelRef(str(folder))


def example_of(turns: list[Message]) -> Example:
    return Example(content_id(turns).hex(), "s", tuple(turns))


def job_of(ref: ModelRef, examples: list[Example], folder: Path) -> Job:
    chat = ChatFormat(ChatConfig(max_length=400))
    return Job(
        seed=1,
        chat=chat,
        inputs=Inputs(model=ref),
        encoded=lambda tokenizer: encode(examples, folder / "encoded", chat, tokenizer),
    )


def score_all(scorer, job: Job, examples: list[Example]) -> ShardScores:
    with scorer.open(job) as opened:
        return opened.score(Shard(0, np.arange(len(examples)), examples))


def nats(model, context: str, text: str) -> list[float]:
    """The loss on each byte of a text after a context, one forward pass over both, by hand."""
    tokenizer = byte_tokenizer()
    before, of_text = tokenizer(context)["input_ids"], tokenizer(text)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([before + of_text])).logits[0].double()
    found = []
    for place, token in enumerate(of_text):
        row = logits[len(before) + place - 1]
        found.append(float(-row[token] + math.log(sum(math.exp(v) for v in row.tolist()))))
    return found


def tulu(turns) -> str:
    return "".join(
        f"<|{m.role}|>\n{m.content.strip()}{'<eos>' if m.role == 'assistant' else ''}\n"
        for m in turns
    )


def slow_answers(model, example: Example):
    """For each answer its losses after the conversation, and after the text that opens it."""
    for place, message in enumerate(example.messages):
        if message.role == "assistant":
            answer = message.content.strip() + "<eos>"
            opened = tulu(example.messages[:place]) + "<|assistant|>\n"
            given = nats(model, opened, answer)
            yield given, nats(model, "\n<|assistant|>\n", answer)


def context_of(component, config, bench: Bench, job: Job, folder: Path, **own: object) -> Context:
    folder.mkdir(exist_ok=True)
    spec = NodeSpec(
        key="score",
        stage="score",
        where="[score]",
        kind="scorer",
        component=component.name,
        options={},
        own=own,
        digest="1" * 64,
        folder=folder,
        store=folder / "store",
        inputs={"pool": bench.pool.folder},
        input_digests={"pool": "0" * 64},
        model=None,
        seed=0,
        chat={"max_length": 400},
        device="cpu",
        dtype="float32",
        threads=1,
    )
    return Context(component.build(config), component, config, spec, job)


def trial(tmp_path, llama, examples, component, **options):
    bench = Bench(tmp_path, examples)
    config = component.config(**options)
    base = Job(seed=1, chat=ChatFormat(ChatConfig(max_length=400)))
    return bench, config, bench.job(component, config, base, llama)
