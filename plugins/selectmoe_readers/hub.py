"""Hugging Face data sets, from the hub or from a folder."""

import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import datasets
import pyarrow as pa
import yaml  # type: ignore[import-untyped]
from datasets import DatasetDict, IterableDataset, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from selectmoe_core import DataError, Job, RawExample, RawPair, Reject, suggest, utf8_text
from selectmoe_readers.config import HubConfig
from selectmoe_readers.files import require
from selectmoe_readers.parquet import examples_of
from selectmoe_readers.preferences import PairRows
from selectmoe_readers.rows import Made, MakeRows, Rows, RowsOf
from selectmoe_readers.splits import Data, chosen, differing_column

BATCH_ROWS = 512
FAILURES = (
    *(DatasetsError, EntryNotFoundError, pa.ArrowException, yaml.YAMLError),
    *HfHubHTTPError.__bases__,  # OSError, and HTTPError of the library that the hub's client uses
    *(EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
    *(ImportError, KeyError, RuntimeError, TypeError, ValueError),
)
"""What the library raises for data that it cannot find, fetch, unpack or read."""
SAVED = ("state.json", "dataset_dict.json")
"""Files that ``save_to_disk`` writes into a folder."""
TRAIN = "train"
"""The split of a saved data set without named splits."""


class HubReader:
    """Reads a split of a data set through the ``datasets`` library.

    The library handles the token, the cache, a mirror (``HF_ENDPOINT``) and offline mode
    (``HF_HUB_OFFLINE``).
    """

    def __init__(self, config: HubConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:  # noqa: ARG002
        """Raise a ``DataError`` if the data set or its split does not exist."""
        config = self.config
        if config.path:
            self._require_folder()
            if self._saved:
                chosen(self._local(), config.split)
            return
        try:
            builder = load_dataset_builder(
                config.name, config.config_name, revision=config.dataset_revision
            )
        except FAILURES as error:
            raise self._error(error) from error
        split = config.split.partition("[")[0]
        known = list(builder.info.splits or ())
        if known and "+" not in config.split and split not in {*known, "all"}:
            raise DataError(
                f"the data set {config.name} has no split '{split}'", hint=suggest(split, known)
            )

    def read(self, job: Job) -> Iterator[RawExample | Reject]:  # noqa: ARG002
        """Yield every row as an example or as a reject with its reason."""
        yield from self._all(Rows)

    def pairs(self, job: Job) -> Iterator[RawPair | Reject]:  # noqa: ARG002
        """Yield every row as two answers to one prompt, or as a reject with its reason."""
        yield from self._all(PairRows)

    def _all(self, make: MakeRows[Made]) -> Iterator[Made | Reject]:
        try:
            pieces = self._load()
        except FAILURES as error:
            raise self._error(error) from error
        config = self.config
        name = config.name.rpartition("/")[2] if config.name else self._folder.name
        rows = make(config, utf8_text(name))
        shown, start = f"{utf8_text(name)}/{config.split}", 0
        for data in pieces:
            for found in self._rows(data, rows, shown, start):
                start += 1
                yield found

    def _rows(
        self, data: Data, rows: RowsOf[Made], shown: str, start: int
    ) -> Iterator[Made | Reject]:
        columns = data.column_names or ()
        wanted = [column for column in rows.columns if column in columns]
        if wanted:  # images and the like are never decoded
            data = data.select_columns(wanted)
        if isinstance(data, IterableDataset):
            yield from self._streamed(data, rows, shown, start)
            return
        for table in data.with_format("arrow").iter(BATCH_ROWS):
            for batch in table.to_batches():
                yield from examples_of(batch, rows, shown, start)
                start += batch.num_rows

    def _streamed(
        self, data: IterableDataset, rows: RowsOf[Made], shown: str, start: int
    ) -> Iterator[Made | Reject]:
        remaining = enumerate(data, start=start + 1)
        while True:
            try:
                number, row = next(remaining)
            except StopIteration:
                return
            except FAILURES as error:
                raise self._error(error) from error
            yield rows.example(row, f"{shown}:{number}")

    @property
    def _folder(self) -> Path:
        assert self.config.path is not None
        return self.config.path

    def _load(self) -> list[Data]:
        """Return the split, piece by piece."""
        config = self.config
        if config.path is not None:
            return chosen(self._local(), config.split)
        if config.streaming and any(sign in config.split for sign in "[+"):
            # The library slices only what it has on disk.
            return chosen(
                load_dataset(*self._named, streaming=True, **self._revision), config.split
            )
        data = load_dataset(
            *self._named, split=config.split, streaming=config.streaming, **self._revision
        )
        return [data]

    @property
    def _named(self) -> tuple[str | None, str | None]:
        return self.config.name, self.config.config_name

    @property
    def _revision(self) -> dict[str, str | None]:
        return {"revision": self.config.dataset_revision}

    def _local(self) -> Mapping[str, Data]:
        """Return the splits of a folder by name."""
        self._require_folder()
        place = str(self._folder)
        try:
            if not self._saved:
                # Streamed: a folder that is on this disk already is not copied into the cache.
                return dict(load_dataset(place, self.config.config_name, streaming=True))
            saved = datasets.load_from_disk(place)
        except (AttributeError, *FAILURES) as error:  # a file of JSON may hold anything
            raise self._error(error) from error
        return saved if isinstance(saved, DatasetDict) else {str(saved.split or TRAIN): saved}

    @property
    def _saved(self) -> bool:
        return any((self._folder / name).is_file() for name in SAVED)

    def _require_folder(self) -> None:
        require(self._folder)
        if not self._folder.is_dir():
            raise DataError(
                f"{self._folder} is a file, not a folder",
                hint='read a file with use = "jsonl", "csv" or "parquet"',
            )

    def _error(self, error: Exception) -> DataError:
        place = self.config.name or self.config.path
        if isinstance(error, OSError) and (cache := _cache_of(error)):
            return DataError(
                f"the cache of the datasets library, {cache}, cannot be used: {error.strerror}",
                hint="set the environment variable HF_HOME to a writable folder",
            )
        if self.config.path and "cast" in str(error) and (found := self._differing()):
            return DataError(
                f"the files of {place} differ: {found}",
                hint='read them with use = "jsonl", "csv" or "parquet", file by file',
            )
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        hint = "check name, config_name, split and dataset_revision; offline, only a data set "
        hint += "that was loaded before can be used; a gated one needs a token (hf auth login)"
        if self.config.path:
            hint = "'path' must be a folder of data files, or one that save_to_disk wrote"
        return DataError(f"the data set {place} cannot be loaded: {what}", hint=hint)

    def _differing(self) -> str | None:
        try:
            builder = load_dataset_builder(str(self._folder), self.config.config_name)
            return differing_column(builder, self.config.split)
        except FAILURES:  # the first error is reported; this only looks for its cause
            return None


def _cache_of(error: OSError) -> Path | None:
    """Return the cache folder that an error is about."""
    file = Path(str(error.filename or ""))
    for cache in map(Path, (datasets.config.HF_DATASETS_CACHE, datasets.config.HF_CACHE_HOME)):
        if file.is_absolute() and (cache.is_relative_to(file) or file.is_relative_to(cache)):
            return cache
    return None
