"""Stages whose input is given by hand: nothing above them is made."""

import json
import tomllib

import pytest
from conftest import rows_of, write_rows

HEAD = 'format = 1\nname = "fake"\nseed = 7\n'
POOL = '[pool]\nuse = "jsonl"\npath = "pool.jsonl"\n'
TRAIN = '[train]\nuse = "fake-train"\nmodel = "./base"\n'
EVALUATE = '[evaluate]\nuse = "fake-eval"\n'
BASELINES = '[compare]\nbaselines = ["base", "random"]\n'
SCORE = '[score]\nuse = "fake-score"\nreads_model = true\n'
SELECT = '[select]\nuse = "top-k"\nk = 3\n'


def nodes_of(project, text, *arguments):
    project.recipe.write_text(HEAD + text)
    said = project.call("plan", "recipe.toml", "--json", *arguments)
    assert said.code == 0, said.err
    return {node["key"]: node for node in json.loads(said.out)["nodes"]}


def arms_of(project, text, *arguments):
    return {key: node["arms"] for key, node in nodes_of(project, text, *arguments).items()}


def adapter(project, name="adapter"):
    folder = project.folder / name
    folder.mkdir(parents=True)
    base = str(project.folder / "base")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / "rows").write_text("a\nb")
    return folder


def evaluated(project):
    return sorted(call for call in project.calls() if call.startswith("evaluate"))


# ------------------------------------------------------------------------------ data to train on


def test_training_on_given_data_needs_no_pool_no_score_and_no_selection(project):
    write_rows(project.folder / "chats.jsonl", rows_of(5))
    found = arms_of(project, TRAIN + 'data = "chats.jsonl"\n' + EVALUATE + BASELINES)
    assert found == {
        "pool": ["tuned"],
        "train": ["tuned"],
        "evaluate": ["tuned"],
        "evaluate@base": ["base"],
    }
    said = project.run()
    assert said.code == 0, said.err
    assert {"train 5", "evaluate tuned", "evaluate base"} <= set(project.calls())
    head = next(line for line in said.out.splitlines() if line.startswith("task"))
    assert head.split()[:3] == ["task", "base", "tuned"]
    assert "Not made: baseline random ([train] data is given)" in said.err


def test_given_data_replaces_the_stages_above_in_a_whole_recipe(project):
    write_rows(project.folder / "chats.jsonl", rows_of(4))
    found = project.plan("train.data=chats.jsonl")
    assert {node["key"] for node in found["nodes"]} == {
        "pool", "train", "evaluate", "evaluate@base",
    }  # fmt: skip
    for stage in ("pool", "convert", "warmup", "score", "select"):
        assert found["not_needed"][stage] == "[train] data is given"
    kept = project.plan("train.data=chats.jsonl", "--until", "select")
    assert "select" in {node["key"] for node in kept["nodes"]}


def test_the_folder_of_a_selection_is_read_back_whole(project):
    project.recipe.write_text(HEAD + POOL + '[score]\nuse = "length"\n' + SELECT)
    assert project.run().code == 0
    (selected,) = [p for p in project.store.glob("select-*") if p.is_dir()]
    kept = [json.loads(line) for line in (selected / "selected_data.jsonl").open()]
    project.recipe.write_text(HEAD + TRAIN + f'data = "{selected}"\n')
    said = project.run()
    assert said.code == 0, said.err
    assert "train 3" in project.calls()
    (pool,) = (project.runs()[-1] / "artifacts").glob("pool")
    from selectmoe_core.data.pool import Pool

    read = Pool.open(pool.resolve())
    examples = list(read.examples())
    assert [one.id for one in examples] == [row["id"] for row in kept]
    assert [one.source for one in examples] == [row["source"] for row in kept]
    names = [read.meta(row)["original_id"] for row in range(3)]
    assert names == [row["meta"]["original_id"] for row in kept]


@pytest.mark.parametrize(
    ("data", "reader"),
    [
        ('"chats.jsonl"', "jsonl"),
        ('["chats.jsonl", "pool.jsonl"]', "jsonl"),
        ('"table.csv"', "csv"),
        ('"table.tsv.gz"', "csv"),
        ('"rows.parquet"', "parquet"),
        ('"folder"', "parquet"),
        ('{ use = "nano", examples = 30 }', "nano"),
        ('{ path = "chats.jsonl", source = "mine" }', "jsonl"),
    ],
)
def test_the_reader_of_given_data_follows_from_its_ending(project, data, reader):
    for name in ("chats.jsonl", "table.csv", "table.tsv.gz", "rows.parquet", "folder/a.parquet"):
        (project.folder / name).parent.mkdir(exist_ok=True)
        (project.folder / name).write_text("{}\n")
    assert nodes_of(project, TRAIN + f"data = {data}\n")["pool"]["component"] == reader


