"""Splits of data sets in a folder: whole splits, parts such as ``train[:10%]``, and sums."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from datasets import Dataset, ReadInstruction, Value

from selectmoe_core import DataError, suggest

Data: TypeAlias = Any
"""A ``Dataset`` or an ``IterableDataset``: the library has no types."""
ROWS = 1024


def chosen(splits: Mapping[str, Data], split: str) -> list[Data]:
    """Return the pieces of data that a split names, in the syntax of ``datasets``.

    Raises:
        DataError: there is no such split, or the text is not a split.
    """
    names = list(splits) if split == "all" else [_name(piece) for piece in split.split("+")]
    for name in names:
        if name not in splits:
            raise DataError(
                f"the data set has no split '{name}'",
                hint=suggest(name, splits, otherwise="its splits"),
            )
    if "[" not in split:
        return [splits[name] for name in names]
    lengths = {name: _length(splits[name]) for name in names}
    try:
        pieces = ReadInstruction.from_spec(split).to_absolute(lengths)
    except (ValueError, AssertionError) as error:
        raise DataError(
            f"split = '{split}' cannot be read: {error}",
            hint="write a part as 'train[:10%]' or 'train[100:200]', and a sum as 'train+test'",
        ) from None
    return [_rows(splits[piece.splitname], piece.from_, piece.to) for piece in pieces]


def _name(piece: str) -> str:
    return piece.partition("[")[0].strip()


def _length(data: Data) -> int:
    if isinstance(data, Dataset):
        return len(data)
    return sum(len(batch) for batch in data.with_format("arrow").iter(ROWS))


def _rows(data: Data, start: int, stop: int) -> Data:
    if isinstance(data, Dataset):
        return data.select(range(start, stop))
    return data.skip(start).take(stop - start)


def differing_column(builder: Any, split: str) -> str | None:  # noqa: ANN401
    """Return which column has two types, and in which files; ``None`` if there is none.

    Args:
        builder: the folder's, of ``load_dataset_builder``.
        split: the split that is read.
    """
    from datasets import load_dataset

    files = [
        file
        for name, of_split in (builder.config.data_files or {}).items()
        if split == "all" or str(name) in [_name(piece) for piece in split.split("+")]
        for file in of_split
    ]
    first: dict[str, tuple[str, str]] = {}
    for file in files:
        stream = load_dataset(builder.name, data_files=[file], split="train", streaming=True)
        for column, kind in (stream.features or {}).items():
            now = kind.dtype if isinstance(kind, Value) else str(kind)
            before, place = first.setdefault(column, (now, file))
            if before != now:
                return f"the column '{column}' is {before} in {place} and {now} in {file}"
    return None
