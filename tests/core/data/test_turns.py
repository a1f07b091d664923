"""Turns: every shape that means one thing is read, what would be lost is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selectmoe_core.data.examples import Message, content_id, conversation_problem
from selectmoe_core.data.turns import MessagesError, is_given, messages_from

QA = (Message("user", "q"), Message("assistant", "a"))
PLAIN = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]

SHAPES = {
    "plain": PLAIN,
    "as JSON text": json.dumps(PLAIN),
    "a table of lists": {"role": ["user", "assistant"], "content": ["q", "a"]},
    "a table with an empty column": {"from": ["human", "gpt"], "value": ["q", "a"], "role": None},
    "from and value": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
    "from and text": [{"from": "human", "text": "q"}, {"from": "gpt", "text": "a"}],
    "roles in capitals": [{"role": " User", "content": "q"}, {"role": "ASSISTANT", "content": "a"}],
    "other names of roles": [
        {"role": "prompter", "content": "q"},
        {"role": "bot", "content": "a"},
    ],
    "a list of one part": [
        {"role": "user", "content": [{"type": "text", "text": "q", "image_url": None}]},
        {"role": "assistant", "content": ["a"]},
    ],
    "a system turn that says nothing": [{"role": "system", "content": None}, *PLAIN],
    "keys of another row": [{**turn, "tool_calls": None, "weight": None} for turn in PLAIN],
    "empty tools": [{**turn, "tool_calls": [], "function_call": ""} for turn in PLAIN],
    "weight 1": [{**turn, "weight": 1} for turn in PLAIN],
    "no reasoning": [{**turn, "reasoning_content": " "} for turn in PLAIN],
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_mean_one_thing(name):
    assert messages_from(SHAPES[name]) == QA


def test_a_developer_speaks_for_the_system():
    turns = [{"role": "developer", "content": "d"}, *PLAIN]
    assert messages_from(turns) == (Message("system", "d"), *QA)


def answer(**more):
    return [PLAIN[0], {"role": "assistant", "content": "a", **more}]


REFUSED = {
    "calls a tool": [
        answer(tool_calls=[{"function": {"name": "f"}}]),
        answer(function_call={"name": "f"}),
        [{"from": "human", "value": "q"}, {"from": "gpt", "value": "", "tool_calls": [{"n": 1}]}],
    ],
    "a turn is by a tool ('Tool')": [[*PLAIN, {"role": "Tool", "content": "x"}]],
    "would be lost": [answer(reasoning_content="because"), answer(thinking="because")],
    "'train_detail', which is not supported": [answer(train_detail=[{"begin": 0}])],
    "must be 0 (not trained on) or 1": [
        answer(weight=0.5),
        answer(weight="0"),
        answer(train=[1]),
        answer(loss=float("nan")),
    ],
    "contradicts itself: 'weight' and 'train' differ": [answer(weight=0, train=True)],
    "'train' asks to train on a user turn": [[{**PLAIN[0], "train": True}, PLAIN[1]]],
    "both 'content' and 'value', and they differ": [answer(value="b")],
    "not text but a number": [answer(content=[3, {"type": "text", "text": "a"}])],
    "a turn has 'image_url'; only text": [
        answer(content=[{"type": "image_url", "image_url": "x"}])
    ],
    "content of a turn is missing": [
        answer(content=None),
        answer(content=[{"type": "text"}]),
        answer(content=[{"type": "text", "text": "a"}, {"type": "text"}]),
        answer(content=[]),
    ],
    "lists of different lengths": [{"role": ["user"], "content": ["q", "a"]}],
    "must be a list of turns, got an object": [{"role": "user", "content": "q"}, {}],
    "must be a list of turns, got text": ["hello", "[" * 100_000],
}


def test_text_parts_are_joined_by_line_ends():
    parts = [{"type": "text", "text": "a"}, "b", {"text": "c"}]
    assert messages_from(answer(content=parts))[-1].content == "a\nb\nc"


@pytest.mark.parametrize(
    ("reason", "items"), [(reason, items) for reason, every in REFUSED.items() for items in every]
)
def test_what_is_refused(reason, items):
    with pytest.raises(MessagesError) as raised:
        messages_from(items)
    assert reason in str(raised.value)


@pytest.mark.parametrize("key", ["weight", "train", "training", "trainable", "trained", "loss"])
@pytest.mark.parametrize("value", [0, False, 0.0])
def test_an_answer_of_weight_0_is_not_trained_on(key, value):
    turns = [*answer(**{key: value}), *PLAIN]
    found = messages_from(turns)
    assert [message.trained for message in found] == [True, False, True, True]
    assert conversation_problem(found) is None
    assert "every weight is 0" in conversation_problem(found[:2])
    assert content_id(found) != content_id(messages_from([*PLAIN, *PLAIN]))


def test_the_weight_of_a_question_changes_nothing():
    assert messages_from([{**PLAIN[0], "weight": 0}, PLAIN[1]]) == QA


def test_messages_from_data_are_short():
    for items in (
        [{"role": "x" * 20_000_000, "content": "y"}],
        [{"role": {"k" * 1_000_000: ["v"] * 100_000}, "content": "y"}],
        answer(weight="9" * 1_000_000),
        answer(content=[{"type": "t" * 1_000_000}]),
    ):
        with pytest.raises(MessagesError) as raised:
            messages_from(items)
        assert len(str(raised.value)) < 400


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "weight", "tools", "type", "x"]),
            inner,
            max_size=4,
        )
    ),
)


@given(VALUES)
def test_any_value_gives_messages_or_a_reason(value):
    try:
        found = messages_from(value)
    except MessagesError:
        return
    assert all(isinstance(one, Message) and isinstance(one.content, str) for one in found)


@pytest.mark.parametrize("value", [None, False, "", " ", "[]", "{}", "null", [], {}])
def test_what_says_nothing(value):
    assert not is_given(value)


@pytest.mark.parametrize("value", [0, True, "x", "[1]", [None], {"a": None}])
def test_what_says_something(value):
    assert is_given(value)
