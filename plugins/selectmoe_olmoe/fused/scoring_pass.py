"""A forward pass for scoring: packed sequences without padding; router logits are passed on.

It computes what transformers' decoder computes, with few memory-bound steps: dense and
grouped matrix products and attention come from torch, everything between them from ``Steps``.
Nothing after the last wanted router runs, not even its experts, and no gradient is kept. Shapes
depend only on the tokens of a batch, so the host never waits for the routing.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from selectmoe_olmoe.family import family_of_selector
from selectmoe_olmoe.fused.attention import Attention, attention_for
from selectmoe_olmoe.fused.launches import TritonSteps
from selectmoe_olmoe.fused.ops import Gate, Routed, Steps
from selectmoe_olmoe.model.experts import SelectMoeSparseMoeBlock
from selectmoe_olmoe.model.router import TrashcanRouter

AMPERE = (8, 0)
Take = Callable[[int, Tensor], None]
"""Receives a layer's number and its logits, fp32 ``[tokens, experts + trash]``."""


@dataclass(frozen=True)
class _Layer:
    input_norm: Tensor
    qkv: Tensor
    q_norm: Tensor
    k_norm: Tensor
    out: Tensor
    expert_norm: Tensor
    gate: Gate
    gate_up: Tensor
    down: Tensor


