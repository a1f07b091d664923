"""Convert a checkpoint on disk shard by shard: the model is never built."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selectmoe_core import ModelError, StageError, inside, write_json
from selectmoe_core.models import CONFIG, INDEX, SELECTOR, read_object
from selectmoe_olmoe.config import TrashcanConfig
from selectmoe_olmoe.convert.checkpoint import Checkpoint, open_shard
from selectmoe_olmoe.convert.file_copy import PIECE, copy_run, read_at, readers, write_at
from selectmoe_olmoe.convert.layout import Layout, Place
from selectmoe_olmoe.convert.trash_rows import (
    check_finite,
    check_gate,
    decoded,
    encoded,
    grown_config,
    grown_index,
    trash_count,
    trash_rows,
)

STATE = ".converting.json"
LOCK = ".converting.lock"
WEIGHTS = {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".index"}


@dataclass(frozen=True)
class _Shard:
    """One shard to write.

    Attributes:
        source: the shard of the original.
        target: the path of the converted shard.
        before: the original's layout.
        after: the converted shard's layout.
        gates: name of each gate in it -> its layer.
    """

    source: Path
    target: Path
    before: Layout
    after: Layout
    gates: Mapping[str, int]

    @property
    def partial(self) -> Path:
        """The path to write to until it is complete."""
        return self.target.with_name(f".{self.target.name}.partial")

    @property
    def done(self) -> bool:
        """Whether it already exists with its full length."""
        return self.target.is_file() and self.target.stat().st_size == self.after.size


def convert_checkpoint(
    source: Checkpoint,
    out: Path,
    config: TrashcanConfig,
    seed: int,
    selector: Mapping[str, Any],
    advance: Callable[[float], None] = lambda _: None,
) -> int:
    """Write the Select-MoE checkpoint of ``source`` into ``out``; return the bytes of its shards.

    Every shard is written under a temporary name and renamed when complete, so an interrupted
    conversion of the same source with the same options continues with the next shard.
    ``config.json`` and ``selector``, the content of ``selector.json``, come last: a folder without
    them is not finished. As after ``cp``, the kernel writes to the disk later. ``advance`` is
    called with the bytes done.

    Raises:
        ModelError: a gate cannot be expanded, or a shard is damaged.
        StageError: The disk is full, or another conversion writes into ``out``.
    """
    if out.resolve() == source.folder.resolve():
        raise StageError(
            f"{out}: the converted model cannot replace its source", hint="name another folder"
        )
    _check_target(out, source)
    small = _small_files(source)
    trash = trash_count(config, source.shape)
    shards = [_planned(source, name, out, trash) for name in source.shards]
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        _check_space(shards, out)
        _begin(source, out, config, seed)
        _write_shards(out, [shard for shard in shards if not shard.done], config, seed, advance)
        _copy_small_files(small, out)
        if source.index is not None:
            _write_json(out / INDEX, _index(source, source.index, shards, trash))
        _write_json(out / CONFIG, grown_config(source.config, source.family, trash, config))
        _write_json(out / SELECTOR, selector)
        (out / STATE).unlink()
    return sum(shard.after.size for shard in shards)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Lock a folder for writing: two conversions would write into the same partial files."""
    from filelock import FileLock, Timeout

    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StageError(
            f"{out}: another conversion is writing into this folder",
            hint="wait until it has ended, or name another folder",
        ) from None
    try:
        yield
    finally:
        # While the lock is held: afterwards the file may belong to another conversion.
        (out / LOCK).unlink(missing_ok=True)
        lock.release()


