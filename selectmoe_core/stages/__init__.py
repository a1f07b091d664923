"""The stages: what each one reads and writes, and how a node of a plan is executed."""

MODULES = {
    "pool": "selectmoe_core.stages.pool",
    "targets": "selectmoe_core.stages.pool",
    "questions": "selectmoe_core.stages.questions",
    "filter": "selectmoe_core.stages.filtering",
    "convert": "selectmoe_core.stages.convert",
    "pairs": "selectmoe_core.stages.pairs",
    "warmup": "selectmoe_core.stages.train",
    "embed": "selectmoe_core.stages.embedding",
    "score": "selectmoe_core.stages.scoring.score",
    "select": "selectmoe_core.stages.select",
    "train": "selectmoe_core.stages.train",
    "evaluate": "selectmoe_core.stages.evaluate",
}
"""The module of each stage; its function ``run`` executes the stage."""
