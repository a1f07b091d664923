"""A finished selection: exported to each format, compared with another, explained row by row."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROWS, rows_of, write_rows

from selectmoe_core.selections.chosen import Chosen
from selectmoe_core.selections.difference import difference
from selectmoe_core.selections.explanation import explain
from selectmoe_core.selections.formats import FORMATS

FILTERED = '[filter.short]\nuse = "fake-filter"\nanswer = "Answer 1"\n'
HALF = ("--until", "select", "select.fraction=0.5")


@pytest.fixture
def run(project):
    """Returns a function that runs the recipe and gives the run's folder."""

    def run(*overrides):
        said = project.run(*HALF, *overrides)
        assert said.code == 0, said.err
        return project.runs()[-1]

    return run


def selected(folder):
    return list(Chosen.open(folder).rows())


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def turns(row):
    return [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]]


# ------------------------------------------------------------------------------------- export


def exported(project, folder, name, *arguments):
    said = project.call("export", folder, "--to", name, *arguments)
    assert said.code == 0, said.err
    path = folder / "export" / name / FORMATS[name].file
    assert said.out.strip() == str(path)
    return path


def test_trl_and_open_instruct_get_conversations(project, run):
    folder = run()
    rows = selected(folder)
    assert len(rows) == ROWS // 2
    # https://huggingface.co/docs/trl/dataset_formats: conversational language modelling.
    assert lines_of(exported(project, folder, "trl")) == [{"messages": turns(r)} for r in rows]
    # The columns of the Tulu mixtures: id, messages, and the data set they come from.
    assert lines_of(exported(project, folder, "open-instruct")) == [
        {"id": row["id"], "dataset": row["source"], "messages": turns(row)} for row in rows
    ]


