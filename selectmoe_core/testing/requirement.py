"""Raising an ``AssertionError`` for a requirement that is not met."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

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


def require_facts(name: str, method: str, facts: object) -> None:
    """Require a mapping that JSON can hold, as the core writes it into ``artifact.json``."""
    require(isinstance(facts, Mapping), f"{name}: {method}() must return facts, got {facts!r}")
    try:
        json.dumps(facts, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(
            f"{name}: {method}() returned facts that are not JSON: {error}"
        ) from None


def weights_of(folder: Path) -> dict[str, bytes]:
    """Return the digest of each file of weights below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).digest()
        for path in sorted(folder.rglob("*.safetensors"))
    }


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Turn an error that would end a run into an ``AssertionError``."""
    try:
        yield
    except SelectMoEError as error:
        raise AssertionError(f"{name}: {error}") from error
