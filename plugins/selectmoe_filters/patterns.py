"""The filter ``regex``: patterns of RE2, whose time is in proportion to the text."""

import numpy as np

from selectmoe_core import Example, Job, Marks
from selectmoe_core.data import Pool
from selectmoe_filters.config import RegexConfig
from selectmoe_filters.expressions import compiled
from selectmoe_filters.rows import counted
from selectmoe_filters.texts import parts


class Regex:
    """Marks examples in which a pattern is found; see ``RegexConfig``."""

    def __init__(self, config: RegexConfig) -> None:
        self.config = config
        self._patterns = [(pattern, compiled(pattern)) for pattern in config.patterns]

    def mark(self, pool: Pool, job: Job) -> Marks:
        """Return the rows to leave out, each with the pattern that says so."""
        rows: list[int] = []
        reasons: list[str] = []
        for row, example in counted(pool, job, "regex"):
            reason = self._reason(example)
            if reason is not None:
                rows.append(row)
                reasons.append(reason)
        return Marks.left_out(np.array(rows, dtype=np.int64), reasons)

    def _reason(self, example: Example) -> str | None:
        texts = [message.content for message in parts(example, self.config.text)]
        for name, pattern in self._patterns:
            if any(pattern.search(text) is not None for text in texts):
                return None if self.config.keep else f"matches {name}"
        return "matches no pattern" if self.config.keep else None
