"""What a plugin author imports.

The names are looked up when they are first asked for, so that the command line need not import what
it does not use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selectmoe_core.artifacts import Artifact, Facts
    from selectmoe_core.component import About, Component, Kind
    from selectmoe_core.config import Config, content_path, execution_only
    from selectmoe_core.cost import Cost, Workload
    from selectmoe_core.damages import Damage
    from selectmoe_core.errors import DataError, ModelError, SelectMoEError, StageError
    from selectmoe_core.examples import Example, Message, RawExample, Reject
    from selectmoe_core.hookspecs import hookimpl
    from selectmoe_core.models import ModelRef, TargetModel
    from selectmoe_core.protocols import (
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
    from selectmoe_core.scores import Finish, ScoreTable, Selection, ShardScores

_MODULES = {
    "About": "selectmoe_core.component",
    "Artifact": "selectmoe_core.artifacts",
    "Component": "selectmoe_core.component",
    "Config": "selectmoe_core.config",
    "Converter": "selectmoe_core.protocols",
    "Cost": "selectmoe_core.cost",
    "Damage": "selectmoe_core.damages",
    "DataError": "selectmoe_core.errors",
    "Evaluator": "selectmoe_core.protocols",
    "Example": "selectmoe_core.examples",
    "ExampleSource": "selectmoe_core.protocols",
    "Facts": "selectmoe_core.artifacts",
    "Finish": "selectmoe_core.scores",
    "Job": "selectmoe_core.protocols",
    "Kind": "selectmoe_core.component",
    "Message": "selectmoe_core.examples",
    "ModelError": "selectmoe_core.errors",
    "ModelRef": "selectmoe_core.models",
    "Need": "selectmoe_core.protocols",
    "Question": "selectmoe_core.protocols",
    "RawExample": "selectmoe_core.examples",
    "Reader": "selectmoe_core.protocols",
    "Reject": "selectmoe_core.examples",
    "ScoreTable": "selectmoe_core.scores",
    "Scorer": "selectmoe_core.protocols",
    "SelectMoEError": "selectmoe_core.errors",
    "Selection": "selectmoe_core.scores",
    "Selector": "selectmoe_core.protocols",
    "Shard": "selectmoe_core.protocols",
    "ShardScorer": "selectmoe_core.protocols",
    "ShardScores": "selectmoe_core.scores",
    "StageError": "selectmoe_core.errors",
    "TableScorer": "selectmoe_core.protocols",
    "TargetModel": "selectmoe_core.models",
    "TokenDetail": "selectmoe_core.protocols",
    "Trainer": "selectmoe_core.protocols",
    "VerifyOptions": "selectmoe_core.protocols",
    "Workload": "selectmoe_core.cost",
    "content_path": "selectmoe_core.config",
    "execution_only": "selectmoe_core.config",
    "hookimpl": "selectmoe_core.hookspecs",
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
