"""Rows that a chat template cannot render: the error names the row, or the row is left out."""

import json

import numpy as np
import pytest
from tokenizers_of import tokenizer_of

from selectmoe_core.data.examples import Message, RawExample
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.data.scores import ShardScores
from selectmoe_core.errors import ModelError
from selectmoe_core.plugin.protocols import Shard
from selectmoe_core.stages.scoring.score import _without_unrendered
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import encode
from selectmoe_core.tokens.tokenize import encode_pool
from selectmoe_core.tokens.unrendered import FILE, REASON, among, note

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOKENIZER = tokenizer_of("bytes")
REFUSED = (3, 17, 18)
ROWS = 20


def chat(*, skips):
    return ChatFormat(ChatConfig(template="file"), TEMPLATE, skips=skips)


@pytest.fixture
def pool(tmp_path):
    """A pool of which the rows of ``REFUSED`` have a system turn."""
    rows = [
        RawExample(
            "s",
            (
                *([Message("system", f"be {n}")] if n in REFUSED else []),
                Message("user", f"question {n} </s>"[: 40 if n % 2 else 11]),
                Message("assistant", f"answer {n}"),
            ),
            where=f"data.jsonl:{n + 1}",
        )
        for n in range(ROWS)
    ]
    (tmp_path / "pool").mkdir()
    return build_pool(rows, tmp_path / "pool", on_reject="skip")


@pytest.mark.parametrize("processes", [1, 2])
def test_the_error_names_the_row_and_the_way_out(pool, tmp_path, processes):
    with pytest.raises(ModelError, match=r"^data.jsonl:4: the chat template .*no system") as caught:
        encode_pool(pool, tmp_path, chat(skips=False), TOKENIZER, processes=processes)
    assert '[pool] on_reject = "skip"' in caught.value.hint


@pytest.mark.parametrize("processes", [1, 2])
def test_a_row_that_is_left_out_has_no_token_that_counts(pool, tmp_path, processes):
    found = encode_pool(pool, tmp_path / "a", chat(skips=True), TOKENIZER, processes=processes)
    others = [one for n, one in enumerate(pool.examples()) if n not in REFUSED]
    alone = iter(encode(others, tmp_path / "b", chat(skips=False), TOKENIZER))
    for row in range(ROWS):
        if row in REFUSED:
            assert (len(found[row].ids), found.counted[row]) == (1, 0)
        else:
            assert found[row].ids.tolist() == (wanted := next(alone)).ids.tolist()
            assert found[row].parts.tolist() == wanted.parts.tolist()
    rows = np.arange(ROWS)
    assert np.flatnonzero(among(found, rows)).tolist() == list(REFUSED)
    assert among(found, np.array([17, 2, 3])).tolist() == [True, False, True]


def test_the_rows_and_their_reasons_are_noted(pool, tmp_path):
    lenient = chat(skips=True)
    encoded = encode_pool(pool, tmp_path, lenient, TOKENIZER)
    noted = note(tmp_path, pool, encoded, lenient, TOKENIZER)
    assert [one.where for one in noted] == ["data.jsonl:4", "data.jsonl:18", "data.jsonl:19"]
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [line["row"] for line in lines] == list(REFUSED)
    assert all("no system" in line["reason"] for line in lines)


def test_they_get_no_score_whatever_the_scorer_says(pool, tmp_path):
    encoded = encode_pool(pool, tmp_path, chat(skips=True), TOKENIZER)
    shard = Shard(0, np.arange(2, 5), ())
    scores = ShardScores(np.array([1.0, 2.0, np.nan]), skipped=[None, None, "too short"])
    found = _without_unrendered(True, encoded, shard, scores)
    assert found.score.tolist()[0] == 1.0
    assert np.isnan(found.score).tolist() == [False, True, True]
    assert found.skipped == [None, REASON, "too short"]
    assert _without_unrendered(False, encoded, shard, scores) is scores


def test_a_format_that_renders_nothing_is_still_an_error():
    with pytest.raises(ModelError, match="no system"):
        ChatFormat(
            ChatConfig(template="file"), "{{ raise_exception('no system') }}", skips=True
        ).check(TOKENIZER)
