"""Files for readers, and what readers make of them."""

import gzip
import json
from pathlib import Path

import zstandard

from selectmoe_core import Job, RawExample
from selectmoe_core.config import parse
from selectmoe_readers import plugin

COMPONENTS = {component.name: component for component in plugin.selectmoe_readers()}
JOB = Job(seed=0)


def read(component_name, /, **options):
    """Return all that a reader gives, after its check."""
    component = COMPONENTS[component_name]
    reader = component.build(parse(component.config, options, where="[pool]"))
    reader.check(JOB)
    return list(reader.read(JOB))


def texts(row: RawExample) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in row.messages]


def line(row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def chat(*turns: str, **more):
    roles = ("user", "assistant") * len(turns)
    pairs = zip(roles, turns, strict=False)
    return {"messages": [{"role": role, "content": text} for role, text in pairs], **more}


def write(path: Path, *rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(row if isinstance(row, bytes) else line(row) for row in rows))
    return path


def packed(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(
            data
        )
    path.write_bytes(data)
    return path
