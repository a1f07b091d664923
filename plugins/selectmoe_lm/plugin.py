"""What this plugin offers: scorers by a language model, and ``blend``."""

from collections.abc import Iterable
from typing import Any

from selectmoe_core import (
    About,
    Component,
    Config,
    Cost,
    Meaning,
    Need,
    Scorer,
    TableScorer,
    Workload,
    hookimpl,
    load,
)
from selectmoe_core.cost import Shape, activation_bytes, forward_flops, weight_bytes
from selectmoe_lm.config import (
    ON_GPU,
    BlendConfig,
    DynamicsConfig,
    IfdConfig,
    JudgeConfig,
    PerplexityConfig,
    TokenIfdConfig,
)

CHECKPOINTS = 4
"""A plan does not know how many checkpoints a warm-up will keep."""
ROW_BYTES = 60
"""Bytes of a scored example in a Parquet file: id, score, reason and four details."""


@hookimpl
def selectmoe_scorers() -> list[Component[Any, Scorer | TableScorer]]:
    """Offer the scorers."""
    return [_perplexity(), _ifd(), _blend(), _token_ifd(), _judge(), _dynamics()]


def _perplexity() -> Component[Any, Scorer]:
    return Component(
        "perplexity",
        PerplexityConfig,
        load("selectmoe_lm.perplexity:PerplexityScorer"),
        about=About(
            meaning="how unlikely the answers are to a language model (the logarithm of their "
            "perplexity); low loss means fluent or known text, high loss hard or broken text",
            range="low: 0 downward; high: 0 upward; mid: -100 to 0; higher is better",
            cost="one forward pass over every token, the head over response tokens only",
            paper="Marion et al. 2023, https://arxiv.org/abs/2309.04564 (the middle was best); "
            "Ankner et al. 2024, https://arxiv.org/abs/2405.20541 (small models as judges)",
        ),
        needs=_needs,
        cost=_perplexity_cost,
        torch=True,
        details=lambda _: {
            "loss": Meaning("mean loss, nats per token"),
            "tokens": Meaning("tokens that it is a mean over"),
        },
    )


def _ifd() -> Component[Any, Scorer]:
    return Component(
        "ifd",
        IfdConfig,
        load("selectmoe_lm.ifd:IfdScorer"),
        about=About(
            meaning="loss (or perplexity) of the answers given the instructions, over that of "
            "the answers alone: near 0 the instructions predict the answers, at 1 not at all",
            range="0 to 1 (above 1 without skip_from_one), negated with prefer = low; higher "
            "is better",
            cost="a forward pass over every token and one over the response tokens; small models "
            "rank much like large ones",
            paper="ratio = loss: Cherry_LLM, Li et al. 2023, https://arxiv.org/abs/2308.12032; "
            "ratio = perplexity, and small models: Superfiltering, Li et al. 2024, "
            "https://arxiv.org/abs/2402.00530",
        ),
        needs=_needs,
        cost=_ifd_cost,
        torch=True,
        details=lambda _: {
            "ifd": Meaning("IFD"),
            "loss": Meaning("loss with the instruction, nats per token"),
            "loss_alone": Meaning("loss without it, nats per token"),
            "turns": Meaning("answers"),
        },
        # The number of examples at 1 or above is a fact about the pool, not a failure.
        max_skipped=lambda config: 1.0 if config.skip_from_one else 0.01,
    )


def _token_ifd() -> Component[Any, Scorer]:
    return Component(
        "token-ifd",
        TokenIfdConfig,
        load("selectmoe_lm.token_ifd:TokenIfdScorer"),
        about=About(
            meaning="perplexity of the answers given the instructions, over that of the answers "
            "alone, for the tokens that the instructions change most",
            range="0 upward, negated with prefer = low; higher is better",
            cost="what ifd costs, and up to 0.8 KB of disk an example",
            paper="S-IFD of T-SHIRT, Fu et al. 2025, https://arxiv.org/abs/2506.01317; its "
            "choice by neighbours (noise on embeddings) is not part of it",
        ),
        needs=_needs,
        cost=_ifd_cost,
        torch=True,
        # How many examples are at 1 or above is a fact about the pool, not a failure.
        max_skipped=lambda _: 1.0,
    )


