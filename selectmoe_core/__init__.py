"""What a plugin author imports.

Each name is imported when it is first used, so that the command line does not import
modules that it does not need.
"""

from typing import TYPE_CHECKING

from selectmoe_core.lazy import lazy_names

if TYPE_CHECKING:
    from selectmoe_core.cli.plugin_command import (
        command_job,
        parse_options,
        print_facts,
    )
    from selectmoe_core.config import (
        Config,
        content_path,
        execution_only,
        suggest,
    )
    from selectmoe_core.cost import (
        Cost,
        Workload,
    )
    from selectmoe_core.data.corruption import (
        Damage,
    )
    from selectmoe_core.data.examples import (
        Example,
        Message,
        RawExample,
        RawPair,
        Reject,
    )
    from selectmoe_core.data.marks import (
        Marks,
    )
    from selectmoe_core.data.questions import (
        Question,
        read_questions,
    )
    from selectmoe_core.data.scores import (
        Finish,
        ScoreTable,
        ShardScores,
    )
    from selectmoe_core.data.selection import (
        Selection,
    )
    from selectmoe_core.data.shown import (
        TokenDetail,
    )
    from selectmoe_core.errors import (
        DataError,
        ModelError,
        RecipeError,
        SelectMoEError,
        StageError,
        shown,
        utf8_text,
    )
    from selectmoe_core.models.models import (
        ModelRef,
        TargetModel,
    )
    from selectmoe_core.paths import (
        inside,
        plain_name,
        read_regular,
    )
    from selectmoe_core.plugin.command import (
        Command,
    )
    from selectmoe_core.plugin.component import (
        About,
        Component,
        Kind,
        Meaning,
    )
    from selectmoe_core.plugin.executor import (
        Executor,
        NodeRun,
        OpenExecutor,
        Place,
        Site,
    )
    from selectmoe_core.plugin.loading import (
        load,
    )
    from selectmoe_core.plugin.protocols import (
        Converter,
        Embedder,
        Evaluator,
        ExampleSource,
        Filter,
        Job,
        Need,
        Reader,
        Scorer,
        Selector,
        Shard,
        ShardEmbedder,
        ShardScorer,
        TableScorer,
        Trainer,
        VerifyOptions,
    )
    from selectmoe_core.plugin.specs import (
        hookimpl,
    )
    from selectmoe_core.plugin.tracker import (
        TrackedResult,
        TrackedRun,
        Tracker,
    )
    from selectmoe_core.runtime.hardware import (
        resolve_device,
    )
    from selectmoe_core.runtime.progress import (
        Advance,
    )
    from selectmoe_core.store import (
        Artifact,
        Facts,
        write_json,
    )

__getattr__ = lazy_names(
    __name__,
    {
        "selectmoe_core.cli.plugin_command": "command_job parse_options print_facts",
        "selectmoe_core.config": "Config content_path execution_only suggest",
        "selectmoe_core.cost": "Cost Workload",
        "selectmoe_core.data.corruption": "Damage",
        "selectmoe_core.data.examples": "Example Message RawExample RawPair Reject",
        "selectmoe_core.data.marks": "Marks",
        "selectmoe_core.data.questions": "Question read_questions",
        "selectmoe_core.data.scores": "Finish ScoreTable ShardScores",
        "selectmoe_core.data.selection": "Selection",
        "selectmoe_core.data.shown": "TokenDetail",
        "selectmoe_core.errors": "DataError ModelError RecipeError SelectMoEError StageError "
        "shown utf8_text",
        "selectmoe_core.models.models": "ModelRef TargetModel",
        "selectmoe_core.paths": "inside plain_name read_regular",
        "selectmoe_core.plugin.command": "Command",
        "selectmoe_core.plugin.component": "About Component Kind Meaning",
        "selectmoe_core.plugin.executor": "Executor NodeRun OpenExecutor Place Site",
        "selectmoe_core.plugin.loading": "load",
        "selectmoe_core.plugin.protocols": "Converter Embedder Evaluator ExampleSource Filter "
        "Job Need Reader Scorer Selector Shard ShardEmbedder ShardScorer TableScorer Trainer "
        "VerifyOptions",
        "selectmoe_core.plugin.specs": "hookimpl",
        "selectmoe_core.plugin.tracker": "TrackedResult TrackedRun Tracker",
        "selectmoe_core.runtime.hardware": "resolve_device",
        "selectmoe_core.runtime.progress": "Advance",
        "selectmoe_core.store": "Artifact Facts write_json",
    },
)

__all__ = [
    "About",
    "Advance",
    "Artifact",
    "Command",
    "Component",
    "Config",
    "Converter",
    "Cost",
    "Damage",
    "DataError",
    "Embedder",
    "Evaluator",
    "Example",
    "ExampleSource",
    "Executor",
    "Facts",
    "Filter",
    "Finish",
    "Job",
    "Kind",
    "Marks",
    "Meaning",
    "Message",
    "ModelError",
    "ModelRef",
    "Need",
    "NodeRun",
    "OpenExecutor",
    "Place",
    "Question",
    "RawExample",
    "RawPair",
    "Reader",
    "RecipeError",
    "Reject",
    "ScoreTable",
    "Scorer",
    "SelectMoEError",
    "Selection",
    "Selector",
    "Shard",
    "ShardEmbedder",
    "ShardScorer",
    "ShardScores",
    "Site",
    "StageError",
    "TableScorer",
    "TargetModel",
    "TokenDetail",
    "TrackedResult",
    "TrackedRun",
    "Tracker",
    "Trainer",
    "VerifyOptions",
    "Workload",
    "command_job",
    "content_path",
    "execution_only",
    "hookimpl",
    "inside",
    "load",
    "parse_options",
    "plain_name",
    "print_facts",
    "read_questions",
    "read_regular",
    "resolve_device",
    "shown",
    "suggest",
    "utf8_text",
    "write_json",
]
