"""The model from tokens to the sum of its losses, without holding the logits of all tokens."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from selectmoe_core.training import head_logits, summed_head_loss
from selectmoe_llama.attention import Attention, use


class PackedModel(nn.Module):
    """A causal language model with LoRA weights, whose output is a loss.

    It runs the decoder, and the head only for tokens that are predicted. A wrapper of the model
    (for several processes or mixed precision) covers all of it, including the loss.

    Args:
        network: PEFT's model around a Llama-like one.
        attention: how examples attend to themselves.
        compiled: compile the decoder's layers, all to the same code.
        recomputed: keep only the input of each layer, and compute it again for the gradient.
    """

    def __init__(
        self,
        network: Any,  # noqa: ANN401
        attention: Attention,
        *,
        compiled: bool = False,
        recomputed: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.attention = attention
        self.compiled = compiled
        use(attention, network.get_base_model())
        for layer in network.get_base_model().get_decoder().layers:
            layer.forward = _prepared(layer.forward, compiled=compiled, recomputed=recomputed)

    def forward(
        self,
        input_ids: Tensor,
        predicting: Tensor,
        targets: Tensor,
        weights: Tensor,
        position_ids: Tensor | None = None,
        starts: Tensor | None = None,
        longest: int | None = None,
        group_rows: Sequence[Tensor] = (),
        group_back: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of the targets' negative log probabilities times their weights, fp32.

        Args:
            input_ids: ``[rows, length]``; one row where examples lie end to end.
            predicting: places, counted through all rows, of the tokens whose next one is a target:
                ``[targets]``.
            targets: token ids, ``[targets]``.
            weights: fp32 ``[targets]``.
            position_ids: ``[rows, length]``, where they are not simply counted through.
            starts: first token of each example and, last, the number of tokens: int32
                ``[examples + 1]``.
            longest: tokens of the longest example.
            group_rows: see ``attention.groups``.
            group_back: see ``attention.groups``.
        """
        causal = self.network.get_base_model()
        embedded = causal.get_input_embeddings()(input_ids)
        if self.compiled and not embedded.requires_grad:
            # Otherwise the first layer, whose input needs no gradient, would have other code.
            embedded = embedded.requires_grad_()
        packed: dict[str, Any] = {}
        if starts is not None:
            packed = {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts}
            packed |= {"max_length_q": longest, "max_length_k": longest}
        if group_back is not None:
            packed |= {"group_rows": group_rows, "group_back": group_back}
        decoder = causal.get_decoder()
        hidden = decoder(
            inputs_embeds=embedded, position_ids=position_ids, use_cache=False, **packed
        ).last_hidden_state
        chosen = hidden.flatten(0, 1).index_select(0, predicting)
        head = partial(head_logits, causal)
        return summed_head_loss(head, chosen, targets, weights, causal.config.vocab_size)


def _prepared(call: Callable[..., Any], *, compiled: bool, recomputed: bool) -> Callable[..., Any]:
    """Return a layer's ``forward`` compiled and, around that, recomputed.

    In this order the recomputation also runs compiled code. Transformers' own option puts it inside
    or outside, depending on the release.
    """
    if compiled:
        call = torch.compile(call, dynamic=True)
    return partial(checkpoint, call, use_reentrant=False) if recomputed else call
