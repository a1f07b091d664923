"""Convert a checkpoint on disk, shard in, shard out: the model is never built."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from selectmoe_core.errors import StageError
from selectmoe_olmoe.checkpoint import CONFIG, INDEX, Checkpoint, gate_layers, open_shard
from selectmoe_olmoe.config import TrashcanConfig
from selectmoe_olmoe.growth import (
    check_gate,
    grow_gate,
    grown_config,
    grown_index,
    trash_count,
)

STATE = ".converting.json"
WEIGHTS = {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".index"}
MODE = 0o644


def convert_checkpoint(
    source: Checkpoint,
    out: Path,
    config: TrashcanConfig,
    seed: int,
    advance: Callable[[float], None] = lambda _: None,
) -> int:
    """Write the Select-MoE checkpoint of ``source`` into ``out``; return the bytes of its shards.

    Every shard is written under a temporary name and renamed when complete, so an interrupted
    conversion of the same source with the same options goes on with the next shard. ``config.json``
    comes last: a folder without it is not finished. ``advance`` is told the bytes done.

    Raises:
        ModelError: A gate that cannot grow, a damaged shard.
        StageError: The disk is full.
    """
    if out.resolve() == source.folder.resolve():
        raise StageError(
            f"{out}: the converted model cannot replace its source", hint="name another folder"
        )
    _check_target(out)
    out.mkdir(parents=True, exist_ok=True)
    _check_space(source, out)
    _begin(source, out, config, seed)
    parameters = size = total = 0
    for shard in source.shards:
        target = out / shard
        rows, added = _convert_shard(source, shard, target, config, seed)
        parameters, size = parameters + rows, size + added
        total += target.stat().st_size
        advance(target.stat().st_size)
    _copy_small_files(source, out)
    if source.index is not None:
        write_json(out / INDEX, grown_index(source.index, parameters, size))
    grown = grown_config(source.config, trash_count(config, source.olmoe), config)
    write_json(out / CONFIG, grown)
    (out / STATE).unlink()
    return total


def _convert_shard(
    source: Checkpoint, shard: str, target: Path, config: TrashcanConfig, seed: int
) -> tuple[int, int]:
    """Write one shard unless it is there already; return the numbers and bytes of new rows."""
    olmoe = source.olmoe
    trash = trash_count(config, olmoe)
    gates = gate_layers(olmoe.num_hidden_layers)
    parameters = size = 0
    with open_shard(source.folder / shard) as reader:
        tensors = {}
        for name in reader.keys():  # noqa: SIM118  (a safetensors handle, not a mapping)
            if name not in gates and target.exists():
                continue
            tensors[name] = reader.get_tensor(name)
            if name in gates:
                check_gate(name, tensors[name], olmoe)
                new = trash * olmoe.hidden_size
                parameters, size = parameters + new, size + new * tensors[name].element_size()
                tensors[name] = grow_gate(
                    tensors[name], trash, config, seed=seed, layer=gates[name]
                )
        if not target.exists():
            _save(tensors, target, reader.metadata() or {"format": "pt"})
    return parameters, size


def _save(tensors: Mapping[str, Any], target: Path, metadata: Mapping[str, str]) -> None:
    partial = target.with_name(f".{target.name}.partial")
    with _full_disk(partial):
        save_file(dict(tensors), partial, dict(metadata))
        partial.chmod(MODE)  # save_file makes it readable by its owner alone
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file by rename, readable by everybody."""
    partial = path.with_name(f".{path.name}.partial")
    with _full_disk(partial):
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.chmod(MODE)
        partial.replace(path)


@contextmanager
def _full_disk(partial: Path) -> Iterator[None]:
    """Remove the partial file if writing fails, and say so plainly if the disk is full."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        full = getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
        if full or "os error 28" in str(error):
            raise StageError(
                f"{partial.parent}: no space left on the disk; finished shards are kept",
                hint="free some space, or set --outputs to another disk, and run it again",
            ) from error
        raise


def _check_target(out: Path) -> None:
    """Refuse a folder that holds a model of another kind: its shards would be overwritten."""
    if (out / CONFIG).is_file():
        found = json.loads((out / CONFIG).read_text(encoding="utf-8")).get("model_type")
        if found != "select_moe":
            raise StageError(
                f"{out}: there is another model already, of type {found!r}",
                hint="name another folder, or remove this one",
            )


def _check_space(source: Checkpoint, out: Path) -> None:
    done = sum((out / name).stat().st_size for name in source.shards if (out / name).exists())
    need = sum(_stamp(source.folder / name)[0] for name in source.shards) - done
    free = shutil.disk_usage(out).free
    if need > free:
        raise StageError(
            f"{out}: no space left on the disk: the model takes {need:,} bytes, {free:,} are free",
            hint="free some space, or set --outputs to another disk",
        )


def _begin(source: Checkpoint, out: Path, config: TrashcanConfig, seed: int) -> None:
    """Keep finished shards of the same conversion; remove those of another one."""
    files = [(name, _stamp(source.folder / name)) for name in sorted(source.shards)]
    text = json.dumps([config.model_dump(mode="json"), seed, dict(source.config), files])
    state = {"key": hashlib.sha256(text.encode()).hexdigest()}
    path = out / STATE
    same = path.is_file() and path.read_text(encoding="utf-8") == json.dumps(state, indent=2) + "\n"
    (out / CONFIG).unlink(missing_ok=True)
    if not same:
        for name in source.shards:
            (out / name).unlink(missing_ok=True)
    write_json(path, state)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _copy_small_files(source: Checkpoint, out: Path) -> None:
    """Copy tokenizer, generation settings, licence and the like; never weights."""
    skipped = {CONFIG, INDEX, *source.shards}
    for path in sorted(source.folder.iterdir()):
        hidden = path.name.startswith(".")
        if hidden or not path.is_file() or path.name in skipped or path.suffix in WEIGHTS:
            continue
        if path.name.endswith(".index.json"):
            continue
        partial = out / f".{path.name}.partial"
        with _full_disk(partial):
            shutil.copyfile(path, partial)
            partial.chmod(MODE)
            partial.replace(out / path.name)
