# ruff: noqa: RUF001  (texts of other scripts)
"""The filter ``language``: texts of known languages, what does not count, and what is written."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import write_rows
from filter_pools import conversation, marked, raw

from selectmoe_core import Job, RecipeError
from selectmoe_core.config import parse
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.testing import check_filter, check_plugin
from selectmoe_filters.config import CODES, LanguageConfig
from selectmoe_filters.language import Language, detector, letters, prose
from selectmoe_filters.plugin import selectmoe_filters

TEXTS = {
    "en": ("How do I cook rice for four people?", "Wash it well, then boil it in salted water."),
    "de": ("Wie koche ich Reis für vier Leute?", "Wasche ihn gut und koche ihn in Salzwasser."),
    "fr": ("Comment cuire du riz pour quatre ?", "Lavez-le bien, puis faites-le bouillir."),
    "es": ("¿Cómo cocino arroz para cuatro personas?", "Lávalo bien y hiérvelo en agua con sal."),
    "ru": ("Как сварить рис на четверых?", "Хорошо промойте его и сварите в солёной воде."),
    "zh": ("请告诉我怎么给四个人煮米饭。", "先把米洗干净，然后放在盐水里煮熟。"),
    "ja": ("四人分のご飯はどうやって炊きますか。", "お米をよく洗ってから炊飯器で炊いてください。"),
}
CODE = "```python\nfor number in range(10):\n    print(number, 'and the next one')\n```"


def rows_of_all():
    return [conversation(*TEXTS[name], source=f"of-{name}") for name in TEXTS]


def left_out(config, rows, folder):
    found, groups = marked(Language(config), rows, folder)
    assert not groups
    return found


@pytest.mark.parametrize("text", ["conversation", "prompt", "answers"])
def test_each_language_is_known(text, tmp_path):
    found = left_out(LanguageConfig(keep=("pt",), text=text), rows_of_all(), tmp_path)
    assert found == {n: f"its language is {name}" for n, name in enumerate(TEXTS)}


def test_what_is_kept_and_what_is_dropped(tmp_path):
    rows, names = rows_of_all(), list(TEXTS)
    kept = left_out(LanguageConfig(keep=("en", "de")), rows, tmp_path / "keep")
    assert set(kept) == {n for n, name in enumerate(names) if name not in ("en", "de")}
    dropped = left_out(LanguageConfig(drop=("ru", "zh")), rows, tmp_path / "drop")
    assert {names[n] for n in dropped} == {"ru", "zh"}
    assert left_out(LanguageConfig(), rows, tmp_path / "count") == {}


def test_prompt_and_answer_may_differ(tmp_path):
    rows = [conversation(TEXTS["en"][0], TEXTS["de"][1])]
    for number, (text, name) in enumerate({"prompt": "en", "answers": "de"}.items()):
        config = LanguageConfig(keep=("fr",), text=text)
        assert left_out(config, rows, tmp_path / f"{number}") == {0: f"its language is {name}"}


@pytest.mark.parametrize(("unknown", "out"), [("keep", set()), ("drop", {0, 1})])
def test_short_texts_are_unknown_and_stay_unless_told_otherwise(unknown, out, tmp_path):
    rows = [conversation("2 + 2 = 4, 3 * 3 = 9, 17 - 4 = ?", "13"), conversation("Oui?", "No.")]
    config = LanguageConfig(keep=("en",), unknown=unknown)
    found = left_out(config, rows, tmp_path)
    assert found == dict.fromkeys(out, "its language is unknown")
    config = LanguageConfig(keep=("pt",), min_confidence=1, unknown=unknown)
    every = left_out(config, rows_of_all(), tmp_path / "sure")
    reasons = set(every.values())
    assert ("its language is unknown" in reasons) == (unknown == "drop")


def test_code_and_addresses_do_not_count(tmp_path):
    answer = f"{CODE}\nhttps://example.org/the/house/of/the/people\n{TEXTS['de'][1]} `for x in y`"
    rows = [conversation(TEXTS["de"][0], answer), conversation("?", f"{CODE} {CODE}")]
    found = left_out(LanguageConfig(keep=("en",), unknown="drop"), rows, tmp_path)
    assert found == {0: "its language is de", 1: "its language is unknown"}
    assert prose([f"a {CODE} b ```never closed", "`c` <b>d</b>"], 99) == "a b d"
    assert prose(["one two", "three four"], 9) == "one two th"
    assert [letters("a1 b-c"), letters("水a")] == [3, 4]


def test_every_row_has_a_language_that_is_counted_by_source(tmp_path):
    from selectmoe_core.stages.filtering import describe

    pool = build_pool([*rows_of_all(), conversation("1", "2", source="of-en")], tmp_path)
    marks = Language(LanguageConfig(drop=("de",))).mark(pool, Job(seed=1))
    assert marks.problem(len(pool)) is None
    assert marks.columns["language"].to_pylist() == [*TEXTS, "unknown"]
    counts = describe(marks, pool)["languages"]
    assert counts == {f"of-{name}": {name: 1} for name in TEXTS} | {
        "of-en": {"en": 1, "unknown": 1}
    }


def test_the_selection_says_the_language_of_each_row(project):
    rows = [
        {"dataset": f"s{n % 2}", "messages": [
            {"role": "user", "content": f"{TEXTS[name][0]} ({n})"},
            {"role": "assistant", "content": TEXTS[name][1] + "." * n},
        ]}
        for n, name in enumerate([*TEXTS] * 3)
    ]  # fmt: skip
    write_rows(project.folder / "pool.jsonl", rows)
    told = "filter={language={use='language', drop=['de', 'fr']}}"
    said = project.run(told, "select.fraction=1", "--until", "select")
    assert said.code == 0, said.err
    assert "its language is de 3; its language is fr 3" in said.err
    assert "languages: de 3, en 3" in " ".join(said.err.split())
    folder = project.runs()[-1] / "artifacts" / "select"
    names = [*TEXTS] * 3
    for file, wanted in (("selection", False), ("left_out", True)):
        table = pq.read_table(folder / f"{file}.parquet").to_pydict()
        assert table["language"] == [names[row] for row in table["row"]]
        assert all((name in ("de", "fr")) == wanted for name in table["language"])
    facts = json.loads((folder / "artifact.json").read_text())["facts"]
    assert sum(counts["en"] for counts in facts["languages"].values()) == 3
    assert "language" not in json.dumps(facts["left_out"]).replace("its language is", "").replace(
        '"language: ', ""
    )


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"keep": ["english"]}, "there is no language 'english'"),
        ({"keep": ["en"], "drop": ["de"]}, "set 'keep' or 'drop', not both"),
        ({"min_confidence": 2}, "min_confidence"),
    ],
)
def test_mistakes_are_found_with_the_recipe(options, what):
    with pytest.raises(RecipeError, match=what):
        parse(LanguageConfig, options, where="[filter.language]")


def test_the_codes_are_those_of_the_detector():
    detect = detector()
    texts = np.random.default_rng().permutation([" ".join(own) for own in TEXTS.values()])
    assert {detect(text)[0] for text in texts.tolist()} == set(TEXTS)
    assert set(TEXTS) < CODES
    assert len(CODES) == 176


def test_it_keeps_the_contract_of_filters():
    check_plugin("selectmoe_filters.plugin")
    component = next(c for c in selectmoe_filters() if c.name == "language")
    examples = [raw(row) for row in rows_of_all()]
    check_filter(component, options={"keep": ["en"]}, examples=examples)
