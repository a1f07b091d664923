"""Raising an ``AssertionError`` for a requirement that is not met."""

from collections.abc import Iterator
from contextlib import contextmanager

from selectmoe_core.errors import SelectMoEError
from selectmoe_core.plugin.signatures import method_problems


def require(condition: object, message: str) -> None:
    """Raise an ``AssertionError`` with ``message`` unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def require_methods(name: str, part: object, protocol: type) -> None:
    """Require the methods of a protocol, and the right arguments of optional methods."""
    problems = list(method_problems(part, protocol))
    require(not problems, f"{name}: {'; '.join(problems)}")


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Turn an error that would end a run into an ``AssertionError``."""
    try:
        yield
    except SelectMoEError as error:
        raise AssertionError(f"{name}: {error}") from error
