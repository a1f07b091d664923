"""Lengths, patterns and leaked questions, each beside a plain loop."""

import re
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
from filter_pools import conversation, marked, raw

from selectmoe_core import Job, Question, RecipeError
from selectmoe_core.config import parse
from selectmoe_core.data.questions import write_questions
from selectmoe_filters.config import (
    LanguageConfig,
    LeakConfig,
    LengthConfig,
    NearDuplicatesConfig,
    RegexConfig,
)
from selectmoe_filters.duplicates import NearDuplicates
from selectmoe_filters.language import Language
from selectmoe_filters.leak import Leak
from selectmoe_filters.length import Length
from selectmoe_filters.patterns import Regex

# ------------------------------------------------------------------------------------ length


def test_lengths_equal_a_plain_count(tmp_path):
    random = np.random.default_rng()
    rows = [
        conversation(*(("x" * random.integers(1, 40)) + f"{n} {turn}" for turn in range(2 * k)))
        for n, k in enumerate(random.integers(1, 4, size=80).tolist())
    ]
    turns = ("q" * 10, "a" * 10) * 3
    rows += [
        conversation("q", "a" * 30),
        conversation("q" * 61, "a" * 30),
        conversation(*turns),
    ]
    rows += [conversation("q" * 30, "a"), conversation("q" * 40, "a" * 91)]
    config = LengthConfig(min_prompt=20, max_prompt=60, min_answer=15, max_total=130, max_turns=4)
    expected = {}
    for n, row in enumerate(rows):
        answer = sum(len(m.content) for m in row.messages if m.role == "assistant")
        prompt = sum(len(m.content) for m in row.messages if m.role == "user")
        for reason, bad in (
            ("prompt shorter than 20 characters", prompt < 20),
            ("prompt longer than 60 characters", prompt > 60),
            ("answer shorter than 15 characters", answer < 15),
            ("total longer than 130 characters", prompt + answer > 130),
            ("turns longer than 4", len(row.messages) > 4),
        ):
            if bad:
                expected[n] = reason
                break
    assert len(set(expected.values())) == 5
    assert marked(Length(config), rows, tmp_path) == (expected, set())


def test_lengths_in_tokens_are_those_that_training_sees(tmp_path):
    from selectmoe_core import Job, ModelRef
    from selectmoe_core.data.examples import Part
    from selectmoe_core.testing.pools import installed_models

    rows = [
        conversation("What is 2 + 3?" + " please" * n, "5" + " five" * (n * 5 % 7))
        for n in range(20)
    ]
    job = Job(seed=1, models=installed_models())
    tokenizer = job.models.tokenizer(ModelRef("bundled:nano-llama"))
    seen = [job.chat.encode([example], tokenizer)[0] for example in map(raw, rows)]
    for name, counted in (
        ("prompt", [int((one.parts == Part.PROMPT).sum()) for one in seen]),
        ("answer", [int((one.parts == Part.RESPONSE).sum()) for one in seen]),
        ("total", [len(one.ids) for one in seen]),
    ):
        middle = sorted(counted)[10]
        config = LengthConfig(**{"unit": "tokens", f"max_{name}": middle})
        found, _ = marked(
            Length(config), rows, tmp_path / name, job=job, model="bundled:nano-llama"
        )
        expected = {n for n, count in enumerate(counted) if count > middle}
        assert expected
        assert found == dict.fromkeys(expected, f"{name} longer than {middle} tokens")


@pytest.mark.parametrize(
    ("options", "what"),
    [({}, "set at least one bound"), ({"min_answer": 9, "max_answer": 3}, "is above 'max_answer'")],
)
def test_bounds_that_say_nothing_are_mistakes(options, what):
    with pytest.raises(RecipeError, match=what):
        parse(LengthConfig, options, where="[filter.length]")


# ----------------------------------------------------------------------------------- patterns


def test_patterns_equal_a_plain_search(tmp_path):
    words = ["http://a", "As an AI", "as an ai", "fine", "größe", "x" * 50]
    random = np.random.default_rng()
    rows = [
        conversation(
            f"{n} {random.choice(words)}", f"{random.choice(words)} {random.choice(words)}"
        )
        for n in range(60)
    ]
    rows += [conversation("nothing", "nothing"), conversation("https://a", "As an AI größe")]
    patterns = ("(?i)as an ai", "gr\u00f6\u00dfe", "https?://")
    for text in ("answers", "prompt", "conversation"):
        for keep in (False, True):
            expected = {}
            for n, row in enumerate(rows):
                own = {"prompt": row.messages[:1], "answers": row.messages[1:]}
                where = [m.content for m in own.get(text, row.messages)]
                hits = [p for p in patterns if any(re.search(p, one) for one in where)]
                if keep and not hits:
                    expected[n] = "matches no pattern"
                elif hits and not keep:
                    expected[n] = f"matches {hits[0]}"
            assert expected
            config = RegexConfig(patterns=patterns, text=text, keep=keep)
            folder = tmp_path / f"{text}{keep}"
            assert marked(Regex(config), rows, folder) == (expected, set())


