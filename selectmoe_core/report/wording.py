"""How numbers are written in the report."""

import math
import re

NOTHING = "\N{EN DASH}"
LARGE = 1e9
TIMES = "\N{MULTIPLICATION SIGN}"


def number(value: float | None, digits: int = 4) -> str:
    """Return ``value`` with this many significant digits; a dash for no value."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if 10 ** (digits - 1) <= abs(value) < LARGE:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}"


def count(value: int | None) -> str:
    """Return a whole number with separators for thousands."""
    return NOTHING if value is None else f"{value:,}"


def percent(share: float | None) -> str:
    """Return a share in per cent, one decimal."""
    return NOTHING if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def times(factor: float) -> str:
    """Return a factor."""
    return NOTHING if not math.isfinite(factor) else f"{factor:.2f} {TIMES}"


def duration(seconds: float) -> str:
    """Return seconds in a readable form."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def measured(value: float, stderr: float | None) -> str:
    """Return a value with its standard error."""
    return f"{value:.4f}" if stderr is None else f"{value:.4f} ± {stderr:.4f}"


def signed(value: float, stderr: float | None) -> str:
    """Return a difference with its sign and its standard error."""
    return f"{value:+.4f}" if stderr is None else f"{value:+.4f} ± {stderr:.4f}"


def correlation(value: float) -> str:
    """Return a correlation with its sign."""
    return f"{value:+.2f}" if math.isfinite(value) else NOTHING


def one_line(text: str) -> str:
    """Return text on one line, without characters that control a terminal."""
    return "".join(c for c in re.sub(r"\s+", " ", text).strip() if c.isprintable())


def plural(amount: int, word: str) -> str:
    """Return ``1 example``, ``2 examples``."""
    return f"{amount:,} {word}" if amount == 1 else f"{amount:,} {word}s"
