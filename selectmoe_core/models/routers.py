"""One forward pass, which passes on the router logits of each layer as they are computed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from selectmoe_core.errors import ModelError

Take = Callable[[int, Tensor], None]
"""Receives a layer's number and its logits ``[batch * length, outputs]``."""


class RouterSignals:
    """The routers of a loaded model, for any architecture that can return router logits.

    Layers are numbered from 0 over those that have a router.

    Raises:
        ModelError: the model has no router whose logits transformers can record.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._decoder = whole.base_model
        self._layers = _routers_by_layer(self._decoder)
        if not self._layers:
            raise ModelError(
                f"{type(whole).__name__} has no router whose logits can be read",
                hint="a mixture of experts is needed, such as a converted OLMoE",
            )

    def __len__(self) -> int:
        return len(self._layers)

    def cut_behind(self, layer: int) -> None:
        """Remove the decoder's layers after router layer ``layer``, which are not needed."""
        last = self._layers[layer][0]
        self._decoder.layers = self._decoder.layers[: last + 1]
        self._layers = self._layers[: layer + 1]

    def forget_behind(self, layers: int) -> None:
        """Forget the routers behind the first decoder layers, which somebody has removed."""
        self._layers = [found for found in self._layers if found[0] < layers]

    def outputs(self, device: str) -> int:
        """Return how many outputs a router has, from a pass over one token.

        Raises:
            ModelError: the routers differ in width, or a pass does not call all of them.
        """
        widths: list[int] = []
        layers = range(len(self))
        token = torch.zeros((1, 1), dtype=torch.long, device=device)
        self.read(token, layers, lambda _, logits: widths.append(logits.shape[-1]))
        if len(widths) != len(self) or len(set(widths)) != 1:
            raise ModelError(f"the routers of this model have logits of different widths: {widths}")
        return widths[0]

    def packed_decoder(self) -> tuple[Any, str]:
        """Return the model's own way to read packed sequences and its name, or ``None`` and why.

        A model offers it by a method ``packed_decoder`` of its decoder, which returns such a pair.
        What it offers has ``read(ids, positions, starts, longest, layers, take)``: see
        ``PackedBatch`` for the shapes, and ``read`` below for the rest.
        """
        offer = getattr(self._decoder, "packed_decoder", None)
        if offer is None:
            return None, f"{type(self._decoder).__name__} offers no packed decoder"
        found: tuple[Any, str] = offer()
        return found

    @torch.inference_mode()
    def read(self, ids: Tensor, layers: Sequence[int], take: Take) -> None:
        """Run the decoder without its head and pass on the logits of the chosen layers.

        What ``take`` does not keep is freed before the next layer runs. There is no attention mask:
        with a causal mask no real token attends to the padding on its right.

        Args:
            ids: token ids ``[batch, length]``, padded on the right with any token.
            layers: the numbers of the layers.
            take: called once per layer, in order.
        """
        with self.listening(layers, take):
            self._decoder(input_ids=ids, use_cache=False)

    @contextmanager
    def listening(self, layers: Sequence[int], take: Take) -> Iterator[None]:
        """Pass on the logits of the chosen layers in every pass of the decoder in the block."""
        with ExitStack() as stack:
            for layer in layers:
                for router, index in self._layers[layer][1]:
                    stack.enter_context(_listening(router, index, layer, take))
            yield


def _routers_by_layer(decoder: Any) -> list[tuple[int, list[tuple[nn.Module, int]]]]:  # noqa: ANN401
    """Return, for each layer with a router, its position and its routers with their output index.

    Transformers finds the routers the same way when it records router logits. An adapter may hold
    two copies of a router, of which one runs.
    """
    recorders = (getattr(decoder, "_can_record_outputs", None) or {}).get("router_logits", [])
    recorders = recorders if isinstance(recorders, list) else [recorders]
    found = []
    for position, layer in enumerate(getattr(decoder, "layers", [])):
        routers = [
            (module, recorder.index)
            for name, module in layer.named_modules()
            for recorder in recorders
            if isinstance(module, recorder.target_class)
            and (recorder.layer_name is None or recorder.layer_name in name)
        ]
        if routers:
            found.append((position, routers))
    return found


def _listening(router: nn.Module, index: int, layer: int, take: Take) -> Any:  # noqa: ANN401
    """Return a handle, itself a context, under which the router's logits go to ``take``."""

    def hear(_module: nn.Module, _inputs: object, output: Any) -> None:  # noqa: ANN401
        logits = output[index] if isinstance(output, tuple) else output
        take(layer, logits.reshape(-1, logits.shape[-1]))

    return router.register_forward_hook(hear)
