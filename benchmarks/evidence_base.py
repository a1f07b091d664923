"""The base model of the evidence: a small OLMoE that can read, made in a minute from a small Llama.

No OLMoE of this size is published, and what a minute of pretraining from nothing gives knows too
little to see that an answer fits another question. So a dense model is upcycled (Komatsuzaki et
al., Sparse Upcycling, 2022): each expert is a copy of its feed-forward block, the gates start
near zero, and a minute of language modelling heals what the new norms of queries and keys broke.
"""

import gzip
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, OlmoeConfig, OlmoeForCausalLM

from selectmoe_core.tokens.encoding import Encoded
from selectmoe_core.training.losses import summed_head_loss

SHAPE = (8, 2)
"""Experts of a layer, and slots of a token."""
GATE_STD = 0.005
SKIPPED = 4
"""First tokens whose norms are not typical: attention sinks."""
TEXT_SHARE = 3
"""Every third step reads plain text, the others the pool."""
RATE, NORM_RATE = 3e-4, 3e-3
BALANCE_WEIGHT = 0.01
ROW = 512
"""Tokens of a row of plain text."""
RECIPE = (SHAPE, GATE_STD, SKIPPED, TEXT_SHARE, RATE, NORM_RATE, BALANCE_WEIGHT, ROW)
"""What decides a base model beside the options: part of its key."""


def upcycle(
    folder: Path, probe: Sequence[np.ndarray], experts: int, top_k: int, device: str
) -> Any:  # noqa: ANN401
    """Return an OLMoE with the weights of the Llama in ``folder``, fp32.

    OLMoE normalises queries and keys, Llama does not: each norm's gain is set to the root mean
    square that the Llama's own have on ``probe``. All experts are equal, and their outputs are
    scaled by ``experts / top_k``, since nearly uniform gates give each slot ``1 / experts``.

    Args:
        folder: a Llama checkpoint with tied embeddings or not.
        probe: token ids of a few dozen examples.
        experts: experts a layer gets.
        top_k: slots of a token.
        device: where the probe is read.
    """
    llama = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    sizes = _sizes(llama, probe, device)
    source = {name: weight.cpu() for name, weight in llama.state_dict().items()}
    model = OlmoeForCausalLM(_config(llama.config, experts, top_k))
    grown = model.state_dict()
    torch.manual_seed(0)
    for name, weight in grown.items():
        layer = name.partition(".mlp.")[0] + ".mlp."
        if name in source:
            weight.copy_(source[name])
        elif name.endswith(("q_norm.weight", "k_norm.weight")):
            weight.fill_(sizes[name.removesuffix("_norm.weight") + "_proj"])
        elif name.endswith("mlp.gate.weight"):
            weight.normal_(0, GATE_STD)
        elif name.endswith("gate_up_proj"):
            both = [source[f"{layer}{half}_proj.weight"] for half in ("gate", "up")]
            weight.copy_(torch.cat(both).expand_as(weight))
        elif name.endswith("down_proj"):
            down = source[f"{layer}down_proj.weight"]
            weight.copy_((down * (experts / top_k)).expand_as(weight))
        else:
            raise ValueError(f"{name} has no counterpart in the Llama of {folder}")
    model.load_state_dict(grown)
    model.tie_weights()
    return model


def _config(llama: Any, experts: int, top_k: int) -> OlmoeConfig:  # noqa: ANN401
    return OlmoeConfig(
        **{
            name: getattr(llama, name)
            for name in (
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "rms_norm_eps",
                "rope_parameters",
                "tie_word_embeddings",
                "bos_token_id",
                "eos_token_id",
                "pad_token_id",
            )
        },
        max_position_embeddings=min(2048, llama.max_position_embeddings),
        num_experts=experts,
        num_experts_per_tok=top_k,
        norm_topk_prob=False,
        router_aux_loss_coef=BALANCE_WEIGHT,
        use_cache=False,
    )


