"""A file that is one JSON array: its elements, one after the other, never all in memory."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from selectmoe_core import DataError

BUFFER = 1 << 20
SPACE = " \t\r\n"


def is_array(head: bytes) -> bool:
    """Return whether a file that begins so is one JSON array of objects.

    A line that is a whole array and is followed by another line is a row of JSON lines.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text.startswith(b"[") or text[1:].lstrip()[:1] not in (b"{", b"]"):
        return False
    line, _, others = text.partition(b"\n")
    return not (line.rstrip().endswith(b"]") and others.strip())


class _Text:
    """The text of a file from where it is read on, a bounded stretch at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.place, self.ended = "", 0, False

    def more(self) -> None:
        """Read on: as much again as there is, so that a long element is not read too often."""
        data = self._stream.read(max(BUFFER, len(self.text) - self.place))
        self.ended = not data
        decoded = self._decoder.decode(data, final=self.ended)
        self.text, self.place = self.text[self.place :] + decoded, 0

    def next_character(self, left_out: str = SPACE) -> str:
        """Return the next character that is not left out, and stand before it; empty at the end."""
        while True:
            while self.place < len(self.text):
                if self.text[self.place] not in left_out:
                    return self.text[self.place]
                self.place += 1
            if self.ended:
                return ""
            self.more()


def elements_of(stream: BinaryIO, path: Path, limit: int) -> Iterator[tuple[int, object]]:
    """Yield each element with its number, from 1.

    Raises:
        DataError: the array is broken, or an element is longer than ``limit`` characters.
    """
    text, number = _Text(stream), 0
    try:
        text.next_character()
        text.place += 1  # the opening bracket
        while (following := text.next_character()) != "]":
            if number and following != ",":
                raise _broken(path, number, "a comma or the closing bracket is missing after it")
            if number:
                text.place += 1
                text.next_character()
            number += 1
            yield number, _element(text, path, number, limit)
        text.place += 1
        if text.next_character():
            raise _broken(path, number, "there is more text after the closing bracket")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 behind row {number}: byte 0x{error.object[error.start]:02x}",
            hint="save the file as UTF-8",
        ) from None


def _element(text: _Text, path: Path, number: int, limit: int) -> object:
    decoder = json.JSONDecoder()
    while True:
        try:
            value, end = decoder.raw_decode(text.text, text.place)
            if end < len(text.text) or text.ended:
                text.place = end
                return value
        except json.JSONDecodeError as error:
            if text.ended:
                raise _broken(path, number, f"not valid JSON: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            nested = isinstance(error, RecursionError)
            reason = "nested too deeply" if nested else str(error)
            raise _broken(path, number, f"not usable JSON: {reason}") from None
        if len(text.text) - text.place > limit:
            reason = f"it is broken, or longer than {limit:,} characters (max_line_bytes)"
            raise _broken(path, number, reason)
        text.more()


def _broken(path: Path, number: int, reason: str) -> DataError:
    return DataError(
        f"{path}: row {number} of the JSON array: {reason}",
        hint="fix the file, or write one object a line (JSON lines): jq -c '.[]' FILE",
    )
