"""Safe output: text from data, file names and plugins cannot control the terminal.

A terminal follows escape sequences: they set its title, move its cursor, hide text or paste into
its input. Everything that selectmoe prints or logs goes through ``printable``; only rich, which
draws bars and colours, writes to the stream below.
"""

import logging
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from selectmoe_core.runtime.processes import Ended

UNPRINTABLE = re.compile(
    # Control characters except tab and newline, direction marks, half surrogates.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return text in which every character that controls a terminal is written as its escape.

    Tabs and newlines are kept: messages have several lines.
    """
    return UNPRINTABLE.sub(_escaped, text)


def one_line(text: str) -> str:
    """Return printable text without tabs and newlines, for cells and labels."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class SafeStream:
    """A text stream that makes text printable before it writes to ``raw``.

    Args:
        raw: the stream.
        ends: raise ``Ended`` if ``raw`` is a pipe that nobody reads any more. What is written to
            stderr may come from anywhere, also from a plugin, which has done nothing wrong.
    """

    def __init__(self, raw: TextIO, *, ends: bool = False) -> None:
        self.raw = raw
        self.ends = ends

    def write(self, text: str) -> int:
        """Write printable text, in the characters that the stream's encoding has."""
        shown = printable(text)
        encoding = getattr(self.raw, "encoding", None) or "utf-8"
        try:
            self.raw.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        except BrokenPipeError:
            if self.ends:
                raise Ended(signal.SIGPIPE) from None
            raise
        return len(text)

    def writelines(self, lines: Any) -> None:  # noqa: ANN401
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.raw, name)


def raw_stream(stream: Any) -> Any:  # noqa: ANN401
    """Return the stream below a safe one, for rich, which writes its own escape sequences."""
    return stream.raw if isinstance(stream, SafeStream) else stream


@contextmanager
def safe_streams() -> Iterator[None]:
    """Make stdout and stderr safe inside the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        stream if isinstance(stream, SafeStream) else SafeStream(stream, ends=stream is before[1])
        for stream in before
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class LogFormatter(logging.Formatter):
    """Formats log records as printable text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line and the lines of a traceback."""
        return printable(super().format(record))