class PackedDecoder:
    """The layers of a Select-MoE model as one function of packed tokens.

    It shares the model's weights (query, key and value weights move into one tensor, of which the
    model keeps views).

    Args:
        decoder: a ``SelectMoeModel`` for which ``obstacle`` returns ``None``.
        steps: how the memory-bound steps run; by default Triton's kernels.
        attention: how sequences attend to themselves; by default the best the device has.
    """

    def __init__(
        self,
        decoder: Any,  # noqa: ANN401
        steps: Steps | None = None,
        attention: Attention | None = None,
    ) -> None:
        config = decoder.config
        self._steps = steps or TritonSteps()
        self._embedding: Tensor = decoder.embed_tokens.weight
        self._attention: Attention = attention or attention_for(self._embedding)
        self._heads = config.num_attention_heads
        self._key_heads = config.num_key_value_heads
        self._size = decoder.layers[0].self_attn.head_dim
        self._eps = config.rms_norm_eps
        self._rotary = decoder.rotary_emb
        self._final_norm: Tensor = decoder.norm.weight.detach()
        self._tables = self._angles(int(config.max_position_embeddings))
        self._layers = [_taken_apart(layer) for layer in decoder.layers]

    @property
    def kernel(self) -> str:
        """Which kernels run: steps, attention, grouped products."""
        return f"packed: {self._steps.name} steps, {self._attention.name} attention, grouped_mm"

    def read(
        self,
        ids: Tensor,
        positions: Tensor,
        starts: Tensor,
        longest: int,
        layers: Sequence[int],
        take: Take,
    ) -> None:
        """Run the decoder up to the last of ``layers`` and pass on the chosen layers' logits.

        Args:
            ids: token ids of all sequences one after another, int64 ``[tokens]``.
            positions: each token's place in its sequence, int32 ``[tokens]``.
            starts: first token of each sequence and, last, ``tokens``: int32 ``[sequences + 1]``.
            longest: tokens of the longest sequence.
            layers: numbers of the layers wanted.
            take: called once a wanted layer, in order.
        """
        if longest > len(self._tables[0]):
            self._tables = self._angles(longest)
        with torch.inference_mode(), _on(ids.device):
            self._run(ids, positions, starts, longest, frozenset(layers), max(layers), take)

    def states(
        self,
        ids: Tensor,
        positions: Tensor,
        starts: Tensor,
        longest: int,
        layer: int,
        take: Take | None = None,
    ) -> Tensor:
        """Return the hidden states after a layer, ``[tokens, hidden]``, as transformers counts.

        Those of layer 0 are the embeddings, and those of the last layer have passed the final norm.

        Args:
            ids: as in ``read``, like ``positions``, ``starts`` and ``longest``.
            positions: each token's place in its sequence.
            starts: first token of each sequence and, last, ``tokens``.
            longest: tokens of the longest sequence.
            layer: how many layers to run.
            take: called with the router's logits of each layer that runs.
        """
        if longest > len(self._tables[0]):
            self._tables = self._angles(longest)
        with torch.inference_mode(), _on(ids.device):
            wanted = frozenset(range(layer)) if take else frozenset[int]()
            return self._run(ids, positions, starts, longest, wanted, layer, take or _ignore)

    def _run(
        self,
        ids: Tensor,
        positions: Tensor,
        starts: Tensor,
        longest: int,
        wanted: frozenset[int],
        whole: int,
        take: Take,
    ) -> Tensor:
        """Run ``whole`` layers, and the router of the next one if it is wanted.

        Returns the hidden states after these layers; behind the last layer with the final norm.
        """
        steps, eps = self._steps, self._eps
        norms = [layer.input_norm for layer in self._layers] + [self._final_norm]
        x = functional.embedding(ids, self._embedding)
        normed = steps.norm(x, norms[0], eps)
        for number, layer in enumerate(self._layers):
            if number == whole and number not in wanted:
                return x
            attended = self._attend(layer, normed, positions, starts, longest)
            x, normed = steps.add_norm(x, attended, layer.expert_norm, eps)
            routed = steps.route(normed, layer.gate)
            if number in wanted:
                take(number, routed.logits)
            if number == whole:
                return x
            pairs = run_experts(steps, normed, routed, layer.gate_up, layer.down)
            x, following = steps.combine(x, pairs, routed, norms[number + 1], eps)
            assert following is not None
            normed = following
        return normed

    @torch.inference_mode()
    def layer(
        self, number: int, x: Tensor, positions: Tensor, starts: Tensor, longest: int
    ) -> Tensor:
        """Return the output of one whole layer for ``[tokens, hidden]``: for comparisons."""
        steps, eps, layer = self._steps, self._eps, self._layers[number]
        normed = steps.norm(x, layer.input_norm, eps)
        attended = self._attend(layer, normed, positions, starts, longest)
        x, normed = steps.add_norm(x.clone(), attended, layer.expert_norm, eps)
        routed = steps.route(normed, layer.gate)
        pairs = run_experts(steps, normed, routed, layer.gate_up, layer.down)
        return steps.combine(x, pairs, routed, None, eps)[0]

    def _attend(
        self, layer: _Layer, normed: Tensor, positions: Tensor, starts: Tensor, longest: int
    ) -> Tensor:
        qkv = functional.linear(normed, layer.qkv).unflatten(1, (-1, self._size))
        queries, keys, values = qkv.split((self._heads, self._key_heads, self._key_heads), dim=1)
        for part, weight in ((queries, layer.q_norm), (keys, layer.k_norm)):
            self._steps.norm_rotary_(part, weight, self._tables, positions, self._eps)
        attended = self._attention(queries, keys, values, positions, starts, longest)
        return functional.linear(attended.flatten(1), layer.out)

    def _angles(self, count: int) -> tuple[Tensor, Tensor]:
        return angles(self._rotary, self._size, count, self._embedding.device)


def _ignore(_layer: int, _logits: Tensor) -> None:
    """Take no logits."""


