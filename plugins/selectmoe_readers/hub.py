"""Hugging Face data sets, from the hub or from a folder."""

from collections.abc import Iterator
from typing import Any

import datasets
from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_dataset_builder

from selectmoe_core import DataError, Job, RawExample, Reject, suggest
from selectmoe_readers.config import HubConfig
from selectmoe_readers.files import require
from selectmoe_readers.parquet import examples_of
from selectmoe_readers.rows import Rows, columns_of

BATCH_ROWS = 512
SAVED = ("state.json", "dataset_dict.json")
"""What ``save_to_disk`` leaves in a folder."""


class HubReader:
    """Reads a split of a data set through the ``datasets`` library.

    The token, the cache, a mirror (``HF_ENDPOINT``) and offline mode (``HF_HUB_OFFLINE``) are the
    library's own: what works there works here.
    """

    def __init__(self, config: HubConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:  # noqa: ARG002
        """Raise a ``DataError`` where the data set or its split is not there."""
        config = self.config
        if config.path:
            require(config.path)
            return
        try:
            builder = load_dataset_builder(
                config.name, config.config_name, revision=config.dataset_revision
            )
        except Exception as error:
            raise self._error(error) from error
        split = config.split.partition("[")[0]
        known = list(builder.info.splits or ())
        if known and "+" not in config.split and split not in {*known, "all"}:
            raise DataError(
                f"the data set {config.name} has no split '{split}'", hint=suggest(split, known)
            )

    def read(self, job: Job) -> Iterator[RawExample | Reject]:  # noqa: ARG002
        """Yield every row as an example or as a reject with its reason."""
        try:
            data = self._load()
        except Exception as error:
            raise self._error(error) from error
        config = self.config
        name = config.name.rpartition("/")[2] if config.name else config.path.name  # type: ignore[union-attr]
        rows = Rows(config, name)
        wanted = [column for column in columns_of(config) if column in (data.column_names or ())]
        if wanted:  # images and the like are never decoded
            data = data.select_columns(wanted)
        shown = f"{name}/{config.split}"
        if isinstance(data, IterableDataset):
            yield from self._streamed(data, rows, shown)
            return
        start = 0
        for table in data.with_format("arrow").iter(BATCH_ROWS):
            for batch in table.to_batches():
                yield from examples_of(batch, rows, shown, start)
                start += batch.num_rows

    def _streamed(
        self, data: IterableDataset, rows: Rows, shown: str
    ) -> Iterator[RawExample | Reject]:
        remaining = enumerate(data, start=1)
        while True:
            try:
                number, row = next(remaining)
            except StopIteration:
                return
            except Exception as error:
                raise self._error(error) from error
            yield rows.example(row, f"{shown}:{number}")

    def _load(self) -> Dataset | IterableDataset:
        config = self.config
        if config.path is None:
            return load_dataset(
                config.name,
                config.config_name,
                split=config.split,
                revision=config.dataset_revision,
                streaming=config.streaming,
            )
        require(config.path)
        if any((config.path / name).is_file() for name in SAVED):
            saved = datasets.load_from_disk(str(config.path))
            return _split_of(saved, config.split) if isinstance(saved, DatasetDict) else saved
        # Streamed: a folder that is on this disk already is not copied into the cache.
        return load_dataset(
            str(config.path), config.config_name, split=config.split, streaming=True
        )

    def _error(self, error: Exception) -> DataError:
        if isinstance(error, DataError):
            return error
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        hint = "look at name, config_name, split and dataset_revision; offline, only a data set "
        hint += "that was loaded before can be used; a gated one needs a token (hf auth login)"
        if self.config.path:
            hint = "'path' is a folder of data files, or one that save_to_disk wrote"
        place = self.config.name or self.config.path
        return DataError(f"the data set {place} cannot be loaded: {what}", hint=hint)


def _split_of(saved: Any, split: str) -> Dataset:  # noqa: ANN401  (datasets has no types)
    if split not in saved:
        raise DataError(f"the saved data set has no split '{split}'", hint=suggest(split, saved))
    return saved[split]