def test_a_pattern_that_would_take_for_ever_elsewhere_is_quick(tmp_path):
    config = RegexConfig(patterns=("(a+)+$",))
    found, _ = marked(Regex(config), [conversation("q", "a" * 100_000 + "b")], tmp_path)
    assert found == {}


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("(", "RE2 cannot read the pattern"),
        ("(?=x)y", "RE2 cannot read the pattern"),
        ("a*", "found in every text"),
    ],
)
def test_a_pattern_is_checked_with_the_recipe(pattern, what):
    with pytest.raises(RecipeError, match=what):
        parse(RegexConfig, {"patterns": [pattern]}, where="[filter.regex]")


# ---------------------------------------------------------------------------------------- leak

VOCABULARY = [f"word{n}" for n in range(13)]


def sentence(random, count):
    return " ".join(random.choice(VOCABULARY, size=count).tolist())


def plain_runs(text, size):
    own = re.findall(r"\w+", text.lower())
    return {tuple(own[i : i + size]) for i in range(len(own) - size + 1)}


def test_leaks_equal_a_plain_comparison(tmp_path):
    random = np.random.default_rng()
    asked = [
        Question(f"task{n % 2}", sentence(random, random.integers(3, 30)), (sentence(random, 9),))
        for n in range(40)
    ]
    asked[:4] = [Question("task0", sentence(random, 20), (sentence(random, 9),)) for _ in range(4)]
    rows = [conversation(f"question {n}", asked[n].text) for n in range(4)]
    for n in range(150):
        own = sentence(random, 20).split()
        if n % 3 == 0:  # hold a stretch of a question, with other case and punctuation
            text = asked[random.integers(40)]
            stretch = (text.text if n % 2 else text.answers[0]).split()
            start = random.integers(max(len(stretch) - 8, 1))
            own[5:5] = [w.upper() + "," for w in stretch[start : start + random.integers(9, 25)]]
        rows.append(conversation(f"{n} words", " ".join(own)))
    for answers in (True, False):
        config = LeakConfig(ngram=11, shortest=7, common=0, answers=answers)
        texts = [(q.task, t) for q in asked for t in (q.text, *(q.answers if answers else ()))]
        expected = {}
        for n, row in enumerate(rows):
            tasks = set()
            for task, text in texts:
                length = len(text.split())
                size = 11 if length >= 11 else length
                shared = any(
                    plain_runs(text, size) & plain_runs(m.content, size) for m in row.messages
                )
                if length >= 7 and shared:
                    tasks.add(task)
            if tasks:
                expected[n] = f"holds a part of a question of {min(tasks)}"
        assert 4 <= len(expected) < len(rows)
        folder = tmp_path / f"{answers}"
        folder.mkdir()
        write_questions(folder, asked)
        assert marked(Leak(config), rows, folder, questions=folder) == (expected, set())


def test_the_wording_of_a_task_is_no_leak(tmp_path):
    wording = "read the following passage closely and then answer the question below with yes or no"
    asked = [Question("boolq", f"{wording} {n} {n + 1} {n + 2}") for n in range(12)]
    write_questions(tmp_path, asked)
    rows = [conversation(f"{wording} is it so", "yes")]
    found, _ = marked(Leak(LeakConfig(common=11)), rows, tmp_path / "few", questions=tmp_path)
    assert found == {}
    found, _ = marked(Leak(LeakConfig(common=12)), rows, tmp_path / "all", questions=tmp_path)
    assert found == {0: "holds a part of a question of boolq"}


def test_scripts_without_spaces_have_words_too(tmp_path):
    write_questions(tmp_path, [Question("c", "水の沸点は摂氏何度ですかと先生が聞いた")])
    rows = [
        conversation("聞く", "昨日、水の沸点は摂氏何度ですかと先生が言った"),
        conversation("q", "水の沸点"),
    ]
    found, _ = marked(Leak(LeakConfig()), rows, tmp_path / "pool", questions=tmp_path)
    assert found == {0: "holds a part of a question of c"}


# ----------------------------------------------------------------------------------- progress


@pytest.mark.parametrize(
    "part",
    [
        Length(LengthConfig(min_answer=1)),
        Regex(RegexConfig(patterns=("a",))),
        Language(LanguageConfig(keep=("en",))),
        NearDuplicates(NearDuplicatesConfig()),
    ],
    ids=lambda part: type(part).__name__,
)
@pytest.mark.parametrize("size", [3, 8])
def test_the_bar_reaches_its_end(part, size, tmp_path, monkeypatch):
    monkeypatch.setattr("selectmoe_filters.rows.BLOCK", 4)
    done = Counter()

    class Counted:
        @contextmanager
        def task(self, label, total, unit="examples", done_before=0):
            done[label] -= total
            yield lambda amount: done.update({label: amount})

    rows = [conversation(f"question {n}", "an answer") for n in range(size)]
    marked(part, rows, tmp_path, job=Job(seed=1, progress=Counted()))
    assert done
    assert not any(done.values()), "some are never shown as done"
