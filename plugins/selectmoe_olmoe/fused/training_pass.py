"""A forward pass for training: packed rows without padding; only trained weights get gradients.

It computes what transformers' model computes, with the model's own parameters, so training, saving
and adapters work as usual. ``autograd`` holds the parts.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

from selectmoe_olmoe.fused import autograd
from selectmoe_olmoe.fused.attention import Attention, PaddedAttention, VarlenAttention
from selectmoe_olmoe.fused.ops import Gate, Routed
from selectmoe_olmoe.fused.scoring_pass import angles, of_machine, of_shape, plain_experts
from selectmoe_olmoe.fused.training_launches import TritonTrainingSteps
from selectmoe_olmoe.fused.training_ops import TrainingSteps
from selectmoe_olmoe.model.router import TrashcanRouter
from selectmoe_olmoe.warmup.packed_rows import Packed


@dataclass
class PackedOutput(ModelOutput):
    """The results of a pass for the losses.

    Attributes:
        cross_entropy: the weighted sum over the labels, a scalar in fp32.
        logits: the router logits, fp32 ``[layers, N, experts + trash]``.
        index: the output of each slot, ``[layers, N, top_k]``.
    """

    cross_entropy: Tensor | None = None
    logits: Tensor | None = None
    index: Tensor | None = None


@dataclass(frozen=True)
class _Rows:
    """What attention needs to know about the rows of a batch."""

    positions: Tensor
    starts: Tensor
    longest: int


class PackedTraining:
    """The forward pass of a Select-MoE model over packed rows, with gradients.

    Args:
        model: a ``SelectMoeForCausalLM`` for which ``obstacle`` returns ``None``.
        dtype: what products are computed in; parameters may be wider.
        recompute: keep only a layer's input and compute the rest again in the backward pass.
        head_gradient: whether the cross-entropy needs a gradient.
        steps: how the memory-bound steps run; by default Triton's kernels.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401
        *,
        dtype: torch.dtype,
        recompute: bool,
        head_gradient: bool = True,
        steps: TrainingSteps | None = None,
    ) -> None:
        decoder = model.model
        config = decoder.config
        self._model = model
        self._decoder = decoder
        self._dtype = dtype
        self._recompute = recompute
        self._head_gradient = head_gradient
        self._steps: TrainingSteps = steps or TritonTrainingSteps()
        self._eps: float = config.rms_norm_eps
        self._heads = (config.num_attention_heads, config.num_key_value_heads)
        self._size: int = decoder.layers[0].self_attn.head_dim
        fast = decoder.embed_tokens.weight.device.type == "cuda" and dtype != torch.float32
        self._attention: Attention = VarlenAttention() if fast else PaddedAttention()
        self._tables = self._angles(int(config.max_position_embeddings))

    @property
    def kernel(self) -> str:
        """Which kernels run: steps, attention, grouped products."""
        return f"packed: {self._steps.name} steps, {self._attention.name} attention, grouped_mm"

    def __call__(self, batch: Packed) -> PackedOutput:
        """Run the model over a packed batch and sum its cross-entropy."""
        device = batch["input_ids"].device.type
        with torch.autocast(device, enabled=False):
            return self._run(batch)

    def _run(self, batch: Packed) -> PackedOutput:
        rows = _Rows(batch["positions"], batch["starts"], batch["longest"])
        if rows.longest > len(self._tables[0]):
            self._tables = self._angles(rows.longest)
        x = functional.embedding(batch["input_ids"], self._decoder.embed_tokens.weight)
        layers = self._decoder.layers
        found = []
        for number, layer in enumerate(layers):
            last = number + 1 == len(layers)
            if self._recompute and torch.is_grad_enabled():
                x, logits, index = checkpoint(
                    self._layer, layer, x, rows, last, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x, logits, index = self._layer(layer, x, rows, last)
            found.append((logits, index))
        return PackedOutput(
            self._cross_entropy(x, batch),
            torch.stack([logits for logits, _ in found]),
            torch.stack([index for _, index in found]),
        )

    def _layer(
        self,
        layer: Any,  # noqa: ANN401
        x: Tensor,
        rows: _Rows,
        last: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, eps, dtype = self._steps, self._eps, self._dtype
        normed = autograd.norm(x, layer.input_layernorm.weight, eps, dtype, steps)
        attended = self._attend(layer.self_attn, normed, rows)
        behind = layer.post_attention_layernorm.weight
        x, normed = autograd.add_norm(x, attended, behind, eps, dtype, steps)
        block = layer.mlp
        router = _gate(block)
        gate = Gate(router.weight, router.num_experts, router.top_k, router.norm_topk_prob)
        routed = autograd.route(normed, gate, steps)
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self._head_gradient or not last)):
            x = self._experts(x, normed, routed, block.experts)
        return x, routed.logits, routed.index

    def _experts(self, x: Tensor, normed: Tensor, routed: Routed, experts: Any) -> Tensor:  # noqa: ANN401
        return autograd.experts(
            x, normed, routed, experts.gate_up_proj, experts.down_proj, self._steps
        )

    def _attend(self, attention: Any, normed: Tensor, rows: _Rows) -> Tensor:  # noqa: ANN401
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        if all(type(each) is nn.Linear for each in projections):
            weight = torch.cat([each.weight for each in projections]).to(normed.dtype)
            qkv = functional.linear(normed, weight).unflatten(1, (-1, self._size))
            heads, key_heads = self._heads
            parts = qkv.split((heads, key_heads, key_heads), dim=1)
        else:
            parts = [each(normed).unflatten(1, (-1, self._size)) for each in projections]
        queries, keys = (
            autograd.norm_rotary(
                part, gain.weight, self._tables, rows.positions, self._eps, self._steps
            )
            for part, gain in zip(parts, (attention.q_norm, attention.k_norm), strict=False)
        )
        attended = self._attention(
            queries, keys, parts[2], rows.positions, rows.starts, rows.longest
        ).flatten(1)
        out = attention.o_proj
        if type(out) is nn.Linear:
            return functional.linear(attended, out.weight.to(attended.dtype))
        found: Tensor = out(attended)
        return found

    def _cross_entropy(self, x: Tensor, batch: Packed) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._head_gradient):
            last = x.index_select(0, batch["predicts"])
            normed = autograd.norm(
                last, self._decoder.norm.weight, self._eps, self._dtype, self._steps
            )
            return autograd.linear_cross_entropy(
                normed,
                self._model.lm_head.weight,
                batch["labels"],
                batch["label_weights"],
                self._steps,
            )

    def _angles(self, count: int) -> tuple[Tensor, Tensor]:
        decoder = self._decoder
        return angles(decoder.rotary_emb, self._size, count, decoder.embed_tokens.weight.device)


