"""The real type of a file by its first bytes, and what to do if it is the wrong one."""

from collections.abc import Collection

HEAD = 4096
"""Number of bytes that are checked."""
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""The first bytes of compressed data that the readers decompress."""

_UNPACK = "decompress it first"
_UTF8 = "save it as UTF-8: iconv -f {0} -t UTF-8 FILE > NEW_FILE"
_FETCH = "download the file again: this is not the data"
_LFS = "the data itself is missing; download it: git lfs pull"
_CONVERT = "write it as JSON lines or Parquet first"
_SAVED = 'read a folder that save_to_disk wrote with use = "hub", or write it as Parquet'

KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "a Parquet file", 'use = "parquet"'),
    (b"version https://git-lfs", "a Git LFS pointer", _LFS),
    (b"\xff\xfe\x00\x00", "UTF-32 text", _UTF8.format("UTF-32")),
    (b"\x00\x00\xfe\xff", "UTF-32 text", _UTF8.format("UTF-32")),
    (b"\xff\xfe", "UTF-16 text, as PowerShell writes it", _UTF8.format("UTF-16")),
    (b"\xfe\xff", "UTF-16 text", _UTF8.format("UTF-16")),
    (b"{\x00", "UTF-16 text", _UTF8.format("UTF-16LE")),
    (b"[\x00", "UTF-16 text", _UTF8.format("UTF-16LE")),
    (b"\x00{", "UTF-16 text", _UTF8.format("UTF-16BE")),
    (b"\x00[", "UTF-16 text", _UTF8.format("UTF-16BE")),
    (b"BZh", "bzip2-compressed", f"{_UNPACK}: bunzip2 FILE"),
    (b"\xfd7zXZ\x00", "xz-compressed", f"{_UNPACK}: unxz FILE"),
    (b"\x04\x22\x4d\x18", "lz4-compressed", f"{_UNPACK}: unlz4 FILE"),
    (b"PK\x03\x04", "a zip archive (or an Excel table)", f"{_UNPACK}: unzip FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"ARROW1", "an Arrow file", _SAVED),
    (b"\xff\xff\xff\xff", "an Arrow stream", _SAVED),
    (b"Obj\x01", "an Avro file", _CONVERT),
    (b"ORC", "an ORC file", _CONVERT),
    (b"\x89HDF", "an HDF5 file", _CONVERT),
    (b"SQLite format 3", "an SQLite database", _CONVERT),
    (b"%PDF", "a PDF document", _CONVERT),
    (b"<!DOCTYPE", "an HTML page", _FETCH),
    (b"<!doctype", "an HTML page", _FETCH),
    (b"<html", "an HTML page", _FETCH),
    (b"<?xml", "an XML file", _CONVERT),
)


def what_it_is(head: bytes) -> tuple[str, str] | None:
    """Return the type of a file that is not text and what to do; ``None`` if it may be text."""
    for begin, what, advice in KINDS:
        if head.startswith(begin):
            return what, advice
    if head[257:262] == b"ustar":
        return "a tar archive", f"{_UNPACK}: tar xf FILE"
    for begin, packing in PACKED.items():
        if head.startswith(begin):
            return f"{packing}-compressed", _UNPACK
    if head.count(0) * 5 > len(head):  # a single one is a bad row, not another type of file
        return "binary data, not text", _FETCH
    return None


def looks_like_table(head: bytes, columns: Collection[str]) -> str | None:
    """Return the first line of a file if it looks like the header of a CSV or TSV table."""
    line = (
        head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0].decode("utf-8", "replace")
    )
    if line.startswith(("{", "[")):
        return None
    for separator in ("\t", ",", ";"):
        names = [name.strip().strip('"') for name in line.split(separator)]
        if len(names) > 1 and any(name in columns for name in names):
            return line.strip()
    return None
