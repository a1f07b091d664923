"""Ids, checks and plain texts of examples."""

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selectmoe_core.data.examples import (
    ID_BYTES,
    ROLES,
    Example,
    Message,
    content_id,
    conversation_problem,
)
from selectmoe_core.data.turns import messages_from

TURNS = st.lists(st.builds(Message, st.sampled_from(ROLES), st.text()), min_size=1, max_size=4)


def conversation(*turns: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role, text) for role, text in turns)


@given(TURNS, TURNS)
def test_ids_are_equal_exactly_where_the_messages_are(one, other):
    assert (content_id(one) == content_id(other)) == (one == other)
    assert len(content_id(one)) == ID_BYTES


def test_what_reads_the_same_when_joined_has_different_ids():
    pairs = [
        (conversation(("user", "ab")), conversation(("user", "a"), ("user", "b"))),
        (
            conversation(("user", "a"), ("assistant", "b")),
            conversation(("user", "aassistant 1 b")),
        ),
        (conversation(("user", "x")), conversation(("assistant", "x"))),
        (conversation(("user", "x ")), conversation(("user", "x"))),
        (conversation(("user", "")), conversation(("user", ""), ("user", ""))),
        (conversation(("user", "é")), conversation(("user", "e\u0301"))),
    ]
    for one, other in pairs:
        assert content_id(one) != content_id(other)


def test_an_id_never_changes_between_releases():
    # Ids stand in artifacts and in people's notes; a new hash would orphan them.
    found = content_id(conversation(("user", "Hé?"), ("assistant", "2\u20283")))
    data = b"user 3 H\xc3\xa9?assistant 3 2\xe2\x80\xa83"
    assert found == hashlib.blake2b(data, digest_size=16).digest()
    assert found.hex() == "62b0193cf05c506b48bf0240e55c1d65"


def test_even_half_a_surrogate_pair_has_an_id():
    assert content_id(conversation(("user", "\ud800"))) != content_id(
        conversation(("user", "\ud801"))
    )


def test_messages_from_keeps_roles_and_texts():
    rng = random.Random(3)
    items = [{"role": rng.choice(ROLES), "content": str(rng.random()), "more": 1} for _ in range(9)]
    assert messages_from(items) == tuple(Message(i["role"], i["content"]) for i in items)


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (None, "must be a list"),
        ([], "at least one"),
        ({"role": "user"}, "must be a list of turns, got an object"),
        (["hi"], "must be an object, got text"),
        ([{"content": "x"}], "unknown role None"),
        ([{"role": "narrator", "content": "x"}], "unknown role 'narrator'"),
        ([{"role": ["user"], "content": "x"}], r"unknown role \['user'\]"),
        ([{"role": "user"}], "content of a turn is missing"),
        ([{"role": "user", "content": [3]}], "not text but a number"),
    ],
)
def test_messages_from_says_what_is_wrong(items, reason):
    with pytest.raises(ValueError, match=reason):
        messages_from(items)


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        ((), "no message"),
        ((("user", "q"),), "no answer"),
        ((("user", "q"), ("assistant", " \n")), "every answer of the assistant is empty"),
        ((("assistant", "a"),), "starts with the assistant"),
        ((("user", "q"), ("system", "s"), ("assistant", "a")), "system message is not the first"),
    ],
)
def test_unusable_conversations(turns, problem):
    assert problem in conversation_problem(conversation(*turns))


@pytest.mark.parametrize(
    "turns",
    [
        (("user", "q"), ("assistant", "a")),
        (("system", "s"), ("user", "q"), ("assistant", "a")),
        (("user", "q"), ("assistant", ""), ("user", "q"), ("assistant", "a")),
        (("user", "q"), ("assistant", "a"), ("user", "thanks")),
        (("user", ""), ("assistant", "a")),
    ],
)
def test_usable_conversations(turns):
    assert conversation_problem(conversation(*turns)) is None


def test_prompt_and_response_of_several_turns():
    turns = conversation(
        ("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")
    )
    example = Example("0" * 32, "x", turns)
    assert example.prompt == "s\nq\na\nr"
    assert example.response == "a\nb"
    with_thanks = Example("0" * 32, "x", (*turns, Message("user", "thanks")))
    assert with_thanks.prompt == example.prompt
    assert with_thanks.response == example.response
