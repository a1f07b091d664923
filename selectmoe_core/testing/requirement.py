"""One way to fail."""

from collections.abc import Iterator
from contextlib import contextmanager

from selectmoe_core.errors import SelectMoEError


def require(condition: object, message: str) -> None:
    """Raise an ``AssertionError`` with ``message`` unless the condition holds."""
    if not condition:
        raise AssertionError(message)


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Turn an error that the core would end a run with into an ``AssertionError``."""
    try:
        yield
    except SelectMoEError as error:
        raise AssertionError(f"{name}: {error}") from error