def test_llamafactory_finds_the_file_and_the_tags(project, run):
    folder = run()
    path = exported(project, folder, "llamafactory")
    [info] = json.loads((path.parent / "dataset_info.json").read_text()).values()
    assert (path.parent / info["file_name"]) == path
    assert info["formatting"] == "sharegpt"
    tags = info["tags"]
    for row, line in zip(selected(folder), lines_of(path), strict=True):
        own = line[info["columns"]["messages"]]
        named = [(turn[tags["role_tag"]], turn[tags["content_tag"]]) for turn in own]
        assert named == [(turn["role"], turn["content"]) for turn in row["messages"]]
        # Users stand at odd places, answers at even ones.
        roles = [role for role, _ in named if role != tags["system_tag"]]
        assert roles == [tags["user_tag"], tags["assistant_tag"]] * (len(roles) // 2)


def test_axolotl_is_told_which_answers_to_train_on(project, run):
    rows = rows_of(30)
    weighted = {"role": "assistant", "content": "A first try", "weight": 0}
    again = {"role": "user", "content": "Again"}
    for row in rows:
        row["messages"][1:1] = [weighted, again]
    write_rows(project.folder / "pool.jsonl", rows)
    folder = run()
    path = exported(project, folder, "axolotl")
    [data] = yaml.safe_load((path.parent / "datasets.yaml").read_text())["datasets"]
    assert (path.parent / data["path"]) == path
    assert (data["type"], data["roles_to_train"]) == ("chat_template", [])
    for row, line in zip(selected(folder), lines_of(path), strict=True):
        own = line[data["field_messages"]]
        names = data["message_property_mappings"]
        assert [turn[names["content"]] for turn in own] == [t["content"] for t in row["messages"]]
        assert [turn[data["message_field_training"]] for turn in own] == [False, False, False, True]
    for name in ("trl", "llamafactory", "open-instruct"):
        said = project.call("export", folder, "--to", name)
        assert said.code == 1
        assert "15 selected rows have an answer that is not trained on" in said.err
        path = exported(project, folder, name, "--skip-unfit")
        assert path.read_text() == ""


def test_tables_and_ids_hold_the_selection(project, run):
    from datasets import load_dataset

    folder = run()
    rows = selected(folder)
    table = pq.read_table(exported(project, folder, "parquet")).to_pylist()
    for row, found in zip(rows, table, strict=True):
        assert {name: row[name] for name in ("id", "source", "rank", "score")} == {
            name: found[name] for name in ("id", "source", "rank", "score")
        }
        weights = [turn.pop("weight") for turn in found["messages"]]
        assert (found["messages"], weights) == (turns(row), [0, 1])
    path = exported(project, folder, "ids")
    assert path.read_text().split() == [row["id"] for row in rows]
    for name in ("trl", "parquet"):
        file = exported(project, folder, name)
        kind = "parquet" if name == "parquet" else "json"
        cache = str(project.folder / "cache")
        loaded = load_dataset(kind, data_files=str(file), split="train", cache_dir=cache)
        assert [turns(row) for row in loaded] == [turns(row) for row in rows]


# --------------------------------------------------------------------------------------- diff


def test_a_difference_counts_what_sets_count(project, run):
    first, second = run(), run("score.factor=-1", "select.fraction=0.7")
    found = difference(Chosen.open(first), Chosen.open(second))
    a, b = ({row["id"]: row for row in selected(folder)} for folder in (first, second))
    assert found.sizes == (len(a), len(b))
    assert found.common == len(set(a) & set(b))
    assert found.jaccard == len(set(a) & set(b)) / len(set(a) | set(b))
    for name, counts in found.sources.items():
        of = [{i for i, row in own.items() if row["source"] == name} for own in (a, b)]
        assert counts == (len(of[0]), len(of[1]), len(of[0] & of[1]))
    for own, lengths in zip((a, b), found.lengths, strict=True):
        answers = [len(row["messages"][1]["content"]) for row in own.values()]
        assert lengths[1] == np.median(answers)
    assert [row.id for row in found.only[0]] == [i for i in a if i not in b][:5]
    said = project.call("diff", first, second)
    assert said.code == 0
    assert f"Jaccard: {found.jaccard:.3f}" in said.out
    assert json.loads(project.call("diff", first, second, "--json").out)["common"] == found.common
    same = project.call("diff", first, first)
    assert "Jaccard: 1.000" in same.out
    assert "alone has" not in same.out


def test_a_run_without_a_selection_says_so(project, run):
    folder = run()
    said = project.call("diff", folder, folder, "--arm", "radnom")
    assert said.code == 2
    assert "'radnom'" in said.err
    project.run("--until", "score")
    said = project.call("explain", project.runs()[-1], "00")
    assert said.code == 1
    assert "selected nothing" in said.err


# ------------------------------------------------------------------------------------ explain


def test_every_row_is_explained_by_plain_counting(project, run):
    project.recipe.write_text(project.recipe.read_text() + FILTERED)
    folder = run()
    chosen = Chosen.open(folder)
    pool = chosen.pool()
    scores = chosen.scores()[1].score()
    ids = [bytes.fromhex(example.id) for example in pool.examples()]
    sources = [example.source for example in pool.examples()]
    ranks = {row["id"]: row["rank"] for row in chosen.rows()}
    filtered = {n for n in range(ROWS) if f"{n}".startswith("1")}
    for n in range(ROWS):
        found = explain(chosen, ids[n].hex())
        better = [m for m in range(ROWS) if (-scores[m], ids[m]) < (-scores[n], ids[n])]
        own = [m for m in better if sources[m] == sources[n]]
        assert (found.in_pool.rank, found.in_pool.of) == (len(better) + 1, ROWS)
        assert found.in_source.rank == len(own) + 1
        assert found.in_source.of == sources.count(sources[n])
        assert found.score == scores[n]
        assert found.rank == ranks.get(found.id)
        assert found.filter == ("short" if n in filtered else None)
        text = project.call("explain", folder, ids[n].hex()[:10]).out if n < 12 else ""
        if text:
            expected = "a filter left it out" if n in filtered else "the worst selected row of"
            assert ("selected: rank" if found.rank else expected) in text


def test_a_row_of_a_group_names_the_one_that_is_kept(project, run):
    project.recipe.write_text(project.recipe.read_text() + FILTERED)
    folder = run("filter.short.answer=''", "filter.short.alike=6", "select.fraction=1")
    chosen = Chosen.open(folder)
    ids = [example.id for example in chosen.pool().examples()][:6]
    kept = {row["id"] for row in chosen.rows()} & set(ids)
    assert len(kept) == 1
    for name in set(ids) - kept:
        assert explain(chosen, name).better == next(iter(kept))
    assert explain(chosen, next(iter(kept))).reason == "the best of 6 rows that are alike"


@pytest.mark.parametrize("command", ["explain", "diff", "export"])
def test_a_damaged_selection_is_an_error_that_names_the_file(project, run, command):
    folder = run()
    path = (folder / "artifacts" / "select").resolve() / "selection.parquet"
    path.write_bytes(path.read_bytes()[:100])
    more = {"explain": ["0"], "diff": [folder], "export": ["--to", "ids"]}[command]

    said = project.call(command, folder, *more)

    assert said.code == 1
    assert f"{path.name} has 100 bytes" in said.err
    assert "what is damaged is made again" in said.err
    assert run() != folder  # it can be
    assert project.call(command, folder, *more).code in (0, 2)


def test_text_from_data_does_not_begin_a_line_of_its_own(project, run):
    rows = [row | {"dataset": "a\nError: b"} for row in rows_of(ROWS)]
    write_rows(project.folder / "pool.jsonl", rows)
    folder = run()
    row = selected(folder)[0]
    assert row["source"] == "a\nError: b"
    for said in (
        project.call("explain", folder, row["id"]),
        project.call("diff", folder, folder),
    ):
        assert said.code == 0, said.err
        assert "a\\nError: b" in said.out
        assert "\nError" not in said.out


def test_a_row_is_found_by_its_id_in_the_users_file(project, run):
    rows = rows_of(6)
    for number, row in enumerate(rows):
        row["id"] = f"mine-{number}"
    rows[0]["id"] = "ab"  # hexadecimal digits that may begin another row's id
    write_rows(project.folder / "pool.jsonl", rows)
    folder = run()
    chosen = Chosen.open(folder)
    texts = {example.id: example.prompt for example in chosen.pool().examples()}
    for number, own in enumerate(["ab", "mine-1", "mine-2", "mine-3"]):
        assert texts[explain(chosen, own).id] == rows[number]["messages"][0]["content"]
    assert project.call("explain", folder, "mine-2").code == 0
    rows[4]["id"] = rows[5]["id"] = "twice"
    write_rows(project.folder / "pool.jsonl", rows)
    said = project.call("explain", run(), "twice")
    assert said.code == 2
    assert "2 rows have the id 'twice' in their files" in said.err


@pytest.mark.parametrize("name", FORMATS)
def test_each_export_says_how_it_is_used(project, run, name):
    path = exported(project, run(), name)
    text = (path.parent / "README.md").read_text()
    assert f"`{path.name}`" in text
    assert FORMATS[name].page in text
    for block in text.split("```")[1::2]:
        kind, _, code = block.partition("\n")
        if kind == "python":
            compile(code, "README.md", "exec")
        else:
            assert yaml.safe_load(code)["dataset"] in json.loads(
                (path.parent / "dataset_info.json").read_text()
            )


@pytest.mark.parametrize(
    ("wanted", "what"),
    [("zz", "is not an id"), ("", "is not an id"), ("0" * 32, "no row"), ("0" * 33, "not an id")],
)
def test_an_id_that_names_no_row_is_a_mistake(project, run, wanted, what):
    said = project.call("explain", run(), wanted)
    assert said.code == 2
    assert what in said.err


def test_first_digits_must_be_one_rows_alone(project, run):
    folder = run()
    ids = [example.id for example in Chosen.open(folder).pool().examples()]
    digits = next(d for d in "0123456789abcdef" if sum(i.startswith(d) for i in ids) > 1)
    said = project.call("explain", folder, digits)
    assert said.code == 2
    assert f"rows have an id that begins with {digits}" in said.err
    assert explain(Chosen.open(folder), ids[3].upper()).id == ids[3]
