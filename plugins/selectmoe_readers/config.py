"""Options of the readers."""

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Len
from pydantic import Field, PositiveInt, StringConstraints, field_validator, model_validator

from selectmoe_core import Config, content_path, execution_only

Name = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]

RowFormat = Literal["auto", "messages", "alpaca", "sharegpt", "prompt_completion"]


class Columns(Config):
    """The column names of a row (keys of a JSON object)."""

    messages: Name = "messages"
    """``messages``: the list of ``{"role", "content"}``."""
    conversations: Name = "conversations"
    """``sharegpt``: the list of ``{"from", "value"}``."""
    instruction: Name = "instruction"
    """``alpaca``: the task."""
    input: Name = "input"
    """``alpaca``: what the task is about; may be missing or empty."""
    output: Name = "output"
    """``alpaca``: the answer."""
    history: Name = "history"
    """``alpaca``: earlier turns, a list of ``[question, answer]``; may be missing."""
    prompt: Name = "prompt"
    """``prompt_completion``: the question, as text or as a list of messages."""
    completion: Name = "completion"
    """``prompt_completion``: the answer, as text or as a list of messages."""
    chosen: Name = "chosen"
    """``[warmup.pairs]``: the better answer, as text, as a turn, or as a list of turns."""
    rejected: Name = "rejected"
    """``[warmup.pairs]``: the worse answer, in the same form."""
    system: Name = "system"
    """A system message outside the turns; may be missing or empty."""
    source: Name | tuple[Name, ...] = ("dataset", "source", "category")
    """The data set that the row came from: the first of these columns that has a value."""
    id: Name = "id"
    """The row's own id, stored for reports; may be missing."""
    label: Name = "label"
    """A label of the row's quality, stored for audits and reports only; may be missing."""


class RowConfig(Config):
    """How a row becomes an example."""

    format: RowFormat = "auto"
    """The row format; ``auto`` finds it from the columns of each file's first usable row."""
    columns: Columns = Columns()
    """Names of columns that differ from the default: ``columns = { prompt = "question" }``."""
    opening: Literal["reject", "drop"] = "reject"
    """A conversation that begins with the assistant: reject it, or drop the answers before the
    first question."""
    source: Name | None = None
    """One source name for all rows, instead of the row's own or that of its file."""


class LineConfig(RowConfig):
    """How lines are read."""

    max_line_bytes: PositiveInt = 64 << 20
    """A line with more bytes than this is rejected, without being read into memory."""


Paths = Path | Annotated[tuple[Path, ...], Len(min_length=1)]


class JsonlConfig(LineConfig):
    """Read JSON lines or arrays: messages, Alpaca, ShareGPT, prompt/completion; compressed too."""

    path: Paths = content_path(...)
    """A file, a folder, a glob pattern, or a list; ``.gz`` and ``.zst`` are decompressed."""


class ParquetConfig(RowConfig):
    """Read Parquet files with messages, Alpaca, ShareGPT or prompt/completion columns."""

    path: Paths = content_path(...)
    """A file, a folder, a glob pattern, or a list of them."""


class CsvConfig(RowConfig):
    """Read tables (CSV, TSV) with Alpaca or prompt/completion columns, plain or compressed."""

    path: Paths = content_path(...)
    """A file, a folder, a glob pattern, or a list; ``.gz`` and ``.zst`` are decompressed."""
    delimiter: Annotated[str, StringConstraints(pattern=r"^[\t -!#-~]$")] | None = None
    """The separator between values; by default a tab in ``.tsv`` files, otherwise a comma."""
    max_row_bytes: int = Field(default=16 << 20, ge=1 << 10, le=1 << 30)
    """Bytes that are read at once; no row may be longer."""


class LessConfig(LineConfig):
    """Read the LESS training data from the folders in which it is published.

    The source of a row is the name of its folder.
    """

    path: Path = content_path(...)
    """The folder ``processed``, or a folder that contains it or ``train/processed``."""
    sources: tuple[Name, ...] = ()
    """The sources to read, in this order; by default all that are found, ordered by name."""
    format: RowFormat = "messages"
    """The row format; the LESS data is ``messages``."""

    @field_validator("sources")
    @classmethod
    def _each_once(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in sources if sources.count(name) > 1}):
            raise ValueError(f"'{twice[0]}' is named twice; name each source once")
        return sources


class HubConfig(RowConfig):
    """Read a data set from the Hugging Face hub by its name, or a local copy by its folder."""

    name: Name | None = None
    """The data set's name on the hub, such as ``HuggingFaceH4/no_robots``."""
    path: Path | None = content_path(None)
    """Instead of ``name``: a folder of data files, or one that ``save_to_disk`` wrote."""
    split: Name = "train"
    """The split, or a part of it as ``datasets`` writes it: ``train[:10%]``."""
    config_name: Name | None = None
    """The configuration ("subset") of a data set that has several."""
    dataset_revision: Name | None = None
    """A commit, tag or branch of the data set; name a commit so that a run can be repeated."""
    streaming: bool = execution_only(False)
    """Stream the data over the network, without keeping a copy on disk."""

    @model_validator(mode="after")
    def _one_place(self) -> "HubConfig":
        if (self.name is None) == (self.path is None):
            raise ValueError("give either 'name' (a data set of the hub) or 'path' (a folder)")
        return self


class FileScoresConfig(Config):
    """Take scores that were made elsewhere, from JSON lines or Parquet, as they stand there.

    Each row of the files has a score and says which example it is for: by the pool's id, by the
    row's own id, or by the text itself, which is how the published data of OpenDataArena is read.
    """

    path: Paths = content_path(...)
    """A file (``.jsonl``, ``.json``, ``.parquet``), a folder, a glob pattern, or a list of them."""
    column: Name = "score"
    """The column with the score; dots lead into objects: ``Q_scores.Clarity``,
    ``scores.DeitaQScorer.score``."""
    direction: Literal["high", "low"] = "high"
    """Which numbers are better; for ``low`` the score is minus the number."""
    match: Literal["id", "original", "content"] = "id"
    """How a row names its example: ``id``, the pool's id (32 hexadecimal digits, or 16 bytes in
    Parquet); ``original``, the id that the row has in the pool's own files; or ``content``, the
    conversation in the row itself."""
    id: Name = "id"
    """With ``match = "id"`` or ``"original"``: the column with the id; dots lead into objects."""
    format: RowFormat = "auto"
    """With ``match = "content"``: the row format, as of readers."""
    columns: Columns = Columns()
    """With ``match = "content"``: names of columns that differ, as of readers."""
    missing: Literal["stop", "skip"] = "stop"
    """What to do if an example of the pool has no score: end the stage, or skip the example with
    the reason."""
