"""What this plugin offers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from selectmoe_core import About, Component, Reader, hookimpl, load
from selectmoe_readers.config import HubConfig, JsonlConfig, LessConfig, ParquetConfig


@hookimpl
def selectmoe_readers() -> list[Component[Any, Reader]]:
    """Offer ``jsonl``, ``parquet``, ``less`` and ``hub``."""
    lines = "reads the files once, line by line; memory does not grow with them"
    batches = "reads the files once, a batch of rows at a time"
    hub = "downloads the data set once, or streams it"
    return [
        Component(
            "jsonl",
            JsonlConfig,
            load("selectmoe_readers.jsonl:JsonlReader"),
            About(cost=lines),
            files=_jsonl_files,
        ),
        Component(
            "parquet",
            ParquetConfig,
            load("selectmoe_readers.parquet:ParquetReader"),
            About(cost=batches),
            files=_parquet_files,
        ),
        Component(
            "less",
            LessConfig,
            load("selectmoe_readers.less:LessReader"),
            About(cost=lines, paper="LESS, Xia et al. 2024, https://arxiv.org/abs/2402.04333"),
            files=_less_files,
        ),
        Component(
            "hub",
            HubConfig,
            load("selectmoe_readers.hub:HubReader"),
            About(cost=hub),
            files=_hub_files,
        ),
    ]


def _jsonl_files(config: JsonlConfig) -> Iterable[Path]:
    from selectmoe_readers.files import JSONL, present

    return present(config.path, JSONL)


def _parquet_files(config: ParquetConfig) -> Iterable[Path]:
    from selectmoe_readers.files import PARQUET, present

    return present(config.path, PARQUET)


def _less_files(config: LessConfig) -> Iterable[Path]:
    from selectmoe_readers.less import present

    return present(config)


def _hub_files(config: HubConfig) -> Iterable[Path]:
    from selectmoe_readers.files import inside

    return inside(config.path) if config.path else ()
