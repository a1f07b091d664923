"""Recipes: layers, overrides, paths, and every mistake told at once."""

import itertools
import json
import tomllib
from pathlib import Path

import pytest

from selectmoe_core.errors import RecipeError
from selectmoe_core.recipe.overrides import RESERVED, parse_value
from selectmoe_core.recipe.recipe import OPTIONS, StageOptions, read_recipe

HEAD = 'format = 1\nname = "r"\n'
POOL = '[pool]\nuse = "jsonl"\npath = "pool.jsonl"\n'


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path):
    return write(
        tmp_path / "r.toml",
        HEAD + POOL + '[score]\nuse = "length"\nunit = "words"\nseed = 3\nmax_skipped = 0.5\n'
        '[select]\nuse = "top-fraction"\nfraction = 0.05\nscore = "x"\n',
    )


# ------------------------------------------------------------------------------------ layers


def test_a_chain_of_three_is_laid_over_key_by_key(tmp_path):
    write(tmp_path / "a.toml", HEAD + POOL + '[score]\nuse = "length"\nunit = "words"\n')
    write(tmp_path / "b.toml", 'extends = "a.toml"\nname = "b"\n[score]\ndirection = "short"\n')
    path = write(tmp_path / "c.toml", 'extends = "b.toml"\nseed = 9\n[score]\nunit = "characters"')
    recipe = read_recipe(path)
    assert (recipe.head.name, recipe.head.seed) == ("b", 9)
    score = {"unit": "characters", "direction": "short"}
    assert recipe.scores[""].options == score
    assert recipe.resolved["score"] == {"use": "length", **score}
    assert not recipe.problems


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_recipe_that_extends_itself_is_told_with_the_whole_chain(tmp_path, length):
    names = [f"{letter}.toml" for letter in "abc"[:length]]
    for name, parent in zip(names, [*names[1:], names[0]], strict=True):
        write(tmp_path / name, f'extends = "{parent}"\n')
    with pytest.raises(RecipeError, match="extends itself") as caught:
        read_recipe(tmp_path / names[0])
    assert " -> ".join([*names, names[0]]) in str(caught.value)


def test_a_recipe_extends_a_shipped_one_by_name(tmp_path):
    write(tmp_path / "shipped" / "default.toml", HEAD + POOL)
    path = write(tmp_path / "mine.toml", 'extends = "default.toml"\nname = "mine"\n')
    recipe = read_recipe(path, shipped=tmp_path / "shipped")
    assert recipe.head.name == "mine"
    assert read_recipe(Path("default"), shipped=tmp_path / "shipped").head.name == "r"


def test_extends_must_be_a_file_name(tmp_path):
    with pytest.raises(RecipeError, match="'extends' must be a file name"):
        read_recipe(write(tmp_path / "a.toml", HEAD + "extends = 3\n"))


