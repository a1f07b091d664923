"""What a plugin author imports.

The names are looked up when they are first asked for, so that the command line need not import what
it does not use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selectmoe_core.config import Config, content_path, execution_only
    from selectmoe_core.cost import Cost, Workload
    from selectmoe_core.data.corruption import Damage
    from selectmoe_core.data.examples import Example, Message, RawExample, Reject
    from selectmoe_core.data.scores import Finish, ScoreTable, Selection, ShardScores
    from selectmoe_core.errors import DataError, ModelError, SelectMoEError, StageError
    from selectmoe_core.models.models import ModelRef, TargetModel
    from selectmoe_core.plugin.component import About, Component, Kind
    from selectmoe_core.plugin.protocols import (
        Converter,
        Evaluator,
        ExampleSource,
        Job,
        Need,
        Question,
        Reader,
        Scorer,
        Selector,
        Shard,
        ShardScorer,
        TableScorer,
        TokenDetail,
        Trainer,
        VerifyOptions,
    )
    from selectmoe_core.plugin.specs import hookimpl
    from selectmoe_core.store import Artifact, Facts

_MODULES = {
    "About": "selectmoe_core.plugin.component",
    "Artifact": "selectmoe_core.store",
    "Component": "selectmoe_core.plugin.component",
    "Config": "selectmoe_core.config",
    "Converter": "selectmoe_core.plugin.protocols",
    "Cost": "selectmoe_core.cost",
    "Damage": "selectmoe_core.data.corruption",
    "DataError": "selectmoe_core.errors",
    "Evaluator": "selectmoe_core.plugin.protocols",
    "Example": "selectmoe_core.data.examples",
    "ExampleSource": "selectmoe_core.plugin.protocols",
    "Facts": "selectmoe_core.store",
    "Finish": "selectmoe_core.data.scores",
    "Job": "selectmoe_core.plugin.protocols",
    "Kind": "selectmoe_core.plugin.component",
    "Message": "selectmoe_core.data.examples",
    "ModelError": "selectmoe_core.errors",
    "ModelRef": "selectmoe_core.models.models",
    "Need": "selectmoe_core.plugin.protocols",
    "Question": "selectmoe_core.plugin.protocols",
    "RawExample": "selectmoe_core.data.examples",
    "Reader": "selectmoe_core.plugin.protocols",
    "Reject": "selectmoe_core.data.examples",
    "ScoreTable": "selectmoe_core.data.scores",
    "Scorer": "selectmoe_core.plugin.protocols",
    "SelectMoEError": "selectmoe_core.errors",
    "Selection": "selectmoe_core.data.scores",
    "Selector": "selectmoe_core.plugin.protocols",
    "Shard": "selectmoe_core.plugin.protocols",
    "ShardScorer": "selectmoe_core.plugin.protocols",
    "ShardScores": "selectmoe_core.data.scores",
    "StageError": "selectmoe_core.errors",
    "TableScorer": "selectmoe_core.plugin.protocols",
    "TargetModel": "selectmoe_core.models.models",
    "TokenDetail": "selectmoe_core.plugin.protocols",
    "Trainer": "selectmoe_core.plugin.protocols",
    "VerifyOptions": "selectmoe_core.plugin.protocols",
    "Workload": "selectmoe_core.cost",
    "content_path": "selectmoe_core.config",
    "execution_only": "selectmoe_core.config",
    "hookimpl": "selectmoe_core.plugin.specs",
}

__all__ = [
    "About",
    "Artifact",
    "Component",
    "Config",
    "Converter",
    "Cost",
    "Damage",
    "DataError",
    "Evaluator",
    "Example",
    "ExampleSource",
    "Facts",
    "Finish",
    "Job",
    "Kind",
    "Message",
    "ModelError",
    "ModelRef",
    "Need",
    "Question",
    "RawExample",
    "Reader",
    "Reject",
    "ScoreTable",
    "Scorer",
    "SelectMoEError",
    "Selection",
    "Selector",
    "Shard",
    "ShardScorer",
    "ShardScores",
    "StageError",
    "TableScorer",
    "TargetModel",
    "TokenDetail",
    "Trainer",
    "VerifyOptions",
    "Workload",
    "content_path",
    "execution_only",
    "hookimpl",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'selectmoe_core' has no attribute '{name}'")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