@torch.no_grad()
def angles(rotary: Any, size: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Return cosines and sines of the first positions, fp32 ``[count, size / 2]`` each.

    Args:
        rotary: the model's rotary embedding.
        size: of a head.
        count: number of positions.
        device: where they are wanted.
    """
    places = torch.arange(count, device=device)[None]
    both = rotary(torch.empty(1, device=device), places)
    cosines, sines = (table[0, :, : size // 2].contiguous() for table in both)
    return cosines, sines


def run_experts(
    steps: Steps, hidden: Tensor, routed: Routed, gate_up: Tensor, down: Tensor
) -> Tensor:
    """Return each regular pair's expert output in expert order, ``[pairs, hidden]``.

    The rows of trash slots come last and are never computed: grouped products end at ``ends``.

    Args:
        steps: how the memory-bound steps run.
        hidden: ``[tokens, hidden]``.
        routed: where the slots go.
        gate_up: ``[experts, 2 * intermediate, hidden]``.
        down: ``[experts, hidden, intermediate]``.
    """
    rows = steps.spread(hidden, routed.position)
    both = functional.grouped_mm(rows, gate_up.transpose(1, 2), offs=routed.ends)
    acted = steps.silu_times(both, routed.ends)
    return functional.grouped_mm(acted, down.transpose(1, 2), offs=routed.ends)


def obstacle(decoder: Any) -> str | None:  # noqa: ANN401
    """Return why the packed decoder cannot replace a model on its device, or ``None``."""
    weight = decoder.embed_tokens.weight
    wide = weight.dtype == torch.float32
    dtype = "computes in bfloat16 or float16, but the model is in float32" if wide else None
    return of_machine(weight.device, dtype) or of_shape(decoder) or _of_layers(decoder)


def of_machine(device: torch.device, dtype: str | None) -> str | None:
    """Return why Triton's kernels cannot run on a device or with a dtype, or ``None``."""
    if device.type != "cuda" or torch.version.hip:
        return f"needs an NVIDIA GPU, but the model is on {device.type}"
    if torch.cuda.get_device_capability(device) < AMPERE:
        return f"needs compute capability 8.0, {torch.cuda.get_device_name(device)} is older"
    if dtype is not None:
        return dtype
    return None if find_spec("triton") else "needs triton, which is not installed"


def of_shape(decoder: Any) -> str | None:  # noqa: ANN401
    """Return what packed passes do not support in a model's configuration, or ``None``."""
    config, first = decoder.config, decoder.layers[0]
    if config.hidden_act != "silu" or config.attention_bias or config.clip_qkv is not None:
        return "supports only silu experts without attention bias or clip_qkv"
    if config.rope_parameters["rope_type"] in {"dynamic", "longrope"}:
        return f"does not support rotary positions of type {config.rope_parameters['rope_type']}"
    size = first.self_attn.head_dim
    if size % 16 or size & (size - 1) or config.hidden_size % 16 or config.intermediate_size % 16:
        return "needs a head size that is a power of two, and widths that are multiples of 16"
    return None


def _of_layers(decoder: Any) -> str | None:  # noqa: ANN401
    for layer in decoder.layers:
        attention, block = layer.self_attn, layer.mlp
        plain = all(type(getattr(attention, f"{name}_proj")) is nn.Linear for name in "qkvo")
        plain = plain and type(block) is SelectMoeSparseMoeBlock
        plain = plain and plain_experts(block, decoder.config.model_type)
        if not (plain and isinstance(block.gate, TrashcanRouter)):
            return "reads only plain weights, but the model has an adapter"
        if not block.gate.trash_enabled:
            return "the trash cans are switched off"
    return None


def plain_experts(block: Any, model_type: str) -> bool:  # noqa: ANN401
    """Return whether a block's experts are the class that its family has in transformers."""
    family = family_of_selector(model_type)
    return family is not None and type(block.experts) is family.experts()


def _taken_apart(layer: Any) -> _Layer:  # noqa: ANN401
    attention, block = layer.self_attn, layer.mlp
    router = block.gate
    kind = attention.q_proj.weight.dtype
    gate = Gate(
        router.weight.detach().to(kind).contiguous(),
        router.num_experts,
        router.top_k,
        router.norm_topk_prob,
    )
    return _Layer(
        input_norm=layer.input_layernorm.weight.detach(),
        qkv=_joined(attention),
        q_norm=attention.q_norm.weight.detach(),
        k_norm=attention.k_norm.weight.detach(),
        out=attention.o_proj.weight.detach(),
        expert_norm=layer.post_attention_layernorm.weight.detach(),
        gate=gate,
        gate_up=block.experts.gate_up_proj.detach(),
        down=block.experts.down_proj.detach(),
    )


def _joined(attention: Any) -> Tensor:  # noqa: ANN401
    """Move the weights of query, key and value into one tensor; the model keeps views of it."""
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    joined = torch.cat([part.weight.detach() for part in parts])
    for part, view in zip(parts, joined.split([len(part.weight) for part in parts]), strict=True):
        part.weight.data = view
    return joined


def _on(device: torch.device) -> Any:  # noqa: ANN401
    """Return a context in which Triton launches on ``device``."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
