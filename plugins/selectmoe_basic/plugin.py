"""What this plugin offers: scorers without a model, the ordinary selectors, this host."""

from collections.abc import Callable
from typing import Any

from selectmoe_basic.config import (
    BandConfig,
    LengthConfig,
    LocalConfig,
    RandomConfig,
    RoundRobinConfig,
    ThresholdConfig,
    TokenBudgetConfig,
    TopFractionConfig,
    TopKConfig,
)
from selectmoe_core import (
    About,
    Component,
    Config,
    Cost,
    Executor,
    Need,
    Scorer,
    Selector,
    Workload,
    hookimpl,
    load,
)


@hookimpl
def selectmoe_scorers() -> list[Component[Any, Scorer]]:
    """Offer ``length`` and ``random``."""
    return [
        Component(
            "length",
            LengthConfig,
            load("selectmoe_basic.scorers:LengthScorer"),
            about=About(
                meaning="how long the answers are",
                range="0 upward; 0 downward if short answers are better",
                cost="reads the text once",
            ),
            needs=_pool,
        ),
        Component(
            "random",
            RandomConfig,
            load("selectmoe_basic.scorers:RandomScorer"),
            about=About(
                meaning="nothing: the random draw that a strategy has to beat",
                range="0 to 1",
                cost="a hash of each id",
            ),
            needs=_pool,
            seeded=True,
        ),
    ]


@hookimpl
def selectmoe_executors() -> list[Component[Any, Executor]]:
    """Offer ``local``."""
    about = About(
        meaning="child processes of `selectmoe run`; one per GPU, or --num-processes",
        cost="a process for each stage that uses torch",
    )
    part = load("selectmoe_basic.executors:LocalExecutor")
    return [Component("local", LocalConfig, part, about=about)]


@hookimpl
def selectmoe_selectors() -> list[Component[Any, Selector]]:
    """Offer the selectors that look at scores alone."""
    cost = "time in proportion to the pool; about 25 bytes of memory per example"
    share = About("the best-scored share of the pool", "best first", cost)
    number = About("a number of best-scored examples", "best first", cost)
    bounds = About("every example with a score within bounds", "best first", cost)
    return [
        Component(
            "top-fraction",
            TopFractionConfig,
            load("selectmoe_basic.selectors:TopFraction"),
            about=share,
            cost=_share_cost,
        ),
        Component(
            "top-k",
            TopKConfig,
            load("selectmoe_basic.selectors:TopK"),
            about=number,
            cost=_number_cost,
        ),
        Component(
            "threshold",
            ThresholdConfig,
            load("selectmoe_basic.selectors:Threshold"),
            about=bounds,
            by_rank=False,
        ),
        _band(cost),
        _token_budget(),
        _round_robin(),
    ]


def _band(cost: str) -> Component[Any, Selector]:
    return Component(
        "band",
        BandConfig,
        load("selectmoe_basic.selectors:Band"),
        about=About("the examples between two percentiles of the scores", "best first", cost),
        cost=lambda config, work: Cost(examples=(config.high - config.low) / 100 * work.examples),
    )


def _token_budget() -> Component[Any, Selector]:
    cost = "a sort of the scores, and tokenising the pool where nothing has done it"
    return Component(
        "token-budget",
        TokenBudgetConfig,
        load("selectmoe_basic.selectors:TokenBudget"),
        about=About("as many of the best examples as fit so many tokens", "best first", cost),
        needs=lambda _: frozenset({Need.POOL, Need.MODEL, Need.TOKENS}),
        cost=lambda config, work: Cost(
            examples=min(work.examples, config.most / max(work.length, 1.0))
        ),
        budget=_in_tokens,
    )


def _in_tokens(config: TokenBudgetConfig, tokens: Callable[[float, str], int]) -> TokenBudgetConfig:
    """Return the options with tokens in place of hours."""
    if config.gpu_hours is None:
        return config
    most = max(1, tokens(config.gpu_hours, config.card))
    return config.model_copy(update={"tokens": most, "gpu_hours": None})


def _round_robin() -> Component[Any, Selector]:
    return Component(
        "round-robin",
        RoundRobinConfig,
        load("selectmoe_basic.round_robin:RoundRobin"),
        about=About(
            "the best examples of every target task, equally many of each",
            "in the order of the turns",
            "a sort of the scores of each task",
            "RDS+ with several tasks: Ivison et al. 2025, https://arxiv.org/abs/2503.01807",
        ),
        cost=_number_cost,
        by_rank=False,
    )


def _pool(_: Config) -> frozenset[Need]:
    return frozenset({Need.POOL})


def _share_cost(config: TopFractionConfig, work: Workload) -> Cost:
    return Cost(examples=config.fraction * work.examples)


def _number_cost(config: TopKConfig | RoundRobinConfig, work: Workload) -> Cost:
    return Cost(examples=min(float(config.k), work.examples))