def _sizes(llama: Any, probe: Sequence[np.ndarray], device: str) -> dict[str, float]:  # noqa: ANN401
    """Return the mean root mean square of what each query and key projection gives."""
    found: dict[str, list[float]] = {}

    def watch(name: str) -> Any:  # noqa: ANN401
        def hook(_module: nn.Module, _inputs: Any, out: Tensor) -> None:  # noqa: ANN401
            of_tokens = out[0, SKIPPED:].float().pow(2).mean(dim=-1).sqrt()
            found.setdefault(name, []).append(of_tokens.mean().item())

        return hook

    with ExitStack() as stack, torch.inference_mode():
        for name, module in llama.named_modules():
            if name.endswith(("q_proj", "k_proj")):
                stack.callback(module.register_forward_hook(watch(name)).remove)
        for ids in probe:
            if len(ids) > SKIPPED:
                llama(input_ids=torch.from_numpy(ids.astype(np.int64))[None].to(device))
    return {name: float(np.mean(sizes)) for name, sizes in found.items()}


def text_files(folder: Path) -> list[Path]:
    """Return the files of plain text in a folder."""
    found = sorted(folder.glob("*.jsonl.gz"))
    if not found:
        raise FileNotFoundError(f"{folder} holds no *.jsonl.gz")
    return found


