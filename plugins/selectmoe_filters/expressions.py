"""Regular expressions of RE2, whose time is in proportion to the text."""

from typing import Any

import re2


def compiled(pattern: str) -> Any:  # noqa: ANN401  (the package has no types)
    """Compile a pattern.

    Raises:
        ValueError: RE2 cannot read it, or it is found in every text.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        found = re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise ValueError(f"RE2 cannot read the pattern {pattern!r}: {text}") from None
    if found.search("") is not None:
        raise ValueError(f"the pattern {pattern!r} is found in every text, an empty one too")
    return found