def obstacle(model: Any, dtype: torch.dtype) -> str | None:  # noqa: ANN401
    """Return why packed training cannot stand in for a model where it is, or ``None``."""
    other = None if dtype == torch.bfloat16 else str(dtype).removeprefix("torch.")
    wrong = other and f"computes in bfloat16, not in {other}"
    return of_machine(model.model.embed_tokens.weight.device, wrong) or of_model(model)


def of_model(model: Any) -> str | None:  # noqa: ANN401
    """Return what about a model packed training does not know, or ``None``."""
    if (unknown := of_shape(model.model)) is not None:
        return unknown
    if model.config.attention_dropout:
        return "does not support attention dropout"
    blocks = [layer.mlp for layer in model.model.layers]
    gates = [_gate(block) for block in blocks]
    plain = all(plain_experts(block, model.config.model_type) for block in blocks)
    if not (plain and all(isinstance(gate, TrashcanRouter) for gate in gates)):
        return "reads only plain experts and whole gates, but the model has an adapter"
    return None if all(gate.trash_enabled for gate in gates) else "the trash cans are switched off"


def _gate(block: Any) -> Any:  # noqa: ANN401
    """Return the router of a block, from within peft's copy of it where there is one."""
    copies = getattr(block.gate, "modules_to_save", None)
    return block.gate if copies is None else next(iter(copies.values()))
