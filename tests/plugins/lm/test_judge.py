"""The judge against a plain loop: one prompt at a time, the whole distribution by hand."""

import math

import numpy as np
import pytest
import torch
from lm_models import byte_tokenizer, example_of, score_all
from pydantic import ValidationError
from transformers import LlamaForCausalLM

from selectmoe_core import DataError, Example, Job, Message, ModelError
from selectmoe_core.cost import Workload
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_core.testing import check_scorer, generated_examples
from selectmoe_lm.config import JudgeConfig
from selectmoe_lm.judge import NO_TURN, JudgeScorer, template_of, token_ids
from selectmoe_lm.plugin import selectmoe_scorers
from selectmoe_lm.prompts import Prompts, asked_turns, fill

pytest_plugins = ["lm_fixtures"]

JUDGE = next(c for c in selectmoe_scorers() if c.name == "judge")
QUALITY = "Rate. #Question#:\n{instruction}\n#Response#:\n{output} \n##Quality: "


@pytest.fixture
def ask(llama) -> Job:
    return Job(seed=1, inputs=Inputs(model=llama))


def plain_verdict(model, text, tokens, values):
    """The expected value and the mass, from one forward pass over one prompt."""
    tokenizer = byte_tokenizer()
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1].double()
    chances = [math.exp(value) for value in logits.tolist()]
    own = [chances[tokenizer(token)["input_ids"][0]] for token in tokens]
    mean = sum(c * v for c, v in zip(own, values, strict=True)) / sum(own)
    return mean, sum(own) / sum(chances)


@pytest.mark.parametrize("turns", ["mean", "sum", "first"])
@pytest.mark.parametrize(
    ("template", "tokens", "values"),
    [
        (QUALITY, ("1", "2", "3", "4", "5", "6"), ()),
        ("{instruction}: ", ("a", "b", "q"), (1.0, -2.0, 0.5)),
        ("Is '{output}' good? {output}", ("1", "0"), ()),
    ],
)
def test_it_is_the_expected_value_over_the_score_tokens(
    llama, ask, examples, template, tokens, values, turns
):
    config = JudgeConfig(template=template, tokens=tokens, values=values, min_mass=0, turns=turns)
    found = score_all(JudgeScorer(config), ask, examples)
    model = LlamaForCausalLM.from_pretrained(llama.location)
    numbers = values or tuple(float(token) for token in tokens)
    for row, example in enumerate(examples):
        pairs = [
            (example.messages[place - 1].content, message.content)
            for place, message in enumerate(example.messages)
            if message.role == "assistant"
        ]
        pairs = pairs[:1] if turns == "first" else pairs
        texts = [
            template.replace("{instruction}", "\0").replace("{output}", answer)
            .replace("\0", request) for request, answer in pairs
        ]  # fmt: skip
        verdicts = [plain_verdict(model, text, tokens, numbers) for text in texts]
        expected = sum(value for value, _ in verdicts)
        expected = expected if turns == "sum" else expected / len(verdicts)
        assert found.score[row] == pytest.approx(expected, abs=1e-4)
        assert found.details["mass"][row] == pytest.approx(min(m for _, m in verdicts), abs=1e-5)
        assert found.details["turns"][row] == len(pairs)
    assert found.skipped == [None] * len(examples)


def test_a_row_whose_score_tokens_have_too_little_mass_is_skipped_with_the_reason(ask, examples):
    free = score_all(JudgeScorer(JudgeConfig(template=QUALITY, min_mass=0)), ask, examples)
    limit = float(np.median(free.details["mass"]))
    found = score_all(JudgeScorer(JudgeConfig(template=QUALITY, min_mass=limit)), ask, examples)
    below = free.details["mass"] < limit
    assert 0 < below.sum() < len(examples)
    for row, out in enumerate(below):
        if out:
            assert found.skipped[row] == (
                f"the score tokens have a probability below min_mass = {limit:g}"
            )
            assert np.isnan(found.score[row])
        else:
            assert found.score[row] == free.score[row]


