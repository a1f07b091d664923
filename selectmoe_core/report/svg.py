"""A matplotlib figure as inline SVG, with the colours and the font of the page."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

INK, MUTED, RULE = "#010101", "#010102", "#010103"
OWN, RANDOM, PLAIN = "#010104", "#010105", "#010106"
SERIES = (OWN, RANDOM, PLAIN, "#010107", "#010108", "#010109")
"""Placeholders for colours: the page's style sheet defines them for light and dark."""

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)},
}
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "selectmoe",
    # A source may be called "$x^2$": its name is text, not mathematics.
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
}
WIDTH = 7.2
"""Inches; the page scales it to its column."""


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with the report's settings without changing matplotlib's own."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # The browser draws the text, so glyphs missing in matplotlib's font do not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def new_figure(height: float) -> Any:  # noqa: ANN401  (matplotlib has no types here)
    """Return an empty figure of the report's width and ``height`` inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def to_svg(figure: Any, label: str, prefix: str) -> str:  # noqa: ANN401
    """Return the figure as one ``<svg>`` element.

    Args:
        figure: the drawn figure.
        label: the text for a screen reader.
        prefix: makes the element ids unique among the pictures of a page.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text[text.index("<svg") :]
    text = re.sub(r"<[^<>]+>", lambda tag: _tag(tag.group(), prefix), text)
    head, _, body = text.partition(">")
    box = re.search(r'viewBox="([^"]*)"', head)
    size = box.group(1) if box else "0 0 1 1"
    return f'<svg role="img" aria-label="{_quoted(label)}" viewBox="{size}">{body.strip()}'


def _tag(tag: str, prefix: str) -> str:
    """Put the page's colours and unique ids into one tag; text between tags is not changed."""
    tag = re.sub(r' id="([^"]*)"', rf' id="{prefix}-\1"', tag)
    tag = re.sub(r"url\(#", f"url(#{prefix}-", tag)
    tag = re.sub(r'href="#', f'href="#{prefix}-', tag)
    tag = re.sub(r"font: [^;\"]*?(\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \1px", tag)
    for colour, variable in _VARIABLES.items():
        tag = tag.replace(colour, f"var({variable})")
    return tag


def _quoted(text: str) -> str:
    replaced: Mapping[str, str] = {"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;"}
    return "".join(replaced.get(letter, letter) for letter in text)
