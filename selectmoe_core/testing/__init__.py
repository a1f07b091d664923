"""The conformance kit: checks that a part of a plugin must pass, kind by kind.

Each check raises an ``AssertionError`` that says what the part did and what the core expects. Use
them in an ordinary test::

    # tests/test_my_plugin.py
    from my_plugin import vowels                      # a Component
    from selectmoe_core.testing import check_plugin, check_scorer

    def test_the_plugin_loads():
        check_plugin("my_plugin")

    def test_vowels_is_a_scorer():
        check_scorer(vowels, options={"letters": "aeiou"})

Give a small model to a scorer that needs one: ``check_scorer(part, model="path/to/tiny")``. The
checks need no GPU, no network and no pytest.
"""

from selectmoe_core.testing.components import check_component, check_plugin
from selectmoe_core.testing.converters import check_converter
from selectmoe_core.testing.embedders import check_embedder
from selectmoe_core.testing.evaluators import check_evaluator
from selectmoe_core.testing.executors import check_executor
from selectmoe_core.testing.filters import check_filter
from selectmoe_core.testing.pools import generated_examples, generated_pool
from selectmoe_core.testing.readers import check_reader
from selectmoe_core.testing.scorers import check_scorer
from selectmoe_core.testing.selectors import check_selector
from selectmoe_core.testing.trainers import check_trainer

__all__ = [
    "check_component",
    "check_converter",
    "check_embedder",
    "check_evaluator",
    "check_executor",
    "check_filter",
    "check_plugin",
    "check_reader",
    "check_scorer",
    "check_selector",
    "check_trainer",
    "generated_examples",
    "generated_pool",
]
