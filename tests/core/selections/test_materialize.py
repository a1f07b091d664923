"""A portable selection holds no text, and the rows are made again from another copy of the pool."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROWS, rows_of, write_rows

from selectmoe_core.errors import DataError, RecipeError
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.selections.chosen import Chosen
from selectmoe_core.selections.pool_files import reader_of
from selectmoe_core.selections.portable import MADE, Portable

HALF = ("--until", "select", "select.fraction=0.5")


@pytest.fixture
def portable(project):
    """The file, and the rows that were selected."""
    said = project.run(*HALF, "select.per=source")
    assert said.code == 0, said.err
    run = project.runs()[-1]
    said = project.call("export", run, "--to", "selection")
    assert said.code == 0, said.err
    path = run / "export" / "selection" / "selection.parquet"
    assert said.out.strip() == str(path)
    return path, list(Chosen.open(run).rows())


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_place(row):
    return row | {"meta": row["meta"] | {"where": ""}}


def test_the_file_says_how_it_was_made_and_holds_no_text(project, portable):
    path, rows = portable
    table = pq.read_table(path).to_pylist()
    assert table == [
        {
            "id": bytes.fromhex(row["id"]),
            "original_id": row["meta"]["original_id"],
            "source": row["source"],
            "rank": row["rank"],
            "score": row["score"],
        }
        for row in rows
    ]
    made = Portable.open(path).made
    assert made["select"]["use"] == "top-fraction"
    assert made["select"]["options"]["fraction"] == 0.5
    assert made["score"]["use"] == "fake-score"
    assert sum(made["pool"].values()) == ROWS
    content = path.read_bytes()
    assert b"Answer" not in content
    assert str(project.folder).encode() not in content


@pytest.mark.parametrize("kind", ["jsonl", "shuffled json", "parquet", "recipe", "folder"])
def test_the_rows_are_found_by_content_wherever_they_stand(project, portable, kind):
    path, rows = portable
    own = rows_of(ROWS)
    pool, options = project.folder / "mine.jsonl", []
    if kind == "jsonl":
        more = [*own, {"messages": [{"role": "user", "content": "q"}]}]  # cannot be used
        write_rows(pool, more)
    elif kind == "shuffled json":
        pool = pool.with_suffix(".json")
        pool.write_text(json.dumps(own[::-1] + own[:3]))
    elif kind == "parquet":
        pool = pool.with_suffix(".parquet")
        pq.write_table(pa.Table.from_pylist(own), pool)
    elif kind == "recipe":
        pool = project.recipe
    else:
        pool = project.folder / "parts"
        pool.mkdir()
        write_rows(pool / "a.jsonl", own[:9])
        write_rows(pool / "b.jsonl", own[9:])
    said = project.call("materialize", path, pool, *options)
    assert said.code == 0, said.err
    assert said.out.strip() == "selected_data.jsonl"
    made = lines_of(project.folder / "selected_data.jsonl")
    if kind in ("jsonl", "recipe", "shuffled json", "parquet"):
        assert [without_place(row) for row in made] == [without_place(row) for row in rows]
    assert [row["id"] for row in made] == [row["id"] for row in rows]


def test_missing_rows_are_named_and_nothing_is_written(project, portable):
    path, rows = portable
    own = rows_of(ROWS)
    gone = {rows[2]["meta"]["original_id"], rows[5]["meta"]["original_id"]}
    changed = rows[7]["meta"]["original_id"]
    kept = [row for row in own if row["id"] not in gone]
    for row in kept:
        if row["id"] == changed:
            row["messages"] = [*row["messages"][:-1], {"role": "assistant", "content": "other"}]
    write_rows(project.folder / "mine.jsonl", kept)
    said = project.call("materialize", path, "mine.jsonl")
    assert said.code == 1
    assert f"3 of the {len(rows)} rows" in said.err
    for row in (rows[2], rows[5], rows[7]):
        assert f"{row['id']} ('{row['meta']['original_id']}') of {row['source']}" in said.err
    assert "has this id, but other content" in said.err
    assert "--allow-missing" in said.err
    assert not (project.folder / "selected_data.jsonl").exists()
    said = project.call("materialize", path, "mine.jsonl", "--allow-missing", "--out", "part.jsonl")
    assert said.code == 0, said.err
    made = lines_of(project.folder / "part.jsonl")
    assert [row["id"] for row in made] == [
        row["id"] for place, row in enumerate(rows) if place not in (2, 5, 7)
    ]
    listed = (project.folder / "part.jsonl.missing.txt").read_text().splitlines()
    assert [line[:32] for line in listed] == [rows[place]["id"] for place in (2, 5, 7)]


def test_a_pool_without_any_of_the_rows_is_an_error_even_if_some_may_be_missing(project, portable):
    path, rows = portable
    write_rows(project.folder / "other.jsonl", rows_of(5, start=900))
    said = project.call("materialize", path, "other.jsonl", "--allow-missing")
    assert said.code == 1
    assert f"{len(rows)} of the {len(rows)} rows" in said.err
    assert "and " in said.err
    assert "allow-missing" not in said.err.partition("Hint")[2]


def test_mistakes_are_told(project, portable, tmp_path):
    path, _ = portable
    said = project.call("materialize", project.folder / "pool.jsonl", "pool.jsonl")
    assert said.code == 1
    assert "is not a portable selection" in said.err
    assert "--to selection" in said.err
    (project.folder / "there.jsonl").write_text("")
    said = project.call("materialize", path, "pool.jsonl", "--out", "there.jsonl")
    assert (said.code, "exists" in said.err) == (2, True)
    said = project.call("materialize", path, "pool.jsonl", "--out", "no/where.jsonl")
    assert (said.code, "there is no folder" in said.err) == (2, True)
    said = project.call("materialize", path, "nowhere.jsonl")
    assert said.code in (1, 2)
    assert "nowhere.jsonl" in said.err
    said = project.call("materialize", path, "pool.jsonl", "colums.id=x")
    assert said.code == 2
    assert "did you mean 'columns'" in said.err
    said = project.call("materialize", path, "recipe.toml", "--use", "jsonl")
    assert (said.code, "names its reader" in said.err) == (2, True)
    for text in (said.err,):
        assert "Traceback" not in text


def test_a_damaged_and_a_newer_file(portable, tmp_path):
    path, _ = portable
    table = pq.read_table(path)
    newer = table.replace_schema_metadata({MADE: json.dumps({"format": 99})})
    pq.write_table(newer, tmp_path / "newer.parquet")
    with pytest.raises(DataError, match="is of version 99"):
        Portable.open(tmp_path / "newer.parquet")
    twice = pa.concat_tables([table, table.slice(0, 1)])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="names a row twice"):
        Portable.open(tmp_path / "twice.parquet")
    for place, name in ((0, "id"), (2, "source"), (3, "rank")):
        cells = [None, *table.column(name).to_pylist()[1:]]
        column = pa.array(cells, table.schema.field(name).type)
        pq.write_table(table.set_column(place, name, column), tmp_path / "empty.parquet")
        with pytest.raises(DataError, match=f"not a portable selection: 1 rows have no {name}"):
            Portable.open(tmp_path / "empty.parquet")
    (tmp_path / "cut.parquet").write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="is not a portable selection"):
        Portable.open(tmp_path / "cut.parquet")


def test_the_reader_of_files_is_found_by_their_names(tmp_path):
    registry = Registry(load_plugins())

    def reader(name, use=None):
        (tmp_path / name).write_text("")
        return type(reader_of(registry, str(tmp_path / name), use, {}, tmp_path)).__name__

    assert reader("a.JSON.gz") == "JsonlReader"
    assert reader("a.tsv") == "CsvReader"
    assert reader("a.parquet") == "ParquetReader"
    assert reader("a.pq") == "ParquetReader"
    assert reader("a.data", "csv") == "CsvReader"
    with pytest.raises(RecipeError, match="no file that a reader is known for"):
        reader("b.data")
    with pytest.raises(RecipeError, match="files for several readers"):
        reader_of(registry, str(tmp_path), None, {}, tmp_path)
