"""Positions of the tensors in a safetensors file, before and after some are expanded.

A safetensors file is eight bytes (the length of its header, little-endian), the header (JSON) and
the tensors' bytes. safetensors itself checks every file, before and after; it does not give the
positions of tensors, which are read here.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

METADATA = "__metadata__"
PREFIX = 8


@dataclass(frozen=True)
class Place:
    """One tensor of a file.

    Attributes:
        dtype: as safetensors writes it, such as ``BF16``.
        shape: its dimensions.
        start: its first byte, counted from the start of the tensors.
        stop: the byte after its last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Run:
    """Bytes that are contiguous in both files.

    Attributes:
        source: where they begin in the source file.
        target: where they begin in the target file.
        size: the number of bytes.
    """

    source: int
    target: int
    size: int

    def pieces(self, size: int) -> Iterator["Run"]:
        """Yield the run in pieces of at most ``size`` bytes."""
        for done in range(0, self.size, size):
            yield Run(self.source + done, self.target + done, min(size, self.size - done))


@dataclass(frozen=True)
class Layout:
    """The header of a safetensors file.

    Attributes:
        places: tensor name -> its place, in the order of the bytes.
        metadata: the metadata of the file, such as ``{"format": "pt"}``.
        begin: where the tensors begin in the file.
    """

    places: Mapping[str, Place]
    metadata: Mapping[str, str]
    begin: int

    @classmethod
    def read(cls, path: Path) -> "Layout":
        """Read the header of a file that safetensors has opened without an error."""
        with path.open("rb") as file:
            length = int.from_bytes(file.read(PREFIX), "little")
            header = json.loads(file.read(length))
        metadata = header.pop(METADATA, {})
        places = {
            name: Place(entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in header.items()
        }
        ordered = dict(sorted(places.items(), key=lambda item: item[1].start))
        return cls(ordered, metadata, PREFIX + length)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.begin + max((place.stop for place in self.places.values()), default=0)

    def grown(self, names: Mapping[str, int]) -> "Layout":
        """Return the layout after adding rows to each named tensor, in the same order."""
        places: dict[str, Place] = {}
        at = 0
        for name, place in self.places.items():
            size = place.stop - place.start
            shape = place.shape
            if more := names.get(name, 0):
                size += size // shape[0] * more
                shape = (shape[0] + more, *shape[1:])
            places[name] = replace(place, shape=shape, start=at, stop=at + size)
            at += size
        metadata = self.metadata or {"format": "pt"}
        begin = len(_header(places, metadata))
        return Layout(places, metadata, begin)

    def header(self) -> bytes:
        """Return the bytes before the tensors, as safetensors writes them."""
        return _header(self.places, self.metadata)

    def runs(self, grown: "Layout") -> Iterator[Run]:
        """Yield what must be copied into the expanded file; new rows come between the runs."""
        run = Run(self.begin, grown.begin, 0)
        for name, place in self.places.items():
            source = self.begin + place.start
            target = grown.begin + grown.places[name].start
            if target - source != run.target - run.source:
                yield run
                run = Run(source, target, 0)
            run = replace(run, size=run.size + place.stop - place.start)
        yield run


def _header(places: Mapping[str, Place], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, Any] = {METADATA: dict(metadata)}
    for name, place in places.items():
        offsets = [place.start, place.stop]
        shape = list(place.shape)
        entries[name] = {"dtype": place.dtype, "shape": shape, "data_offsets": offsets}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % PREFIX)
    return len(text).to_bytes(PREFIX, "little") + text
