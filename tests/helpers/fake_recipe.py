"""A recipe of the chain of fakes (``fake_chain.py``)."""

HEAD = """\
format = 1
name = "fake"
seed = 7

[pool]
use = "jsonl"
path = "pool.jsonl"
"""
"""The beginning of every recipe of fakes."""
RECIPE = f"""\
{HEAD}
[filter.leak]
use = "none"

[convert]
use = "fake-convert"
model = "./base"

[warmup]
use = "fake-train"
subset_ratio = 0.5

[score]
use = "fake-score"
reads_model = true
shard_examples = 8

[select]
use = "top-fraction"
fraction = 0.25

[train]
use = "fake-train"
model = "./base"

[evaluate]
use = "fake-eval"

[compare]
baselines = ["base", "random"]
"""
