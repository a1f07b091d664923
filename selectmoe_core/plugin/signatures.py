"""Checks whether functions of a plugin can be called as the core calls them, without a call."""

import inspect
from collections.abc import Callable, Iterator, Sequence

from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.executor import Executor
from selectmoe_core.plugin.optional import OPTIONAL
from selectmoe_core.plugin.protocols import (
    Converter,
    Embedder,
    Evaluator,
    Filter,
    Need,
    Reader,
    Scorer,
    Selector,
    TableScorer,
    Trainer,
)
from selectmoe_core.plugin.tracker import Tracker

PROTOCOLS = {
    Kind.READER: Reader,
    Kind.FILTER: Filter,
    Kind.CONVERTER: Converter,
    Kind.EMBEDDER: Embedder,
    Kind.SCORER: Scorer,
    Kind.SELECTOR: Selector,
    Kind.TRAINER: Trainer,
    Kind.EVALUATOR: Evaluator,
    Kind.TRACKER: Tracker,
    Kind.EXECUTOR: Executor,
}


def protocol_of(kind: Kind, needs: frozenset[Need]) -> type:
    """Return the methods of a part of this kind."""
    return TableScorer if kind is Kind.SCORER and Need.SCORES in needs else PROTOCOLS[kind]


def method_problems(part: object, protocol: type) -> Iterator[str]:
    """Yield the mistakes in a part's methods, including the optional ones."""
    for name, parameters in _methods(protocol):
        if not callable(getattr(part, name, None)):
            yield f"it has no method {name}({', '.join(parameters)})"
        else:
            yield from _call_problem(part, name, parameters)
    for optional in OPTIONAL[protocol]:
        for name, parameters in _methods(optional):
            if hasattr(part, name):
                yield from _call_problem(part, name, parameters)


def takes(function: Callable[..., object], count: int) -> bool:
    """Return whether a function accepts this many arguments, as far as its signature shows."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have no signature
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _call_problem(part: object, name: str, parameters: Sequence[str]) -> Iterator[str]:
    method = getattr(part, name)
    wanted = f"{name}({', '.join(parameters)})"
    if not callable(method):
        yield f"its {name} is not a method: the core calls {wanted}"
    elif not takes(method, len(parameters)):
        yield f"its method {name}{inspect.signature(method)} cannot be called as {wanted}"


def _methods(protocol: type) -> Iterator[tuple[str, list[str]]]:
    for name, method in vars(protocol).items():
        if not name.startswith("_") and inspect.isfunction(method):
            yield name, list(inspect.signature(method).parameters)[1:]
