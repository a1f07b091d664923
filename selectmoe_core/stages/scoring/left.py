"""How many shards of a stage are left to make."""

from selectmoe_core.data.pool import Pool
from selectmoe_core.data.scores import part_path
from selectmoe_core.data.vectors import vectors_path
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.stages.scoring.cuts import CUTS, cuts, recorded
from selectmoe_core.store import Store


def shards_left(spec: NodeSpec, store: Store) -> tuple[int, int]:
    """Return how many shards of a stage that was begun are not made, and how many there are."""
    pool = Pool.open(spec.inputs[spec.rows_of])
    path = part_path if spec.stage == "score" else vectors_path
    elsewhere = {spec.folder / name for name in store.names_of(spec.folder)}
    sizes = recorded(spec.folder / CUTS, spec.stage)
    paths = [path(spec.folder, number) for number, _, _ in cuts(len(pool), *sizes)]
    left = sum(not (path.is_file() or path in elsewhere) for path in paths)
    return left, len(paths)
