"""Select-MoE as a transformers model: OLMoE with trash-can experts in its router."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, OlmoeConfig
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.modeling_outputs import MoeCausalLMOutputWithPast
from transformers.models.olmoe.modeling_olmoe import OlmoeForCausalLM, OlmoeModel
from transformers.utils.generic import can_return_tuple

from selectmoe_olmoe.family import OLMOE
from selectmoe_olmoe.model.experts import SelectMoeSparseMoeBlock
from selectmoe_olmoe.model.losses import balance_loss, constraint_per_token
from selectmoe_olmoe.model.router import SelectMoeTopKRouter, TrashcanRouter


@strict
class SelectMoeConfig(OlmoeConfig):
    """OLMoE's configuration plus the parameters of the method."""

    model_type = OLMOE.selector_type

    num_trash_experts: int | None = None
    trash_can_init_mean: float = 0.0
    trash_can_init_std: float = 0.02
    constraint_loss_weight: float = 0.01
    constraint_alpha: float = 1.0
    constraint_beta: float = 2.0
    balance_over: Literal["all", "regular", "grouped"] = "all"

    def __post_init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        """Use as many trash cans as a token has slots, unless a number is given."""
        if self.num_trash_experts is None:
            self.num_trash_experts = self.num_experts_per_tok
        if self.num_trash_experts < 1:
            raise ValueError(f"num_trash_experts must be at least 1, got {self.num_trash_experts}")
        super().__post_init__(**kwargs)


_NAMES = {field.name for field in fields(MoeCausalLMOutputWithPast)}
# transformers renamed the output's field; the supported releases use both names.
CACHE = "cache" if "cache" in _NAMES else "past_key_values"


@dataclass
class SelectMoeCausalLMOutput(MoeCausalLMOutputWithPast):
    """OLMoE's output; with labels and router logits also the terms that ``loss`` sums.

    ``aux_loss`` is the balance term, as in OLMoE. All terms are unweighted scalars.
    """

    ce_loss: Tensor | None = None
    constraint_loss: Tensor | None = None