def test_no_answer_and_a_long_prompt_have_their_reasons(ask):
    rows = [
        example_of([Message("user", "q" * 90), Message("assistant", "a")]),
        example_of([Message("user", "q"), Message("assistant", "a")]),
        Example("0" * 32, "s", (Message("system", "s"), Message("assistant", "a"))),
        example_of(
            [Message("user", "q"), Message("assistant", "read", trained=False),
             Message("user", "r"), Message("assistant", "a")]
        ),
    ]  # fmt: skip
    config = JudgeConfig(template="{instruction}{output}", min_mass=0, max_length=50)
    found = score_all(JudgeScorer(config), ask, rows)
    assert found.skipped == [
        "a prompt of more than max_length = 50 tokens", None, NO_TURN, None
    ]  # fmt: skip
    assert found.details["turns"].tolist() == [1, 1, 0, 1]
    alone = score_all(JudgeScorer(config), ask, rows[1:2])
    assert found.score[1] == pytest.approx(alone.score[0], abs=1e-5)
    only = score_all(JudgeScorer(config), ask, rows[2:3])
    assert (only.skipped, len(only.score)) == ([NO_TURN], 1)


def test_braces_and_control_tokens_in_a_row_are_text():
    assert fill("{instruction}|{output}|{x}", "{output}", "{instruction}") == (
        "{output}|{instruction}|{x}"
    )
    tokenizer = byte_tokenizer()
    end = tokenizer.eos_token_id
    turn = (Message("user", "a<eos>b"), Message("assistant", "c"))
    (ids,) = Prompts(tokenizer, "<eos>{instruction}", chat=False).of([turn])
    assert ids.tolist().count(end) == 1
    assert ids[0] == end
    assert tokenizer.decode(ids[1:]) == "a<eos>b"


def test_the_models_own_format_is_put_around_the_prompt():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    turn = (Message("user", "why"), Message("assistant", "so"))
    (ids,) = Prompts(tokenizer, "rate {output}", chat=True).of([turn])
    assert tokenizer.decode(ids) == "[user]rate so[assistant]"
    assert asked_turns([*turn, Message("assistant", "more")]) == [turn]


def test_a_template_in_a_file(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("Q: {instruction}\n\nScore: \n")
    config = JudgeConfig(template_file=path)
    assert template_of(config) == "Q: {instruction}\n\nScore: "
    path.write_text("Q: {question}\n")
    with pytest.raises(DataError, match="no place for the row's text"):
        JudgeScorer(config).check(Job(seed=1))
    path.write_bytes(b"\xff\xfe{output}")
    with pytest.raises(DataError, match="is not UTF-8"):
        template_of(config)
    path.unlink()
    with pytest.raises(DataError, match=r"prompt\.txt"):
        template_of(config)


def test_score_tokens_are_single_tokens_and_checked_before_the_first_stage(llama):
    tokenizer = byte_tokenizer()
    assert token_ids((" ", "7"), tokenizer).tolist() == [
        tokenizer(" ")["input_ids"][0], tokenizer("7")["input_ids"][0]
    ]  # fmt: skip
    with pytest.raises(ModelError, match="'10' is 2 tokens"):
        token_ids(("1", "10"), tokenizer)
    with pytest.raises(ModelError, match="the same token"):
        token_ids((" ", "Ġ"), tokenizer)
    config = JudgeConfig(template="{output}", tokens=("yes", "no"), values=(1, 0))
    with pytest.raises(ModelError, match="'yes' is 3 tokens"):
        JudgeScorer(config).check(Job(seed=1, inputs=Inputs(model=llama)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "set 'template' or 'template_file'"),
        ({"template": "x"}, "a place for"),
        ({"template": "{output}", "template_file": "x"}, "not both"),
        ({"template": "{output}", "tokens": ["1", "1"]}, "different tokens"),
        ({"template": "{output}", "tokens": ["1"]}, "two or more"),
        ({"template": "{output}", "tokens": ["good", "bad"]}, "'values' must say"),
        ({"template": "{output}", "tokens": ["1", "nan"]}, "'values' must say"),
        ({"template": "{output}", "values": [1, 2]}, "2 'values' for 6 'tokens'"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        JudgeConfig(**options)


def test_it_passes_the_conformance_kit(llama):
    options = {"template": QUALITY, "min_mass": 0.0}
    check_scorer(JUDGE, options=options, examples=generated_examples(16), model=llama.location)


def test_its_cost_is_one_pass():
    load = Workload(1000, 50_000, estimated=False, model=None, dtype="float32")
    assert JUDGE.cost(JudgeConfig(template="{output}"), load).tokens == 50_000