def test_the_recipe_of_a_run_names_its_data_in_full(project):
    (project.folder / "sub").mkdir()
    write_rows(project.folder / "sub" / "chats.jsonl", rows_of(4))
    (project.folder / "sub" / "recipe.toml").write_text(
        HEAD + TRAIN.replace("./base", "../base") + 'data = "chats.jsonl"\n'
    )
    said = project.call("run", "sub/recipe.toml")
    assert said.code == 0, said.err
    resolved = project.runs()[-1] / "recipe.toml"
    wanted = {"use": "jsonl", "path": str(project.folder / "sub" / "chats.jsonl")}
    assert tomllib.loads(resolved.read_text())["train"]["data"] == wanted
    again = project.call("run", resolved)
    assert again.code == 0, again.err
    assert "train             fake-train         reused" in again.err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('"none.jsonl"', "[train.data] jsonl: there is no"),
        ('{ use = "jsnl", path = "pool.jsonl" }', "there is no reader named 'jsnl'"),
        ('{ path = "pool.jsonl", on_reject = "halt" }', "[train.data]: option 'on_reject'"),
        ('{ path = "pool.jsonl", sorce = "x" }', "unknown option 'sorce'"),
        ('""', "option 'path' is empty"),
    ],
)
def test_mistakes_in_given_data_are_named(project, data, message):
    project.recipe.write_text(HEAD + TRAIN + f"data = {data}\n")
    said = project.run()
    assert said.code == 2
    assert message in said.err


# --------------------------------------------------------------------------------- what to evaluate


@pytest.mark.parametrize(
    ("text", "arms"),
    [
        ('model = "./base"\n', {"evaluate": ["base"]}),
        ('model = "./base"\n' + BASELINES, {"evaluate": ["base"]}),
        ('adapter = "adapter"\n', {"evaluate": ["adapter"]}),
        ('model = "./base"\nadapter = "adapter"\n', {"evaluate": ["adapter"]}),
        ('model = "adapter"\n', {"evaluate": ["adapter"]}),
        ('adapter = "stage"\n', {"evaluate": ["adapter"]}),
        (
            'adapter = "adapter"\n' + BASELINES,
            {"evaluate": ["adapter"], "evaluate@base": ["base"]},
        ),
    ],
)
def test_an_evaluation_on_its_own_is_named_for_what_it_evaluates(project, text, arms):
    adapter(project)
    adapter(project, "stage/model")
    assert arms_of(project, EVALUATE + text) == arms


def test_a_base_and_its_adapter_are_columns_of_one_table(project):
    adapter(project)
    project.recipe.write_text(HEAD + EVALUATE + 'adapter = "adapter"\n' + BASELINES)
    said = project.run()
    assert said.code == 0, said.err
    assert evaluated(project) == ["evaluate base", "evaluate tuned"]
    assert said.out.splitlines()[0].split()[:3] == ["task", "base", "adapter"]
    again = project.run("evaluate.adapter=./adapter")
    assert evaluated(project) == []
    assert again.code == 0
    (project.folder / "adapter" / "rows").write_text("other")
    assert project.run().code == 0
    assert evaluated(project) == ["evaluate tuned"]


def test_an_adapter_replaces_the_stages_above_in_a_whole_recipe(project):
    adapter(project)
    found = project.plan("evaluate.adapter=adapter")
    assert [node["key"] for node in found["nodes"]] == ["evaluate", "evaluate@base"]
    assert found["not_needed"]["train"] == "[evaluate] adapter is given"


def test_a_folder_that_is_no_adapter_is_an_error(project):
    project.recipe.write_text(HEAD + EVALUATE + 'adapter = "base"\n')
    said = project.run()
    assert said.code == 2
    assert "base is no adapter: it has no adapter_config.json" in said.err


# ------------------------------------------------------------------------------- models to score


