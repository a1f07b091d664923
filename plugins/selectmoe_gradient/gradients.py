"""One backward pass that gives the projected gradient of each example of a batch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from selectmoe_core.models import Batch
from selectmoe_core.training import head_logits, summed_head_loss
from selectmoe_gradient.directions import Direction
from selectmoe_gradient.lora_layers import LoraLayer, example_gradients, lora_layers
from selectmoe_gradient.projection import Projector, WeightProjection

ENTRIES = 1 << 27
"""Entries of one weight's gradients that are held at once: 256 MiB in bf16."""


class ProjectedGradients:
    """A model with LoRA weights whose backward pass projects the gradients of its examples.

    Only activations get gradients from autograd. When the backward pass reaches the output of a
    LoRA layer, the products of that gradient with the layer's inputs give the gradients of A and B
    for each example; they are preconditioned, projected and dropped before the pass goes on. So
    the memory holds the gradients of one weight at a time.

    Args:
        network: PEFT's model, in evaluation mode.
        projector: makes the projection of each weight.
    """

    def __init__(self, network: Any, projector: Projector) -> None:  # noqa: ANN401
        self.network = network.requires_grad_(requires_grad=False)
        self.layers = lora_layers(network)
        self.width = projector.width
        self.sizes = {
            name: weight.numel() for layer in self.layers for name, weight in layer.weights.items()
        }
        self.projections: Mapping[str, WeightProjection] = projector.weights(self.sizes)

    def vectors(self, batch: Batch, directions: Mapping[str, Direction] | None) -> Tensor:
        """Return the projected gradient of each example's loss, fp32 ``[examples, width]``.

        The loss of an example is the mean over its counted tokens; each must have one.

        Args:
            batch: the examples; the mask says which tokens count.
            directions: how each weight's gradient is preconditioned; ``None`` takes them as they
                are.
        """
        total = torch.zeros(len(batch.rows), self.width, device=batch.ids.device)
        with self._watched(total, directions):
            embedded, loss = self.loss(batch)
            # In this thread: compiled kernels are not called from a thread of autograd's.
            with torch.autograd.set_multithreading_enabled(mode=False):
                loss.backward(inputs=[embedded])
        return total

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the embedded tokens and the sum of the examples' losses.

        There is no attention mask: with causal attention no token sees the padding after it.
        """
        causal = self.network.get_base_model()
        embedded = causal.get_input_embeddings()(batch.ids).detach().requires_grad_()
        states = causal.get_decoder()(inputs_embeds=embedded, use_cache=False).last_hidden_state
        counted = batch.mask[:, 1:]
        weights = counted / counted.sum(1, keepdim=True)
        # Found once: a mask as an index makes the host wait for the device each time.
        rows, places = counted.nonzero(as_tuple=True)
        loss = summed_head_loss(
            partial(head_logits, causal),
            states[rows, places],
            batch.ids[rows, places + 1],
            weights[rows, places].float(),
            causal.config.vocab_size,
        )
        return embedded, loss

    @contextmanager
    def _watched(self, total: Tensor, directions: Mapping[str, Direction] | None) -> Iterator[None]:
        """Collect the gradients of each LoRA layer in ``total`` inside the block."""

        def forward(layer: LoraLayer, _: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ANN401
            output.register_hook(partial(self._collect, layer, inputs[0], total, directions))

        handles: list[RemovableHandle] = [
            layer.module.register_forward_hook(partial(forward, layer)) for layer in self.layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _collect(
        self,
        layer: LoraLayer,
        inputs: Tensor,
        total: Tensor,
        directions: Mapping[str, Direction] | None,
        errors: Tensor,
    ) -> None:
        names, (down, up) = list(layer.weights), layer.weights.values()
        size = max(1, ENTRIES // max(down.numel(), up.numel()))
        with torch.no_grad():
            pieces = zip(total.split(size), inputs.split(size), errors.split(size), strict=True)
            for some, taken, given in pieces:
                found = example_gradients(taken, given, down, up, layer.scale)
                for name, gradients in zip(names, found, strict=True):
                    chosen = None if directions is None else directions[name]
                    some.add_(self.projections[name].project(gradients, chosen))
