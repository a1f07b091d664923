"""``convert``: a pretrained mixture of experts becomes a Select-MoE model."""

from selectmoe_core.stages.context import Context
from selectmoe_core.store import Facts


def run(context: Context) -> Facts:
    """Convert the model that the table names."""
    model = context.spec.model_ref()
    assert model is not None
    return dict(context.part.convert(model, context.folder / "model", context.job))
