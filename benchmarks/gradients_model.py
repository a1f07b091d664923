"""What ``gradients.py`` measures: a model with LoRA weights, examples, and the slow ways."""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device import wait
from llama_bench import LlamaBench
from pool_sample import spread_of
from torch import Tensor

from selectmoe_core import Example, ModelRef
from selectmoe_core.models import Batch
from selectmoe_core.tokens.encoding import encode
from selectmoe_gradient.directions import Adam, Direction
from selectmoe_gradient.gradients import ProjectedGradients
from selectmoe_gradient.projection import Projector
from selectmoe_llama.adapter import with_lora
from selectmoe_llama.config import LoraTrainingConfig

SEED, DIMENSIONS, STEP = 7, 8192, 105
SOURCES = {"flan_v2": 100_000, "cot": 100_000, "dolly": 15_011, "oasst1": 55_668}
"""Examples of each source in LESS's pool."""


class Bench(LlamaBench):
    """What the parts share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.rank = 4 if self.tiny else 128
        self.examples = 64 if self.tiny else arguments.examples
        self.network: Any = None
        self.lora_parameters = 0
        self.ids: list[np.ndarray] = []
        self.masks: list[np.ndarray] = []

    def free(self) -> None:
        """Give back the memory of a part."""
        super().free()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()

    def wait(self) -> None:
        """Wait until the device is through."""
        wait(self.device)

    def build(self) -> None:
        """Make the model, its LoRA weights drawn at random and in its own dtype."""
        base = self.random_base()
        options = LoraTrainingConfig(lora_rank=self.rank, lora_alpha=4.0 * self.rank)
        self.network = with_lora(base, ModelRef("random"), options).to(self.dtype).eval()
        torch.manual_seed(SEED)
        for name, weight in self.network.named_parameters():
            if "lora_" in name:
                self.lora_parameters += weight.numel()
                torch.nn.init.normal_(weight, 0, 0.01)

    def draw(self) -> dict[str, Any]:
        """Draw examples in LESS's proportions of sources; encode them with a BPE."""
        by_source: dict[str, list[Example]] = {source: [] for source in SOURCES}
        for example in self.examples_of_data():
            if (source := example.source.removesuffix("_data")) in by_source:
                by_source[source].append(example)
        if not all(by_source.values()):
            raise self.no_data()
        random, chosen = np.random.default_rng(SEED), []
        for source, number in SOURCES.items():
            count = round(self.examples * number / sum(SOURCES.values()))
            rows = by_source[source]
            chosen += [rows[row] for row in random.choice(len(rows), count, count > len(rows))]
        tokenizer = self.tokenizer_for(chosen)
        encoded = encode(chosen, Path(tempfile.mkdtemp()), self.chat, tokenizer)
        for example in encoded:
            mask = np.array(self.chat.counts(example.parts))
            mask[:1] = False
            if mask.any():
                self.ids.append(np.asarray(example.ids))
                self.masks.append(mask)
        return spread_of(self.lengths) | {"mean": round(float(self.lengths.mean()), 1)}

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example."""
        return np.array([len(ids) for ids in self.ids])

    def middle(self, count: int) -> np.ndarray:
        """Return examples of about the mean length."""
        return np.argsort(np.abs(self.lengths - self.lengths.mean()), kind="stable")[:count]

    def gradients(self, *, compiled: bool) -> ProjectedGradients:
        """Return the model as the plugin runs it."""
        projector = Projector("count-sketch", DIMENSIONS, SEED, self.device, compiled=compiled)
        return ProjectedGradients(self.network, projector)


def moments_of(found: ProjectedGradients, device: str) -> dict[str, Direction]:
    """Return random moments of a plausible size for each weight."""
    factors = Adam(STEP).factors("paper", device)
    made = {}
    for name, size in found.sizes.items():
        first = torch.randn(size, device=device) * 1e-5
        second = torch.rand(size, device=device) * 1e-9
        made[name] = Direction(
            *(found.projections[name].arranged(x) for x in (first, second)), factors
        )
    return made


def no_gradients(found: ProjectedGradients, batch: Batch) -> None:
    """Run forward and backward for the activations alone."""
    embedded, loss = found.loss(batch)
    loss.backward(inputs=[embedded])


def naive_vector(
    found: ProjectedGradients, batch: Batch, directions: Mapping[str, Direction]
) -> Tensor:
    """Return the projected gradient of a batch of one example, by autograd on the weights."""
    weights = {name: weight for layer in found.layers for name, weight in layer.weights.items()}
    for weight in weights.values():
        weight.requires_grad_()
    try:
        _, loss = found.loss(batch)
        gradients = torch.autograd.grad(loss, list(weights.values()))
    finally:
        for weight in weights.values():
            weight.requires_grad_(requires_grad=False)
    total = torch.zeros(found.width, device=batch.ids.device)
    for name, gradient in zip(weights, gradients, strict=True):
        total += found.projections[name].project(gradient.reshape(1, -1), directions[name])[0]
    return total
