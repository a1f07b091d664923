"""``evaluate``: measures a base model, with the adapter trained on it if there is one."""

from pathlib import Path

from selectmoe_core.models.models import TargetModel
from selectmoe_core.stages.context import Context
from selectmoe_core.store import Facts


def run(context: Context) -> Facts:
    """Evaluate the target."""
    model = context.spec.model_ref()
    assert model is not None
    train, given = context.spec.inputs.get("train"), context.spec.own.get("adapter")
    adapter = Path(given) if given else train / "model" if train else None
    target = TargetModel(model, adapter)
    return dict(context.part.evaluate(target, context.folder, context.job))