def _index(
    source: Checkpoint, index: Mapping[str, Any], shards: Sequence[_Shard], trash: int
) -> dict[str, Any]:
    gates = [shard.before.places[name] for shard in shards for name in shard.gates]
    parameters = trash * source.shape.hidden * len(gates)
    size = trash * sum((gate.stop - gate.start) // gate.shape[0] for gate in gates)
    return grown_index(index, parameters, size)


def _planned(source: Checkpoint, name: str, out: Path, trash: int) -> _Shard:
    """Read and check a shard's header and its gates."""
    path = source.folder / name
    before = Layout.read(path)
    layers = source.gates
    gates = {gate: layers[gate] for gate in before.places if gate in layers}
    for gate in gates:
        place = before.places[gate]
        check_gate(gate, place, source.shape)
        content = read_at(path, before.begin + place.start, place.stop - place.start)
        check_finite(path, gate, place.dtype, content)
    after = before.grown(dict.fromkeys(gates, trash))
    target = inside(out, name, where=f"{source.folder}: the shard")
    return _Shard(path, target, before, after, gates)


def _write_shards(
    out: Path,
    shards: Sequence[_Shard],
    config: TrashcanConfig,
    seed: int,
    advance: Callable[[float], None],
) -> None:
    """Let threads copy the shards in order, each in pieces, and add the new rows."""
    with _clean(out, *(shard.partial for shard in shards)), readers() as pool:
        copies = [_begin_copies(shard, pool) for shard in shards]
        for shard, pieces in zip(shards, copies, strict=True):
            _write_rows(shard, config, seed)
            for piece in pieces:
                advance(piece.result())
            _finish(shard)


def _begin_copies(shard: _Shard, pool: Executor) -> "list[Future[int]]":
    shard.partial.write_bytes(shard.after.header())
    return [
        pool.submit(copy_run, shard.source, shard.partial, piece)
        for run in shard.before.runs(shard.after)
        for piece in run.pieces(PIECE)
    ]


def _write_rows(shard: _Shard, config: TrashcanConfig, seed: int) -> None:
    for name, layer in shard.gates.items():
        old, new = shard.before.places[name], shard.after.places[name]
        shape = (new.shape[0] - old.shape[0], new.shape[1])
        experts = _experts(shard, old) if config.trash_can_init == "experts" else None
        rows = trash_rows(shape, config, seed=seed, layer=layer, experts=experts)
        at = shard.after.begin + new.start + (old.stop - old.start)
        write_at(shard.partial, at, encoded(rows, old.dtype))


def _experts(shard: _Shard, gate: Place) -> np.ndarray:
    """Return the rows of a gate, fp32 ``[experts, hidden]``."""
    start = shard.before.begin + gate.start
    content = read_at(shard.source, start, gate.stop - gate.start)
    return decoded(content, gate.dtype).reshape(gate.shape)


def _finish(shard: _Shard) -> None:
    """Check the written file with safetensors, and give it its final name."""
    found = shard.partial.stat().st_size
    if found != shard.after.size:
        raise StageError(
            f"{shard.partial}: it has {found:,} bytes after {shard.after.size:,} were written",
            hint="does another program write here? Convert into a separate folder",
        )
    with open_shard(shard.partial, "np") as written:
        assert set(written.keys()) == set(shard.after.places)
    shard.partial.replace(shard.target)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file; report a full disk plainly."""
    with _clean(path.parent):
        write_json(path, content)


@contextmanager
def _clean(folder: Path, *partials: Path) -> Iterator[None]:
    """If writing into a folder fails, remove the partial files; report a full disk plainly."""
    try:
        yield
    except BaseException as error:
        for partial in partials:
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StageError(
                f"{folder}: no space left on the disk; finished shards are kept",
                hint="free some space, or set --outputs to another disk, and run it again",
            ) from error
        raise


def _check_target(out: Path, source: Checkpoint) -> None:
    """Refuse a folder with another kind of model, or with links, which may point anywhere."""
    for path in out.iterdir() if out.is_dir() else ():
        if path.is_symlink():
            raise StageError(
                f"{path} is a link: a conversion writes only into its own folder",
                hint="remove the link, or name another folder",
            )
    if (out / CONFIG).exists():
        found = read_object(out / CONFIG).get("model_type")
        if found != source.family.selector_type:
            raise StageError(
                f"{out} already contains another model, of type {found!r}",
                hint="name another folder, or remove this one",
            )


def _check_space(shards: Sequence[_Shard], out: Path) -> None:
    need = sum(shard.after.size for shard in shards if not shard.target.exists())
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
    same = path.is_file() and read_object(path) == state
    (out / CONFIG).unlink(missing_ok=True)
    if not same:
        for name in source.shards:
            (out / name).unlink(missing_ok=True)
    _write_json(path, state)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _small_files(source: Checkpoint) -> list[Path]:
    """Return tokenizer, generation settings, licence and the like; never weights.

    Raises:
        ModelError: one of them is a link to a file elsewhere, whose content must not be copied. In
            the hub's cache every file is a link to the model's own blobs.
    """
    folder = source.folder.resolve()
    home = folder.parent.parent if folder.parent.name == "snapshots" else folder
    skipped = {CONFIG, INDEX, SELECTOR, *source.shards}
    found = []
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") or path.name.endswith(".index.json")
        if hidden or not path.is_file() or path.name in skipped or path.suffix in WEIGHTS:
            continue
        hint = "put the file itself there, or remove the link"
        inside(home, path.resolve(), where=str(path), error=ModelError, hint=hint)
        found.append(path)
    return found


def _copy_small_files(paths: Sequence[Path], out: Path) -> None:
    for path in paths:
        partial = out / f".{path.name}.partial"
        with _clean(out, partial):
            shutil.copyfile(path, partial)
            partial.replace(out / path.name)
