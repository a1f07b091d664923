"""The filter ``regex``: patterns of RE2, whose time is in proportion to the text."""

from typing import Any

import numpy as np
import re2

from selectmoe_core import Example, Job, Marks
from selectmoe_core.data import Pool
from selectmoe_filters.config import RegexConfig
from selectmoe_filters.texts import parts

BLOCK = 4096
"""Rows after which progress is shown."""


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


class Regex:
    """Marks examples in which a pattern is found; see ``RegexConfig``."""

    def __init__(self, config: RegexConfig) -> None:
        self.config = config
        self._patterns = [(pattern, compiled(pattern)) for pattern in config.patterns]

    def mark(self, pool: Pool, job: Job) -> Marks:
        """Return the rows to leave out, each with the pattern that says so."""
        rows: list[int] = []
        reasons: list[str] = []
        with job.progress.task("regex", len(pool)) as advance:
            for row, example in enumerate(pool.examples()):
                reason = self._reason(example)
                if reason is not None:
                    rows.append(row)
                    reasons.append(reason)
                if row % BLOCK == BLOCK - 1:
                    advance(BLOCK)
        return Marks.left_out(np.array(rows, dtype=np.int64), reasons)

    def _reason(self, example: Example) -> str | None:
        texts = [message.content for message in parts(example, self.config.text)]
        for name, pattern in self._patterns:
            if any(pattern.search(text) is not None for text in texts):
                return None if self.config.keep else f"matches {name}"
        return "matches no pattern" if self.config.keep else None