class _SelectMoeMixin:
    """Shared by the decoder and the causal model."""

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        # transformers looks for a decorator in this module's source; OLMoE's experts have it.
        return True

    @torch.no_grad()
    def _init_weights(self: Any, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[misc]
        if isinstance(module, TrashcanRouter) and not _loaded(module.weight):
            config: SelectMoeConfig = self.config
            rows = module.weight[config.num_experts :]
            rows.normal_(config.trash_can_init_mean, config.trash_can_init_std)

    @contextmanager
    def trash_disabled(self: Any) -> Iterator[None]:
        """Inside the block trash cans get no probability: routing is that of the source."""
        routers = [m for m in self.modules() if isinstance(m, TrashcanRouter)]
        before = [router.trash_enabled for router in routers]
        try:
            for router in routers:
                router.trash_enabled = False
            yield
        finally:
            for router, enabled in zip(routers, before, strict=True):
                router.trash_enabled = enabled


def _loaded(weight: Tensor) -> bool:
    return bool(getattr(weight, "_is_hf_initialized", False))


class SelectMoeModel(_SelectMoeMixin, OlmoeModel):
    """The decoder; ``output_router_logits=True`` gives ``[batch * length, E + T]`` per layer."""

    config: SelectMoeConfig

    def __init__(self, config: SelectMoeConfig) -> None:
        super().__init__(config)
        for layer in self.layers:
            layer.mlp = SelectMoeSparseMoeBlock(SelectMoeTopKRouter(config), layer.mlp.experts)
        self.post_init()

    def packed_decoder(self) -> tuple[Any, str]:
        """Return a faster forward pass for scoring and its kernels' name, or ``None`` and why not.

        It reads sequences without padding and passes on router logits (``PackedDecoder.read``);
        the weights stay this model's.
        """
        from selectmoe_olmoe.fused.scoring_pass import PackedDecoder, obstacle

        if (reason := obstacle(self)) is not None:
            return None, reason
        packed = PackedDecoder(self)
        return packed, packed.kernel


class SelectMoeForCausalLM(_SelectMoeMixin, OlmoeForCausalLM):
    """The decoder with its head, and the training loss of the method."""

    config: SelectMoeConfig
    packed_training: Any = None
    """A ``PackedTraining`` of this model, for a trainer that passes packed rows."""

    def __init__(self, config: SelectMoeConfig) -> None:
        super(OlmoeForCausalLM, self).__init__(config)  # not OlmoeForCausalLM's: no second decoder
        self.model = SelectMoeModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.router_aux_loss_coef = config.router_aux_loss_coef
        self.num_experts = config.num_experts
        self.num_experts_per_tok = config.num_experts_per_tok
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_router_logits: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        packed: Any = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Logits, and with ``labels`` the loss.

        With labels ``loss`` is the cross-entropy; with router logits as well it is
        ``ce + router_aux_loss_coef * balance + constraint_loss_weight * constraint``.

        It returns a ``SelectMoeCausalLMOutput``, of ``packed`` rows what ``packed_training`` does:
        whatever wraps the model for training sees but the one forward pass.

        Args:
            input_ids: ``[batch, length]``.
            attention_mask: ``[batch, length]``, zero on padding, which counts in no term.
            labels: ``[batch, length]``, -100 where no loss is taken; shifted inside.
            output_router_logits: Return the router's logits; default from the configuration.
            logits_to_keep: How many positions, or which, get vocabulary logits; 0 means all.
            packed: a batch of ``packed_rows``, instead of all else.
            **kwargs: Passed on to the decoder and the cross-entropy.
        """
        if packed is not None:
            return self.packed_training(packed)
        if output_router_logits is None:
            output_router_logits = self.config.output_router_logits
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_router_logits=output_router_logits,
            **kwargs,
        )
        last = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        result = SelectMoeCausalLMOutput(
            logits=self.lm_head(last[:, kept, :]),
            **{CACHE: getattr(outputs, CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_logits=outputs.router_logits,
        )
        if labels is not None:
            result.ce_loss = result.loss = self.loss_function(
                result.logits, labels, self.vocab_size, **kwargs
            )
            if output_router_logits:
                self._add_router_losses(result, attention_mask, last.shape[:2])
        return result

    def _add_router_losses(
        self, result: SelectMoeCausalLMOutput, attention_mask: Tensor | None, shape: torch.Size
    ) -> None:
        config = self.config
        logits = result.router_logits
        mask = logits[0].new_ones(shape) if attention_mask is None else attention_mask
        mask = mask.reshape(-1).to(torch.float32)
        experts, top_k = config.num_experts, config.num_experts_per_tok
        terms = constraint_per_token(
            logits, experts, top_k, config.constraint_alpha, config.constraint_beta
        )
        result.constraint_loss = (terms * mask).sum() / mask.sum()
        result.aux_loss = balance_loss(logits, mask, experts, top_k, config.balance_over)
        result.loss = (
            result.ce_loss
            + self.router_aux_loss_coef * result.aux_loss
            + config.constraint_loss_weight * result.constraint_loss
        )


def register() -> None:
    """Teach transformers the model type ``select_moe``; calling it again changes nothing.

    Importing this module has called it. Without the conversion mapping the per-expert tensors of a
    checkpoint would not be found and the experts would stay random, with nothing but a printed
    report.
    """
    kind = OLMOE.selector_type
    AutoConfig.register(kind, SelectMoeConfig, exist_ok=True)
    AutoModel.register(SelectMoeConfig, SelectMoeModel, exist_ok=True)
    AutoModelForCausalLM.register(SelectMoeConfig, SelectMoeForCausalLM, exist_ok=True)
    mapping = get_checkpoint_conversion_mapping(OLMOE.model_type)
    register_checkpoint_conversion_mapping(kind, mapping, overwrite=True)


# On import, unlike elsewhere in this code, so that the class alone is enough to load a model.
register()
