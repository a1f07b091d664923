"""``selectmoe init``: what it says of files, and the recipe that it writes."""

import csv
import gzip
import json
import tomllib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("transformers")

PAIRS = [(f"Question {n}?", f"Answer {n} is rather short.") for n in range(6)]


def turns(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path, head, rows, **options):
    with path.open("w", newline="") as file:
        csv.writer(file, **options).writerows([head, *rows])
    return path


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def packed(path, rows):
    with gzip.open(path, "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    return path


MADE = {
    "messages.jsonl": lambda f: lines(f, [{"messages": turns(*pair)} for pair in PAIRS]),
    "array.json": lambda f: f.write_text(
        json.dumps([{"instruction": q, "output": a} for q, a in PAIRS])
    ),
    "sharegpt.jsonl.gz": lambda f: packed(
        f,
        [
            {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
            for q, a in PAIRS
        ],
    ),
    "pairs.csv": lambda f: table(f, ["prompt", "completion"], PAIRS),
    "pairs.tsv": lambda f: table(f, ["question", "answer"], PAIRS, delimiter="\t"),
    "rows.parquet": lambda f: pq.write_table(
        pa.table({"Question": [q for q, _ in PAIRS], "Response": [a for _, a in PAIRS]}), f
    ),
    "parts.jsonl": lambda f: lines(
        f, [{"messages": turns(q, [{"type": "text", "text": a}] * 2)} for q, a in PAIRS]
    ),
}
FORMATS = {
    "messages.jsonl": ("jsonl", "messages", ["messages"]),
    "array.json": ("jsonl", "alpaca", ["instruction", "output"]),
    "sharegpt.jsonl.gz": ("jsonl", "sharegpt", ["conversations"]),
    "pairs.csv": ("csv", "prompt_completion", ["prompt", "completion"]),
    "pairs.tsv": ("csv", "prompt_completion", ["question", "answer"]),
    "rows.parquet": ("parquet", "prompt_completion", ["Question", "Response"]),
    "parts.jsonl": ("jsonl", "messages", ["messages"]),
}


@pytest.mark.parametrize("name", MADE)
def test_every_format_is_named_shown_and_planned(desk, cli, name):
    MADE[name](desk / name)
    said = cli("init", name)
    assert said.code == 0, said.err
    reader, form, columns = FORMATS[name]
    found = said.out.splitlines()
    assert found[0] == f"reader   {reader}, rows as {form}"
    assert found[1] == f"columns  {', '.join(columns)}"
    assert "rows     6 can be used" in found
    assert said.out.count("<|assistant|>") == 3
    assert "Question 0?" in said.out
    recipe = tomllib.loads((desk / "recipe.toml").read_text())
    assert recipe["pool"]["use"] == reader
    assert recipe["pool"]["path"] == name
    assert [step for step in recipe if step in ("score", "select", "train")] == ["score", "select"]
    assert recipe["warmup"]["subset_ratio"] == 0.5  # a part is left for the audit
    planned = cli("plan", "recipe.toml", "--json")
    assert planned.code == 0, planned.err
    assert {node["key"] for node in json.loads(planned.out)["nodes"]} == {
        "pool", "convert", "warmup", "score", "select",
    }  # fmt: skip
    pool = cli("run", "recipe.toml", "--until", "pool")
    assert pool.code == 0, pool.err
    assert "examples 6, rejected 0" in pool.err


def test_guessed_columns_are_named(desk, cli):
    MADE["pairs.tsv"](desk / "pairs.tsv")
    said = cli("init", "pairs.tsv")
    assert "'question' is taken as prompt: check the rows below" in said.out
    assert "'answer' is taken as completion" in said.out


def test_sources_come_from_the_columns_and_losses_are_counted(desk, cli):
    rows = [{"category": f"c{n % 2}", "messages": turns(*PAIRS[n])} for n in range(6)]
    rows += [rows[0], {"messages": []}, {"messages": turns("q", "")}, {"messages": turns("r", "")}]
    lines(desk / "data.jsonl", rows)
    said = cli("init", "data.jsonl")
    assert said.code == 0, said.err
    assert "rows     6 can be used" in said.out
    assert "sources  c0 3, c1 3" in said.out
    assert "lost     1 repeat an earlier row" in said.out
    assert "lost     3 cannot be used:" in said.out
    assert "2 x every answer of the assistant is empty, first at data.jsonl:9" in said.out


def test_our_own_selection_is_read_back_whole(desk, cli):
    row = {
        "id": "0" * 32,
        "source": "dolly",
        "messages": turns("q", "a"),
        "score": 0.5,
        "rank": 1,
        "meta": {"original_id": "d1", "where": "x:1", "label": "good"},
    }
    lines(desk / "selected_data.jsonl", [row])
    said = cli("init", "selected_data.jsonl")
    assert said.code == 0, said.err
    assert "sources  dolly 1" in said.out
    assert "columns  messages, source, id" in said.out


def test_openings_by_the_assistant_are_lost_or_dropped(desk, cli):
    rows = [{"messages": [turns("", "Hello!")[1], *turns(*pair)]} for pair in PAIRS]
    lines(desk / "data.jsonl", [*rows, {"messages": turns("q", "a")}])
    said = cli("init", "data.jsonl")
    assert "6 x it starts with the assistant" in said.out
    said = cli("init", "data.jsonl", "--drop-opening", "--force")
    assert "rows     7 can be used" in said.out
    assert "Hello!" not in said.out
    assert tomllib.loads((desk / "recipe.toml").read_text())["pool"]["opening"] == "drop"


def test_a_target_and_tasks_make_the_whole_chain(desk, cli):
    lines(desk / "data.jsonl", [{"messages": turns(*pair)} for pair in PAIRS])
    said = cli(
        "init", "data.jsonl", "--model", "bundled:nano-llama", "--task", "bundled:nano",
        "--out", "sub.toml",
    )  # fmt: skip
    assert said.code == 0, said.err
    recipe = tomllib.loads((desk / "sub.toml").read_text())
    assert recipe["name"] == "sub"
    assert recipe["train"]["model"] == "bundled:nano-llama"
    assert recipe["evaluate"]["tasks"] == ["bundled:nano"]
    assert "select, train, and compare with a random draw" in said.out
    # A bundled target is for trying things out, so that the model that scores is bundled too.
    assert recipe["convert"]["model"] == "bundled:nano-olmoe"
    assert recipe["train"]["batch_size"] == 16  # small enough for more than one step
    assert cli("plan", "sub.toml").code == 0


@pytest.mark.parametrize(
    ("options", "scorer"),
    [
        (["--model", "some/model"], "allenai/OLMoE-1B-7B-0125"),
        (["--model", "some/model", "--score-with", "bundled:nano-olmoe"], "bundled:nano-olmoe"),
        (["--score-with", "my/moe"], "my/moe"),
    ],
)
def test_the_model_that_scores_can_be_named(desk, cli, options, scorer):
    lines(desk / "data.jsonl", [{"messages": turns(*pair)} for pair in PAIRS])
    said = cli("init", "data.jsonl", *options)
    assert said.code == 0, said.err
    recipe = tomllib.loads((desk / "recipe.toml").read_text())
    assert recipe["convert"]["model"] == scorer
    tiny = scorer.startswith("bundled:")
    assert recipe["warmup"]["trainable"] == ("all" if tiny else "router")
    assert ("a GPU of about 40 GB" in (desk / "recipe.toml").read_text()) is not tiny


@pytest.mark.parametrize("options", [[], ["--model", "bundled:nano-llama", "--task", "x"]])
def test_the_recipe_fits_a_narrow_terminal_and_its_tables_stand_apart(desk, cli, options):
    name = "a-long-name-of-a-file-of-instruction-data-from-somewhere.jsonl"
    lines(desk / name, [{"messages": turns(*pair)} for pair in PAIRS])
    assert cli("init", name, *options).code == 0
    text = (desk / "recipe.toml").read_text().splitlines()
    assert max(len(line) for line in text) <= 80
    heads = [number for number, line in enumerate(text) if line.startswith("[")]
    assert len(heads) > 5
    assert all(text[number - 1] == "" for number in heads)


def test_long_messages_are_shortened_and_no_word_is_broken(desk, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    words = " ".join(f"word{n:03d}" for n in range(150))
    lines(desk / "data.jsonl", [{"messages": turns("Count.", words)}])
    said = cli("init", "data.jsonl")
    assert said.code == 0, said.err
    assert "(long messages are shortened here, not in the pool)" in said.out
    shown = said.out.partition("<|assistant|>")[2].partition("Wrote")[0]
    assert f"[... {len(words) - 260:,} characters ...]" in " ".join(shown.split())
    assert "word000" in shown
    assert "word149" in shown
    assert "word075" not in shown
    assert all(len(line) <= 60 for line in shown.splitlines())
    # The number of tokens is that of the whole row.
    tokens = int(said.out.partition("data.jsonl:1: ")[2].partition(" tokens")[0])
    assert tokens > 400
    (desk / "recipe.toml").unlink()
    lines(desk / "data.jsonl", [{"messages": turns("Count.", "One, two.")}])
    assert "shortened" not in cli("init", "data.jsonl").out


def test_paths_start_from_the_recipe(desk, cli):
    (desk / "data").mkdir()
    (desk / "recipes").mkdir()
    for name in ("a", "b"):
        lines(desk / "data" / f"{name}.jsonl", [{"messages": turns(name, "yes")}])
    out = "recipes/mine.toml"
    assert cli("init", "data/a.jsonl", "data/b.jsonl", "--out", out).code == 0
    recipe = tomllib.loads((desk / out).read_text())
    assert recipe["pool"]["path"] == ["../data/a.jsonl", "../data/b.jsonl"]
    said = cli("run", out, "--until", "pool")
    assert "sources: a 1, b 1" in said.err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["none.jsonl"], "there is no file or folder none.jsonl", "check the path"),
        (["notes.txt"], "notes.txt: its name says nothing about its format", ".jsonl"),
        (["a.jsonl", "t.csv"], "the files need different readers", "one format"),
        (["odd.jsonl"], "no format fits: the columns are x, y", "--column prompt=COLUMN"),
        (["a.jsonl", "--column", "promt=x"], "not of the form NAME=COLUMN", "prompt"),
        (["a.jsonl", "--task", "arc_easy"], "--task evaluates a model", "--model"),
        (["empty.jsonl"], "no row can be used", "the reasons are above"),
        (["old.jsonl", "--out", "a.jsonl"], "a.jsonl already exists", "--force"),
    ],
)
def test_mistakes_say_where_what_and_what_next(desk, cli, arguments, message, hint):
    lines(desk / "a.jsonl", [{"messages": turns("q", "a")}])
    lines(desk / "odd.jsonl", [{"x": 1, "y": "b"}])
    lines(desk / "empty.jsonl", [{"messages": turns("q", "")}])
    table(desk / "t.csv", ["prompt", "completion"], PAIRS)
    (desk / "notes.txt").write_text("hello")
    said = cli("init", *arguments)
    assert said.code == 2
    assert message in said.err
    assert hint in said.err
    assert not (desk / "recipe.toml").exists()
