"""What this plugin offers."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from selectmoe_core import About, Component, Need, Reader, Scorer, hookimpl, load
from selectmoe_readers.config import (
    CsvConfig,
    FileScoresConfig,
    HubConfig,
    JsonlConfig,
    LessConfig,
    ParquetConfig,
)


@hookimpl
def selectmoe_readers() -> list[Component[Any, Reader]]:
    """Offer ``jsonl``, ``csv``, ``parquet``, ``less`` and ``hub``."""
    lines = "reads the files once, line by line; memory does not grow with their size"
    batches = "reads the files once, a batch of rows at a time"
    hub = "downloads the data set once, or streams it"
    return [
        Component(
            "jsonl",
            JsonlConfig,
            load("selectmoe_readers.jsonl:JsonlReader"),
            About(cost=lines),
            files=_jsonl_files,
            sources=_sources(_jsonl_files),
        ),
        Component(
            "csv",
            CsvConfig,
            load("selectmoe_readers.table:CsvReader"),
            About(cost=batches),
            files=_csv_files,
            sources=_sources(_csv_files),
        ),
        Component(
            "parquet",
            ParquetConfig,
            load("selectmoe_readers.parquet:ParquetReader"),
            About(cost=batches),
            files=_parquet_files,
            sources=_sources(_parquet_files),
        ),
        Component(
            "less",
            LessConfig,
            load("selectmoe_readers.less:LessReader"),
            About(cost=lines, paper="LESS, Xia et al. 2024, https://arxiv.org/abs/2402.04333"),
            files=_less_files,
            sources=_less_sources,
        ),
        Component(
            "hub",
            HubConfig,
            load("selectmoe_readers.hub:HubReader"),
            About(cost=hub),
            files=_hub_files,
        ),
    ]


@hookimpl
def selectmoe_scorers() -> list[Component[Any, Scorer]]:
    """Offer ``file``."""
    return [
        Component(
            "file",
            FileScoresConfig,
            load("selectmoe_readers.file_scores:FileScorer"),
            About(
                meaning="what somebody else's scorer found",
                range="that of the file; higher is better",
                cost="reads the files once; some 50 bytes of memory per row of them",
                paper="OpenDataArena, Cai et al. 2025, https://arxiv.org/abs/2512.14051",
            ),
            needs=lambda _: frozenset({Need.POOL}),
            files=_score_files,
            # How many examples somebody else scored is a fact about the file, not a failure.
            max_skipped=lambda config: 1.0 if config.missing == "skip" else 0.01,
        )
    ]


def _score_files(config: FileScoresConfig) -> Iterable[Path]:
    from selectmoe_readers.files import JSONL, PARQUET, present

    return present(config.path, JSONL + PARQUET)


def _jsonl_files(config: JsonlConfig) -> Iterable[Path]:
    from selectmoe_readers.files import JSONL, present

    return present(config.path, JSONL)


def _csv_files(config: CsvConfig) -> Iterable[Path]:
    from selectmoe_readers.files import TABLES, present

    return present(config.path, TABLES)


def _parquet_files(config: ParquetConfig) -> Iterable[Path]:
    from selectmoe_readers.files import PARQUET, present

    return present(config.path, PARQUET)


def _less_files(config: LessConfig) -> Iterable[Path]:
    from selectmoe_readers.less import present

    return present(config)


def _hub_files(config: HubConfig) -> Iterable[Path]:
    # The folder as a whole: its name, which gives the source, counts as well as its content.
    return (config.path,) if config.path else ()


def _less_sources(config: LessConfig) -> Iterable[str]:
    from selectmoe_readers.less import sources_of

    return [config.source] if config.source else sources_of(config)


def _sources(
    files: Callable[[Any], Iterable[Path]],
) -> Callable[[JsonlConfig | CsvConfig | ParquetConfig], Iterable[str]]:
    """Return a function that names the sources of a component from the names of its files."""

    def sources(config: JsonlConfig | CsvConfig | ParquetConfig) -> Iterable[str]:
        from selectmoe_readers.files import sources_of

        return [config.source] if config.source else sources_of(list(files(config)))

    return sources