def _judge() -> Component[Any, Scorer]:
    return Component(
        "judge",
        JudgeConfig,
        load("selectmoe_lm.judge:JudgeScorer"),
        about=About(
            meaning="the score that a scorer model gives, such as DEITA's for complexity and "
            "quality",
            range="between the lowest and the highest value; higher is better",
            cost="one forward pass over each prompt, the head over its last token only",
            paper="DEITA, Liu et al. 2023, https://arxiv.org/abs/2312.15685",
        ),
        needs=lambda _: frozenset({Need.MODEL, Need.POOL}),
        cost=_judge_cost,
        torch=True,
    )


def _dynamics() -> Component[Any, Scorer]:
    return Component(
        "dynamics",
        DynamicsConfig,
        load("selectmoe_lm.dynamics:DynamicsScorer"),
        about=About(
            meaning="how the loss on the answers changes while a model is warmed up on a sample",
            range="nats; drop: any number, variability: 0 upward; negated with prefer = low; "
            "higher is better",
            cost="a forward pass over every token for each checkpoint, and one for the base",
            paper="training dynamics: Swayamdipta et al. 2020, https://arxiv.org/abs/2009.10795",
        ),
        needs=lambda _: frozenset({Need.MODEL, Need.POOL, Need.TOKENS, Need.CHECKPOINTS}),
        cost=_dynamics_cost,
        torch=True,
    )


def _blend() -> Component[Any, TableScorer]:
    return Component(
        "blend",
        BlendConfig,
        load("selectmoe_lm.blend:BlendScorer"),
        about=About(
            meaning="several scores combined into one",
            range="ranks, percentiles, z-scores or the scores themselves, summed or multiplied; "
            "higher is better",
            cost="sorts finished scores; 16 bytes of memory per example and score",
            paper="products of scores: DEITA, Liu et al. 2023, https://arxiv.org/abs/2312.15685",
        ),
        needs=lambda _: frozenset({Need.SCORES}),
        scores=_named_scores,
        # Each score has been checked against its own limit.
        max_skipped=lambda _: 1.0,
    )


def _needs(_: Config) -> frozenset[Need]:
    return frozenset({Need.MODEL, Need.POOL, Need.TOKENS})


def _named_scores(config: BlendConfig) -> Iterable[str]:
    return config.read


def _perplexity_cost(config: PerplexityConfig, workload: Workload) -> Cost:
    return _cost(config.batch_tokens, workload, workload.tokens)


def _ifd_cost(config: IfdConfig | TokenIfdConfig, workload: Workload) -> Cost:
    # The share of response tokens is not known; at most all tokens run twice.
    return _cost(config.batch_tokens, workload, 2 * workload.tokens)


def _dynamics_cost(config: DynamicsConfig, workload: Workload) -> Cost:
    return _cost(config.batch_tokens, workload, (CHECKPOINTS + config.from_base) * workload.tokens)


def _judge_cost(config: JudgeConfig, workload: Workload) -> Cost:
    return _cost(config.batch_tokens, workload, workload.tokens)


def _cost(batch_tokens: int | None, workload: Workload, tokens: float) -> Cost:
    disk = ROW_BYTES * workload.examples
    if workload.model is None:
        return Cost(tokens=tokens, disk=disk)
    try:
        shape = Shape.of(workload.model)
    except KeyError:  # the formulas do not fit this architecture
        return Cost(tokens=tokens, disk=disk)
    at_once = Shape(**{**vars(shape), "layers": 1, "vocabulary": 0})
    return Cost(
        tokens=tokens,
        flops=forward_flops(shape, tokens, workload.length, head=True),
        memory=weight_bytes(shape, workload.dtype)
        + activation_bytes(at_once, batch_tokens or ON_GPU, workload.dtype, recompute=False),
        disk=disk,
    )
