"""What a selector gives back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa


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