def test_a_missing_parent_is_told(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe nowhere\.toml"):
        read_recipe(write(tmp_path / "a.toml", 'extends = "nowhere.toml"\n'))


# --------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("3", 3),
        ("-1e-4", -1e-4),
        ("true", True),
        ("True", True),
        ("False", False),
        ("words", "words"),
        ("'two words'", "two words"),
        ('"quoted"', "quoted"),
        ("two words", "two words"),
        ("a/b.jsonl", "a/b.jsonl"),
        ("[1, 2]", [1, 2]),
        ("[arc_easy,sciq]", ["arc_easy", "sciq"]),
        ("[arc_easy, 'sciq', 3, true]", ["arc_easy", "sciq", 3, True]),
        ("[]", []),
        ('{use="x"}', {"use": "x"}),
        ("", ""),
        ("a=b", "a=b"),
        ("bundled:nano-llama", "bundled:nano-llama"),
        ("2024-01-01x", "2024-01-01x"),
    ],
)
def test_a_value_is_toml_or_else_text(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_overrides_set_add_and_remove(file):
    recipe = read_recipe(file, ["select.fraction=0.2", "+seed=5", "~score.unit", "~select.score"])
    assert recipe.head.seed == 5
    assert recipe.resolved["select"] == {"use": "top-fraction", "fraction": 0.2}
    assert "unit" not in recipe.resolved["score"]
    assert "select" not in read_recipe(file, ["~select"]).resolved


def test_an_override_may_add_a_whole_table(file):
    recipe = read_recipe(file, ["train.use=llama-lora", "train.model=x/y", "train.epochs=2"])
    assert recipe.tables["train"].options == {"epochs": 2}
    assert recipe.tables["train"].own.model == "x/y"
    same = read_recipe(file, ['train={use="llama-lora", model="x/y", epochs=2}'])
    assert same.resolved == recipe.resolved


@pytest.mark.parametrize(
    "override", ["select.fraction", "=3", ".a=3", "a..b=3", "a b=3", "select.=3", ""]
)
def test_what_is_no_override_is_told(file, override):
    with pytest.raises(RecipeError, match="not of the form KEY=VALUE") as caught:
        read_recipe(file, [override])
    assert "select.fraction=0.1" in caught.value.hint


@pytest.mark.parametrize("override", ["~nothing", "~score.nothing", "~name.x", "~a.b.c"])
def test_what_is_not_there_cannot_be_removed(file, override):
    with pytest.raises(RecipeError, match="to remove"):
        read_recipe(file, [override])


def test_the_order_of_overrides_does_not_matter(file):
    overrides = ["score.use=router", "score.layers=last:2", "select.fraction=0.5", "~score.seed"]
    results = [
        json.dumps(read_recipe(file, order).resolved, sort_keys=True)
        for order in itertools.permutations(overrides)
    ]
    assert len(results) == 24
    assert len(set(results)) == 1
    assert json.loads(results[0])["score"] == {
        "use": "router",
        "layers": "last:2",
        "max_skipped": 0.5,
    }


# ---------------------------------------------------------------------------- a changed `use`


def test_a_changed_use_drops_the_old_options_and_lists_them(file):
    recipe = read_recipe(file, ["score.use=random"])
    assert recipe.resolved["score"] == {"use": "random", "seed": 3, "max_skipped": 0.5}
    assert recipe.dropped == ("score.unit (of length)",)


def test_the_same_use_drops_nothing(file):
    recipe = read_recipe(file, ["score.use=length"])
    assert recipe.resolved["score"]["unit"] == "words"
    assert recipe.dropped == ()


def test_a_child_recipe_that_changes_use_keeps_what_stands_beside_it(tmp_path, file):
    child = '[select]\nuse = "top-k"\nk = 3\n'
    recipe = read_recipe(write(tmp_path / "child.toml", f'extends = "{file.name}"\n{child}'))
    assert recipe.resolved["select"] == {"use": "top-k", "k": 3, "score": "x"}
    assert recipe.dropped == ("select.fraction (of top-fraction)",)


NAMED = '[score.a]\nuse = "length"\nunit = "words"\n[score.b]\nuse = "random"\n'


def test_named_scores_replace_a_parents_single_one_and_a_single_one_replaces_them(tmp_path, file):
    child = write(tmp_path / "child.toml", f'extends = "{file.name}"\n{NAMED}')
    recipe = read_recipe(child)
    assert recipe.problems == ()
    assert set(recipe.scores) == {"a", "b"}
    assert recipe.resolved["score"] == {
        "a": {"use": "length", "unit": "words"},
        "b": {"use": "random"},
    }
    assert "score.use (of the parent recipe)" in recipe.dropped
    single = read_recipe(child, ["score.use=random", "score.seed=5"])
    assert single.problems == ()
    assert single.resolved["score"] == {"use": "random", "seed": 5}


def test_named_scores_are_added_to_named_ones_and_changed_one_by_one(tmp_path):
    parent = write(tmp_path / "parent.toml", HEAD + POOL + NAMED)
    more = '[score.c]\nuse = "random"\n[score.a]\nunit = "characters"\n'
    child = write(tmp_path / "child.toml", f'extends = "{parent.name}"\n{more}')
    recipe = read_recipe(child, ["score.b.seed=4"])
    assert set(recipe.scores) == {"a", "b", "c"}
    assert recipe.scores["a"].options == {"unit": "characters"}
    assert recipe.scores["b"].own.seed == 4
    assert recipe.dropped == ()


def test_all_of_a_stages_own_keys_stay_when_use_changes():
    own = {key for kind in (StageOptions, *OPTIONS.values()) for key in kind.model_fields}
    assert own - {"use"} == RESERVED


# -------------------------------------------------------------------------------------- paths


def test_a_path_starts_from_the_file_that_wrote_it(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    write(tmp_path / "there" / "base.toml", HEAD + POOL + '[train]\nuse = "t"\nmodel = "./m"\n')
    path = write(
        tmp_path / "r.toml", 'extends = "there/base.toml"\n[evaluate]\nuse = "e"\ntasks = "./t"\n'
    )
    monkeypatch.chdir(tmp_path / "here")
    recipe = read_recipe(path, ["train.extra=./x"])
    assert recipe.tables["pool"].origins["path"] == tmp_path / "there"
    assert recipe.resolved["train"]["model"] == str(tmp_path / "there" / "m")
    assert recipe.resolved["evaluate"]["tasks"] == str(tmp_path / "t")
    assert recipe.resolved["train"]["extra"] == str(tmp_path / "here" / "x")


def test_a_template_file_starts_from_the_file_that_wrote_it(tmp_path, monkeypatch):
    path = write(tmp_path / "there" / "r.toml", HEAD + POOL + '[chat]\ntemplate = "c.jinja"\n')
    assert read_recipe(path).chat.template == str(tmp_path / "there" / "c.jinja")
    monkeypatch.chdir(tmp_path)
    override = read_recipe(path, ["chat.template=c.jinja"])
    assert override.chat.template == str(tmp_path / "c.jinja")
    assert read_recipe(path, ["chat.template=model"]).chat.template == "model"


# ----------------------------------------------------------------------------- several scores


def test_several_scores_are_stages_of_their_own(tmp_path):
    text = '[score.a]\nuse = "length"\nunit = "words"\n[score.b]\nuse = "random"\nseed = 4\n'
    recipe = read_recipe(write(tmp_path / "r.toml", HEAD + POOL + text))
    assert list(recipe.scores) == ["a", "b"]
    assert recipe.scores["a"].where == "[score.a]"
    assert recipe.scores["a"].options == {"unit": "words"}
    assert recipe.scores["b"].own.seed == 4
    assert not recipe.problems


def test_a_single_score_has_no_name(file):
    assert list(read_recipe(file).scores) == [""]


# ----------------------------------------------------------------------------------- mistakes


def test_all_mistakes_are_told_at_once_with_suggestions(tmp_path):
    text = (
        'format = 2\nname = "Not This"\nsed = 1\n'
        '[pool]\npath = "x"\non_reject = "ignore"\n'
        '[scor]\nuse = "length"\n'
        '[select]\nuse = ""\nsubset_ratio = 3\n'
        "[chat]\nmax_length = 0\ntemplat = 1\n"
        '[compare]\nbaselines = ["bse"]\n'
        "train = 3\n"
    )
    text = text.replace("train = 3\n", "")
    recipe = read_recipe(write(tmp_path / "r.toml", f"train = 3\n{text}"))
    told = [(str(problem), problem.hint) for problem in recipe.problems]
    expected = [
        ("r.toml: unknown key 'sed'", "did you mean 'seed'?"),
        ("r.toml: unknown table '[scor]'", "did you mean 'score'?"),
        ("r.toml: option 'format'", ""),
        ("r.toml: option 'name'", ""),
        ("[pool]: option 'use' is missing", "component's name"),
        ("[pool]: option 'on_reject'", ""),
        ("[select]: option 'use'", ""),
        ("[select]: option 'subset_ratio'", "got 3"),
        ("[chat]: option 'max_length'", ""),
        ("[chat]: unknown option 'templat'", "did you mean 'template'?"),
        ("[compare]: option 'baselines", ""),
        ("[train]: must be a table, got 3", ""),
    ]
    for what, _ in expected:
        assert sum(found.startswith(what) for found, _ in told) == 1, (what, told)
    for what, hint in expected:
        found = next(one for one in told if one[0].startswith(what))
        assert hint in "".join(found)
    assert len(told) == len(expected)


def test_a_recipe_without_a_stage_names_nothing_to_make(tmp_path):
    recipe = read_recipe(write(tmp_path / "r.toml", HEAD))
    (problem,) = recipe.problems
    assert str(problem) == ("r.toml: the recipe names nothing to make: it has no table of a stage")
    assert "[pool]" in problem.hint


def test_a_correct_recipe_has_no_problem(file):
    assert not read_recipe(file).problems


def test_not_utf8_names_the_byte(tmp_path):
    path = tmp_path / "r.toml"
    path.write_bytes(HEAD.encode() + b"# caf\xe9\n")
    with pytest.raises(RecipeError, match=rf"not UTF-8: byte {len(HEAD) + 5} is 0xe9") as caught:
        read_recipe(path)
    assert "UTF-8" in caught.value.hint


@pytest.mark.parametrize("text", ["a = ", "[pool", "a = 1\na = 2", "= 3"])
def test_not_toml_names_the_file(tmp_path, text):
    with pytest.raises(RecipeError, match=r"r\.toml: not valid TOML: .+"):
        read_recipe(write(tmp_path / "r.toml", text))


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = write(tmp_path / "r.toml", "\ufeff" + HEAD + POOL)
    assert read_recipe(path).head.name == "r"
    assert not read_recipe(path).problems


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="is a folder, not a recipe"):
        read_recipe(tmp_path)


def test_a_missing_recipe_names_the_way_to_the_shipped_ones(tmp_path):
    with pytest.raises(RecipeError, match="there is no recipe") as caught:
        read_recipe(tmp_path / "none.toml")
    assert "recipes list" in caught.value.hint


def test_the_resolved_recipe_survives_being_written(file):
    import tomli_w

    recipe = read_recipe(file, ["score.text=a\x7fb \u00a0 \u2028 \"q\" 'p' \\n"])
    assert tomllib.loads(tomli_w.dumps(dict(recipe.resolved))) == recipe.resolved


@pytest.mark.parametrize(
    "name",
    [
        "a/../../../victim.txt",
        "..",
        ".hidden",
        "a/b",
        "/etc/passwd",
        "a\\b",
        "a b",
        "",
        "é",
        "x\n",
        "n" * 101,
    ],
)
def test_the_name_of_a_score_cannot_lead_out_of_its_folder(project, name):
    victim = project.folder / "victim.txt"
    victim.write_text("precious")
    named = f'[score.{json.dumps(name)}]\nuse = "random"\n'
    scores = f'[score.a]\nuse = "length"\n\n{named}\n[select]\nscore = "a"'
    text = project.recipe.read_text()
    start, stop = text.index("[score]"), text.index("[select]") + len("[select]")
    project.recipe.write_text(text[:start] + scores + text[stop:])
    before = sorted(path for path in project.folder.rglob("*"))
    said = project.run("--until", "select")
    assert said.code == 2
    assert "cannot be the name of a score" in said.err
    assert "letters, digits" in said.err
    assert victim.read_text() == "precious"
    assert not victim.is_symlink()
    assert sorted(path for path in project.folder.rglob("*")) == before


OLD = {
    "selection_percentage=0.1": "select.fraction",
    "model_checkpoint_path=full_rank_weights.pt": "score.base_model",
    "selector_model.path=converted": "warmup.model",
    "dataset.dataset_names=[cot]": "pool.sources",
    "dataset.subset_ratio=0.1": "score.subset_ratio",
    "dataset.data_path=selected_data.jsonl": "train.data",
    "data_process.batch_size=16": "score.batch_tokens",
    "training.peft_mode=lora": "warmup.peft_mode",
    "training.batch_size=8": "train.batch_size",
    "training.lora.r=64": "train.lora_rank",
    "training.lora.lora_alpha=64": "train.lora_alpha",
    "lr=1e-4": "train.learning_rate",
    "epochs=2": "train.epochs",
    "batch_size=2": "train.batch_size",
}


@pytest.mark.parametrize("override", OLD)
def test_a_name_of_the_scripts_says_what_it_is_called_here(tmp_path, override):
    path = write(tmp_path / "r.toml", HEAD + POOL)
    (problem,) = read_recipe(path, [override]).problems
    assert str(problem) == f"r.toml: unknown key '{override.partition('=')[0]}'"
    assert problem.hint.startswith("here it is ")
    assert OLD[override] in problem.hint


def test_every_new_name_is_an_option():
    """What the hints of old names say is there, so that a renamed option is noticed."""
    import re

    from selectmoe_core.plugin.component import KINDS
    from selectmoe_core.plugin.manager import load_plugins
    from selectmoe_core.plugin.registry import Registry
    from selectmoe_core.recipe.old_names import OLD_NAMES
    from selectmoe_core.recipe.recipe import OPTIONS, StageOptions
    from selectmoe_core.tokens.chat import ChatConfig

    known = {f"chat.{name}" for name in ChatConfig.model_fields}
    for entry in Registry(load_plugins()):
        for stage, kind in KINDS.items():
            fields = [*OPTIONS.get(stage, StageOptions).model_fields]
            fields += entry.component.config.model_fields if kind is entry.kind else []
            known |= {f"{stage}.{name}" for name in fields}
    tables = "|".join(("chat", *KINDS))
    for new in OLD_NAMES.values():
        for name in re.findall(rf"\b(?:{tables})\.\w+", new):
            assert name in known, name
