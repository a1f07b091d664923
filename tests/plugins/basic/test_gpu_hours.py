"""A budget in GPU-hours, beside the time that the plan itself estimates for the training."""

import pytest
from conftest import write_rows
from fake_recipe import HEAD

from selectmoe_basic.config import TokenBudgetConfig
from selectmoe_core import RecipeError
from selectmoe_core.config import parse
from selectmoe_core.cost import DEVICES

RECIPE = f"""\
{HEAD}
[chat]
max_length = 64

[score]
use = "length"

[select]
use = "token-budget"
gpu_hours = 1e-7

[train]
use = "llama-lora"
model = "bundled:nano-llama"
epochs = 3
"""


@pytest.fixture
def budgeted(project):
    words = [f"word{n}" for n in range(12)]
    rows = [
        {"dataset": "s", "messages": [
            {"role": "user", "content": f"Say {n} words, please"},
            {"role": "assistant", "content": " ".join(words[(n + k) % 12] for k in range(30))},
        ]}
        for n in range(900)
    ]  # fmt: skip
    write_rows(project.folder / "pool.jsonl", rows)
    project.recipe.write_text(RECIPE)
    return project


def figures(project, *change):
    plan = project.plan(*change)
    nodes = {node["key"]: node for node in plan["nodes"]}
    return nodes["train"]["cost"]["seconds"], nodes["select"]["digest"]


@pytest.mark.parametrize("card", sorted(set(DEVICES) - {"cpu"}))
def test_the_plan_estimates_as_many_hours_as_were_asked_for(budgeted, card):
    assert budgeted.run("--until", "pool").code == 0  # otherwise lengths are guessed from bytes
    change = (f"select.card={card}", "--for", card)
    for hours in (1e-7, 2e-7):
        seconds, _ = figures(budgeted, f"select.gpu_hours={hours!r}", *change)
        # Shorter examples than the longest take less for each token.
        assert 0.9 * hours * 3600 <= seconds <= 1.001 * hours * 3600


def test_the_digest_is_that_of_the_tokens_and_does_not_depend_on_what_is_built(budgeted):
    _, before = figures(budgeted)
    _, card = figures(budgeted, "select.card=a100")
    _, epochs = figures(budgeted, "train.epochs=6")
    assert len({before, card, epochs}) == 3
    assert budgeted.run("--until", "pool").code == 0
    assert figures(budgeted)[1] == before
    # Twice the epochs in twice the time are the same selection.
    assert figures(budgeted, "train.epochs=6", "select.gpu_hours=2e-7")[1] == before


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("~train", "select.model=bundled:nano-llama"), "needs a table [train]"),
        (("train.max_steps=5",), "the training has a fixed length"),
        (("train.model=who/knows",), "how long llama-lora trains on a token is unknown"),
        (("select.tokens=5",), "set 'tokens', or 'gpu_hours', and not both"),
        (("select.count=answers",), "'gpu_hours' pays for all tokens"),
        (("select.card=h10",), "there is no card 'h10'"),
    ],
)
def test_hours_that_say_nothing_are_mistakes(budgeted, change, what):
    said = budgeted.call("plan", "recipe.toml", *change)
    assert said.code == 2
    assert what in said.err


def test_a_budget_must_be_set():
    with pytest.raises(RecipeError, match="set 'tokens', or 'gpu_hours'"):
        parse(TokenBudgetConfig, {}, where="[select]")
