"""The LoRA layers of a PEFT model, and the gradients of their weights for each example."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selectmoe_core import ModelError

ADAPTER = "default"
SUPPORTED = "lora-gradients reads plain LoRA weights on linear layers of the decoder"


@dataclass(frozen=True)
class LoraLayer:
    """A linear layer with LoRA weights: ``W x + scale * B (A x)``.

    Attributes:
        name: its name in the adapter's files.
        module: PEFT's layer.
        scale: what the product of the LoRA weights is multiplied by.
    """

    name: str
    module: Any
    scale: float

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The two weights by their names in the adapter's files: A ``[r, in]``, B ``[out, r]``."""
        down, up = self.module.lora_A[ADAPTER].weight, self.module.lora_B[ADAPTER].weight
        return {f"{self.name}.lora_A.weight": down, f"{self.name}.lora_B.weight": up}


def lora_layers(network: Any) -> list[LoraLayer]:  # noqa: ANN401
    """Return the LoRA layers of a PEFT model.

    Raises:
        ModelError: the adapter trained something else than plain LoRA weights of linear layers in
            the decoder.
    """
    from peft.tuners.lora import LoraLayer as AnyLora
    from peft.tuners.lora.layer import Linear

    _check_config(network.peft_config[ADAPTER])
    decoder = {id(module) for module in network.get_base_model().get_decoder().modules()}
    found = []
    for name, module in network.named_modules():
        if not isinstance(module, AnyLora):
            continue
        plain = type(module) is Linear and isinstance(module.get_base_layer(), nn.Linear)
        if not plain or module.lora_variant or id(module) not in decoder:
            raise ModelError(
                f"the adapter has LoRA weights on {name}: {SUPPORTED}",
                hint="warm up with target_modules inside the decoder's layers, without variants",
            )
        found.append(LoraLayer(name, module, float(module.scaling[ADAPTER])))
    if not found:
        raise ModelError(f"the adapter has no LoRA weights: {SUPPORTED}", hint="warm up again")
    return found


def _check_config(config: Any) -> None:  # noqa: ANN401
    trains = {
        "use_dora": "DoRA magnitudes",
        "lora_bias": "biases",
        "modules_to_save": "whole modules",
        "trainable_token_indices": "token embeddings",
        "target_parameters": "LoRA weights of bare parameters",
    }
    wrong = [what for option, what in trains.items() if getattr(config, option, None)]
    if getattr(config, "bias", "none") != "none" and "biases" not in wrong:
        wrong.append("biases")
    if wrong:
        raise ModelError(
            f"the adapter also trained {', '.join(wrong)}: {SUPPORTED}",
            hint="train the warm-up's adapter with llama-lora, or without these options",
        )


def example_gradients(
    inputs: Tensor, errors: Tensor, down: Tensor, up: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the gradient of A and of B for each example.

    Positions whose output does not change the loss, such as padding, have an error of zero.

    Args:
        inputs: of the layer, ``[examples, length, in]``.
        errors: the gradient of the loss for the layer's output, ``[examples, length, out]``.
        down: A, ``[r, in]``.
        up: B, ``[out, r]``.
        scale: what ``B A`` is multiplied by.

    Returns:
        ``[examples, r * in]`` and ``[examples, out * r]``, in the dtype of the inputs.
    """
    back = (errors @ up) * scale
    inner = (inputs @ down.T) * scale
    of_down = torch.bmm(back.transpose(1, 2), inputs)
    of_up = torch.bmm(errors.transpose(1, 2), inner)
    return of_down.flatten(1), of_up.flatten(1)


def copy_weights(layers: list[LoraLayer], stored: Mapping[str, Tensor]) -> None:
    """Put the LoRA weights of a checkpoint into the model.

    Raises:
        ModelError: names or shapes differ.
    """
    own = {name: weight for layer in layers for name, weight in layer.weights.items()}
    if {name: weight.shape for name, weight in own.items()} != {
        name: weight.shape for name, weight in stored.items()
    }:
        raise ModelError(
            "the warm-up's checkpoints hold different LoRA weights",
            hint="they are not of one training: run the warm-up again with --fresh warmup",
        )
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(stored[name])
