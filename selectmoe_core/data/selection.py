"""What a selector gives back, and the files that keep it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FORMAT = 2
"""The version of a selection's files; a new number makes every selection again."""
SELECTION = "selection.parquet"
"""The chosen rows, the best first."""
LEFT_OUT = "left_out.parquet"
"""The rows that filters left out, with the reason."""


@dataclass(frozen=True)
class Selection:
    """What a selector keeps.

    Attributes:
        rows: positions in the score table, int64, the best first, each once.
        group: what each kept row was chosen within (its source, its target task), or ``None``.
        reason: why each kept row was chosen, or ``None``; for many rows best an Arrow dictionary.
        warnings: sentences for the user, such as a quota that a source could not fill.
        cluster: the number of each kept row's cluster, or ``None``; below 0 in no cluster.
    """

    rows: np.ndarray
    group: Sequence[str] | pa.Array | None = None
    reason: Sequence[str] | pa.Array | None = None
    warnings: tuple[str, ...] = ()
    cluster: np.ndarray | None = None


def selected_rows(folder: Path) -> np.ndarray:
    """Return the positions that a ``select`` artifact holds, int64, the best first."""
    column = pq.read_table(folder / SELECTION, columns=["row"]).column(0)
    return np.asarray(column.to_numpy(), dtype=np.int64)