def plain_text(folder: Path, tokenizer: Any, documents: int, length: int) -> np.ndarray:  # noqa: ANN401
    """Return token ids of plain text, cut into rows, int32 ``[rows, length]``."""
    texts = []
    for path in text_files(folder):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"][:30_000] for line in lines]
    order = np.random.default_rng(1).permutation(len(texts))[:documents]
    ids = tokenizer([texts[place] for place in order], verbose=False)["input_ids"]
    end = [tokenizer.eos_token_id]
    stream = np.concatenate([np.array(one + end, dtype=np.int32) for one in ids])
    return stream[: len(stream) // length * length].reshape(-1, length)


class MasterWeights:
    """A model's weights in bf16, and fp32 copies of them that an optimizer steps.

    Passes read, and gradients are, bf16: half the memory, and no cast in each pass. Steps smaller
    than a bf16 weight's last bit add up in the copies.

    Args:
        model: in fp32; its weights are bf16 afterwards.

    Attributes:
        named: the fp32 copies by name.
    """

    def __init__(self, model: nn.Module) -> None:
        self._weights = dict(model.named_parameters())
        self.named = {
            name: nn.Parameter(weight.detach().to(torch.float32, copy=True))
            for name, weight in self._weights.items()
        }
        for weight in self._weights.values():
            # Not model.to(): it would round the buffer of rotary frequencies as well.
            weight.data = weight.data.to(torch.bfloat16)

    def take_gradients(self) -> None:
        """Move the gradients of the model to the copies."""
        for name, weight in self._weights.items():
            self.named[name].grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None

    @torch.no_grad()
    def give_back(self) -> None:
        """Round the copies into the model."""
        for name, weight in self._weights.items():
            weight.copy_(self.named[name])


def heal(
    model: Any,  # noqa: ANN401
    pool: Encoded,
    text: np.ndarray,
    seconds: float,
    tokens: int,
) -> Iterator[dict[str, float]]:
    """Train all weights by the language-model loss for a time; yield figures now and then.

    AdamW over fp32 copies of bf16 weights, a cosine schedule over the time given. The model is in
    bf16 afterwards.

    Args:
        model: what ``upcycle`` returned, on its device.
        pool: the pool's tokens.
        text: plain text, ``[rows, length]``.
        seconds: how long.
        tokens: of a step, padding included.
    """
    masters = MasterWeights(model)
    optimizer = optimizer_of(masters, model.device.type)
    begin, seen = time.monotonic(), 0
    for step, ids in enumerate(steps(pool, text, tokens)):
        passed = (time.monotonic() - begin) / seconds
        if passed >= 1:
            return
        loss = train_step(model, masters, optimizer, ids, scale(step, passed))
        seen += int((ids >= 0).sum())
        if step % 30 < 2:
            rate_of = seen / (time.monotonic() - begin)
            yield {"step": step, "loss": loss.item(), "tokens_per_second": rate_of}


def optimizer_of(masters: MasterWeights, device: str) -> torch.optim.AdamW:
    """Return AdamW over the fp32 copies; norms learn faster than the rest."""
    norms = [weight for name, weight in masters.named.items() if "norm" in name]
    others = [weight for name, weight in masters.named.items() if "norm" not in name]
    return torch.optim.AdamW(
        [{"params": norms, "base": NORM_RATE}, {"params": others, "base": RATE}],
        lr=RATE,
        betas=(0.9, 0.95),
        weight_decay=0.0,
        fused=device == "cuda",
    )


def scale(step: int, passed: float) -> float:
    """Return the factor of the learning rates at a step; ``passed`` is the share that is over."""
    return min(1, (step + 1) / 30) * (0.05 + 0.475 * (1 + math.cos(math.pi * passed)))


def train_step(
    model: Any,  # noqa: ANN401
    masters: MasterWeights,
    optimizer: torch.optim.AdamW,
    ids: np.ndarray,
    rate: float,
) -> Tensor:
    """Do a step on rows of ids, and return the loss."""
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * rate
    loss = _loss(model, ids)
    loss.backward()
    masters.take_gradients()
    nn.utils.clip_grad_norm_(masters.named.values(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    masters.give_back()
    return loss.detach()


def steps(pool: Encoded, text: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Yield batches of ids, -1 behind a row's end, without end."""
    random = np.random.default_rng(2)
    rows = max(1, tokens // text.shape[1])
    step = 0
    while True:
        order = random.permutation(len(pool))
        for chunk in np.array_split(order, max(1, len(order) // 4096)):
            by_length = chunk[np.argsort(-pool.lengths[chunk], kind="stable")]
            batches, at = [], 0
            while at < len(by_length):
                many = max(1, tokens // int(pool.lengths[by_length[at]]))
                batches.append(by_length[at : at + many])
                at += many
            for number in random.permutation(len(batches)):
                if step % TEXT_SHARE == 0:
                    yield text[random.integers(len(text), size=rows)]
                    step += 1
                yield _padded([pool[int(row)].ids for row in batches[number]])
                step += 1


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    ids = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int32)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    return ids


def _loss(model: Any, rows: np.ndarray) -> Tensor:  # noqa: ANN401
    """Return the mean loss on the next tokens of rows of ids, -1 behind a row's end."""
    ids = torch.from_numpy(rows).to(model.device, torch.long, non_blocking=True)
    # Rows end in padding, and causal attention lets no token see what stands behind it.
    hidden = model.model(input_ids=ids.clamp(min=0), use_cache=False).last_hidden_state
    counts = ids[:, 1:] >= 0
    kept, targets = hidden[:, :-1][counts], ids[:, 1:][counts]
    weights = torch.full((len(targets),), 1 / len(targets), device=kept.device)
    return summed_head_loss(model.lm_head, kept, targets, weights, model.config.vocab_size)


def make_base(
    llama: Path,
    pool: Encoded,
    text: Path,
    out: Path,
    *,
    seconds: float,
    tokens: int,
    device: str,
    documents: int = 2500,
) -> dict[str, Any]:
    """Upcycle, heal and save a base model in bf16; return what was done.

    Args:
        llama: the dense model's folder.
        pool: the pool's tokens under its tokenizer.
        text: folder of plain text.
        out: where the checkpoint goes; it is there whole or not at all.
        seconds: of healing.
        tokens: of a step of healing.
        device: ``cpu`` or ``cuda``.
        documents: of plain text at most.
    """
    tokenizer = AutoTokenizer.from_pretrained(llama)
    probe = [pool[row].ids for row in range(min(64, len(pool)))]
    model = upcycle(llama, probe, *SHAPE, device).to(device)
    model.set_experts_implementation("grouped_mm")
    rows = plain_text(text, tokenizer, documents, ROW)
    log = []
    for entry in heal(model, pool, rows, seconds, tokens):
        print(f"  healing: {entry}", flush=True)
        log.append(entry)
    part = out.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(out)
    facts: dict[str, Any] = {
        "llama": llama.name,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "experts": SHAPE[0],
        "top_k": SHAPE[1],
        "log": log,
    }
    if device == "cuda":
        facts["peak_memory"] = torch.cuda.max_memory_allocated()
    return facts
