"""``evaluate``: measures a base model, with the adapter trained on it if there is one."""

from selectmoe_core.models.models import TargetModel
from selectmoe_core.stages.context import Context
from selectmoe_core.store import Facts


def run(context: Context) -> Facts:
    """Evaluate the target."""
    model = context.spec.model_ref()
    assert model is not None
    train = context.spec.inputs.get("train")
    target = TargetModel(model, train / "model" if train else None)
    return dict(context.part.evaluate(target, context.folder, context.job))
