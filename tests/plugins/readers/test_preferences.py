"""Preference pairs as readers find them: the forms of the DPO trainers, and rows that are none."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selectmoe_core import DataError, Job, RawPair, Reject
from selectmoe_core.data.pairs import build_pairs
from selectmoe_readers.config import Columns, CsvConfig, HubConfig, JsonlConfig, ParquetConfig
from selectmoe_readers.jsonl import JsonlReader
from selectmoe_readers.parquet import ParquetReader
from selectmoe_readers.table import CsvReader

JOB = Job(seed=1)


def user(text):
    return {"role": "user", "content": text}


def answer(text):
    return {"role": "assistant", "content": text}


WANTED = [("user", "Why?"), ("assistant", "Because.")], [("user", "Why?"), ("assistant", "No.")]
SYSTEM = {"role": "system", "content": "Be brief."}
FORMS = {
    "texts": {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    "lists of an answer": {
        "prompt": [user("Why?")],
        "chosen": [answer("Because.")],
        "rejected": [answer("No.")],
    },
    "whole conversations beside the prompt": {
        "prompt": "Why?",
        "chosen": [user("Why?"), answer("Because.")],
        "rejected": [user("Why?"), answer("No.")],
        "messages": [user("Why?"), answer("Because.")],
        "score_chosen": 7.5,
    },
    "whole conversations alone": {
        "chosen": [user("Why?"), answer("Because.")],
        "rejected": [user("Why?"), answer("No.")],
    },
    "instruction and input": {
        "instruction": "Why?",
        "input": "",
        "chosen": "Because.",
        "rejected": "No.",
    },
    "turns of ShareGPT": {
        "conversations": [{"from": "human", "value": "Why?"}],
        "chosen": {"from": "gpt", "value": "Because."},
        "rejected": {"from": "gpt", "value": "No."},
    },
}


def turns(half):
    return [(turn.role, turn.content) for turn in half.messages]


def read(tmp_path, *rows, **options):
    path = tmp_path / "prefs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(JsonlReader(JsonlConfig(path=path, **options)).pairs(JOB))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pair(tmp_path, form):
    (found,) = read(tmp_path, FORMS[form])
    assert isinstance(found, RawPair), found
    assert (turns(found.chosen), turns(found.rejected)) == WANTED
    assert found.chosen.where == "prefs.jsonl:1"
    assert found.chosen.source == found.rejected.source == "prefs"


def test_sources_ids_and_other_names_of_columns_are_read(tmp_path):
    row = {"question": "Why?", "win": "Because.", "lose": "No.", "source": "forum", "id": 7}
    columns = Columns(prompt="question", chosen="win", rejected="lose")
    (found,) = read(tmp_path, row, columns=columns)
    assert (turns(found.chosen), turns(found.rejected)) == WANTED
    assert (found.chosen.source, found.chosen.original_id) == ("forum", "7")


def test_a_system_message_stands_first_wherever_it_was_written(tmp_path):
    texts = FORMS["texts"]
    whole = {"chosen": [SYSTEM, user("Why?"), answer("Because.")]}
    whole["rejected"] = [SYSTEM, user("Why?"), answer("No.")]
    for row in ({**texts, "system": "Be brief."}, whole, {**whole, "prompt": "Why?"}):
        (found,) = read(tmp_path, row)
        assert turns(found.chosen) == [("system", "Be brief."), *WANTED[0]]
        assert turns(found.rejected) == [("system", "Be brief."), *WANTED[1]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Why?", "chosen": "x"}, "'rejected' is missing"),
        ({"chosen": "x", "rejected": "y"}, "there is no prompt"),
        ({"chosen": [answer("x")], "rejected": [answer("y")]}, "there is no prompt"),
        (
            {**FORMS["whole conversations beside the prompt"], "prompt": "When?"},
            "does not begin with the row's prompt",
        ),
        ({"prompt": "Why?", "chosen": 5, "rejected": "y"}, "'chosen'"),
        ({**FORMS["texts"], "tools": [{"name": "x"}]}, "tool use is not supported"),
        ([1], "must be an object"),
    ],
)
def test_rows_that_are_no_pairs_say_why(tmp_path, row, reason):
    (found,) = read(tmp_path, row)
    assert isinstance(found, Reject)
    assert reason in found.reason
    assert found.where == "prefs.jsonl:1"


def test_pairs_that_cannot_be_used_name_their_row(tmp_path):
    same = {"prompt": "Why?", "chosen": "x", "rejected": "x"}
    other = {"chosen": [user("Why?"), answer("x")], "rejected": [user("When?"), answer("y")]}
    longer = {"chosen": [user("Why?"), answer("x"), user("So?"), answer("z")]}
    longer["rejected"] = [user("Why?"), answer("x")]
    empty = {"prompt": "Why?", "chosen": "x", "rejected": " "}
    for number, (row, reason) in enumerate(
        [
            (same, "are the same"),
            (other, "answer different prompts: turn 1 differs"),
            (longer, "one of them goes on"),
            (empty, "'rejected': every answer of the assistant is empty"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows = read(tmp_path, FORMS["texts"], row)
        with pytest.raises(DataError, match=r"prefs\.jsonl:2: .*" + reason) as error:
            build_pairs(rows, folder)
        assert '[warmup.pairs] on_reject = "skip"' in error.value.hint


def test_skipped_rows_are_counted_and_duplicates_left_out(tmp_path):
    texts = FORMS["texts"]
    bad = {"prompt": "Why?", "chosen": "x", "rejected": "x"}
    more = {"prompt": "Why?", "chosen": "Because.", "rejected": "Never."}
    (tmp_path / "out").mkdir()
    rows = read(tmp_path, texts, bad, texts, more, bad)
    table = build_pairs(rows, tmp_path / "out", on_reject="skip")
    assert len(table) == 2
    assert table.duplicates == 1
    assert [half.response for half in table.chosen()] == ["Because.", "Because."]
    assert [half.response for half in table.rejected()] == ["No.", "Never."]
    assert table.pool.sources["prefs"].rejected == 2
    assert table.pool.reasons[0].rows == 2


def test_parquet_tables_and_data_sets_give_the_same_pairs(tmp_path):
    from selectmoe_readers.hub import HubReader

    rows = [FORMS["whole conversations beside the prompt"]] * 2
    folder = tmp_path / "prefs"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    for reader in (
        ParquetReader(ParquetConfig(path=folder / "train.parquet")),
        HubReader(HubConfig(path=folder)),
    ):
        found = list(reader.pairs(JOB))
        assert len(found) == 2
        assert (turns(found[1].chosen), turns(found[1].rejected)) == WANTED
    (tmp_path / "t.csv").write_text("prompt,chosen,rejected\nWhy?,Because.,No.\n")
    (found,) = CsvReader(CsvConfig(path=tmp_path / "t.csv")).pairs(JOB)
    assert (turns(found.chosen), turns(found.rejected)) == WANTED


def test_a_row_format_has_no_effect_on_pairs(tmp_path):
    with pytest.raises(DataError, match="no effect on preference pairs"):
        read(tmp_path, FORMS["texts"], format="messages")


def test_a_pool_reads_the_conversation_beside_a_pair_as_before(tmp_path):
    path = tmp_path / "prefs.jsonl"
    path.write_text(json.dumps(FORMS["whole conversations beside the prompt"]) + "\n")
    (found,) = JsonlReader(JsonlConfig(path=path)).read(JOB)
    assert turns(found) == WANTED[0]


def test_the_kit_checks_pairs(tmp_path):
    from selectmoe_core.testing import check_reader
    from selectmoe_readers.plugin import selectmoe_readers

    (tmp_path / "pool.jsonl").write_text(json.dumps({"prompt": "Q", "completion": "A"}) + "\n")
    (tmp_path / "prefs.jsonl").write_text(json.dumps(FORMS["texts"]) + "\n")
    jsonl = next(one for one in selectmoe_readers() if one.name == "jsonl")
    options, pairs = ({"path": str(tmp_path / name)} for name in ("pool.jsonl", "prefs.jsonl"))
    check_reader(jsonl, options=options, pairs=pairs)
    with pytest.raises(AssertionError, match="does not say that it reads pairs"):
        check_reader(replace(jsonl, pairs=False), options=options)
