"""What this plugin offers."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from selectmoe_core import About, Command, Component, Need, Reader, Scorer, hookimpl, load
from selectmoe_readers.config import (
    CsvConfig,
    FileScoresConfig,
    HubConfig,
    JsonlConfig,
    LessConfig,
    ParquetConfig,
)
from selectmoe_readers.endings import ENDINGS


@hookimpl
def selectmoe_readers() -> list[Component[Any, Reader]]:
    """Offer ``jsonl``, ``csv``, ``parquet``, ``less`` and ``hub``."""
    lines = "reads the files once, line by line; memory does not grow with their size"
    batches = "reads the files once, a batch of rows at a time"
    hub = "downloads the data set once, or streams it"
    return [
        _of_files("jsonl", JsonlConfig, load("selectmoe_readers.jsonl:JsonlReader"), lines),
        _of_files("csv", CsvConfig, load("selectmoe_readers.table:CsvReader"), batches),
        _of_files(
            "parquet", ParquetConfig, load("selectmoe_readers.parquet:ParquetReader"), batches
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
            pairs=True,
        ),
    ]


@hookimpl
def selectmoe_commands() -> list[Command]:
    """Offer ``init``."""
    line = "Look at data files, and write a recipe that runs."
    return [Command("init", line, "selectmoe_readers.init.command:init")]


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
    from selectmoe_readers.files import present

    return present(config.path, (*ENDINGS["jsonl"], *ENDINGS["parquet"]))


def _of_files(
    name: str,
    config: type[JsonlConfig | CsvConfig | ParquetConfig],
    build: Callable[[Any], Reader],
    cost: str,
) -> Component[Any, Reader]:
    """Return a reader of the files that ``path`` names, and whose names may give sources."""

    def files(given: Any) -> list[Path]:  # noqa: ANN401
        from selectmoe_readers.files import present

        return present(given.path, ENDINGS[name])

    def sources(given: Any) -> Iterable[str]:  # noqa: ANN401
        from selectmoe_readers.files import sources_of

        return [given.source] if given.source else sources_of(files(given))

    return Component(
        name,
        config,
        build,
        About(cost=cost),
        files=files,
        endings=ENDINGS[name],
        sources=sources,
        pairs=True,
    )


def _less_files(config: LessConfig) -> Iterable[Path]:
    from selectmoe_readers.less import present

    return present(config)


def _hub_files(config: HubConfig) -> Iterable[Path]:
    # The folder as a whole: its name, which gives the source, counts as well as its content.
    return (config.path,) if config.path else ()


def _less_sources(config: LessConfig) -> Iterable[str]:
    from selectmoe_readers.less import sources_of

    return [config.source] if config.source else sources_of(config)