def test_a_model_is_found_in_the_folder_of_a_finished_stage(project):
    project.recipe.write_text(HEAD + '[convert]\nuse = "fake-convert"\nmodel = "./base"\n')
    assert project.run().code == 0
    folder = project.runs()[-1] / "artifacts" / "convert"
    digests = set()
    for model in (folder, folder / "model", folder.resolve()):
        found = nodes_of(project, POOL + SCORE + f'model = "{model}"\n')
        assert set(found) == {"pool", "score"}
        assert found["score"]["model"] == str(folder.resolve() / "model")
        digests.add(found["score"]["digest"])
    assert len(digests) == 1
    warmed = nodes_of(project, POOL + f'[warmup]\nuse = "fake-train"\nmodel = "{folder}"\n')
    assert set(warmed) == {"pool", "warmup"}


def test_a_state_file_needs_the_model_it_belongs_to(project):
    (project.folder / "state.pt").write_bytes(b"tensors")
    text = POOL + SCORE + 'model = "state.pt"\n'
    project.recipe.write_text(HEAD + text)
    said = project.call("plan", "recipe.toml")
    assert said.code == 2
    assert "state.pt holds trained tensors, not a model" in said.err
    assert 'base_model = "CONVERTED"' in said.err
    before = nodes_of(project, text + 'base_model = "base"\n')["score"]["digest"]
    (project.folder / "base" / "model.safetensors").write_bytes(b"other weights")
    assert nodes_of(project, text + 'base_model = "base"\n')["score"]["digest"] != before
    project.recipe.write_text(HEAD + POOL + SCORE + 'model = "base"\nbase_model = "base"\n')
    said = project.call("plan", "recipe.toml")
    assert said.code == 2
    assert "'base_model' has no effect here" in said.err


# ------------------------------------------------------------------------- a sample of the pool


def test_a_sample_is_scored_and_selected_from_while_warm_up_reads_the_whole_pool(project):
    found = {node["key"]: node for node in project.plan("score.subset_ratio=0.5")["nodes"]}
    assert found["score"]["reads"]["pool"] == "pool"
    assert found["select"]["reads"]["pool"] == "pool"
    assert found["select@random"]["reads"]["pool"] == "pool"
    assert found["warmup"]["reads"]["pool"] == "pool:warmup"
    half = project.digests("pool.subset_ratio=0.5")
    assert found["pool"]["digest"] == half["pool"]
    assert found["pool:warmup"]["digest"] == project.digests()["pool"]
    said = project.run("score.subset_ratio=0.5", "--until", "select")
    assert said.code == 0, said.err
    scored = int(said.err.partition("scored ")[2].split()[0])
    assert 10 <= scored <= 30
    kept, of = said.err.partition("kept ")[2].splitlines()[0].split(", of ")
    assert int(of) == scored
    assert int(kept) == round(scored / 4)


def test_without_a_warm_up_there_is_one_pool(project):
    assert "pool:warmup" not in project.digests("score.subset_ratio=0.5", "score.use=length")


def test_two_samples_are_an_error(project):
    text = POOL + '[score.a]\nuse = "length"\nsubset_ratio = 0.5\n[score.b]\nuse = "random"\n'
    project.recipe.write_text(HEAD + text + SELECT + 'score = "a"\n')
    said = project.run()
    assert said.code == 2
    assert "the scores have different values of subset_ratio" in said.err


# ---------------------------------------------------------------------------- nothing to be made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the recipe names nothing to make"),
        ("[chat]\nmax_length = 99\n", "the recipe names nothing to make"),
        (SCORE + 'model = "./base"\n', "[score]: there is no [pool] to read"),
        (
            '[warmup]\nuse = "fake-train"\nmodel = "./base"\n',
            "[warmup]: there is no [pool] to read",
        ),
        (POOL + TRAIN, '[train]: needs a table [select]\nHint: add [select], or data = "..."'),
        (
            POOL + '[warmup]\nuse = "fake-train"\n',
            '[warmup]: needs a table [convert]\nHint: add [convert], or model = "..."',
        ),
    ],
)
def test_a_recipe_that_lacks_an_input_says_what_to_add(project, text, message):
    project.recipe.write_text(HEAD + text)
    said = project.run()
    assert said.code == 2
    assert message in said.err
    assert said.err.count("Error:") == 1


def test_a_recipe_of_one_stage_needs_no_pool(project):
    convert = '[convert]\nuse = "fake-convert"\nmodel = "./base"\n'
    assert list(nodes_of(project, convert)) == ["convert"]
    said = project.run()
    assert said.code == 0, said.err
    assert "Next: Warm it up\n  selectmoe run steps/warmup warmup.model=outputs/fake/" in said.err
