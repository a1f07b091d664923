import hashlib
import json
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from llama_models import job
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from nano_answers import RIGHT, is_right
from transformers import AutoModelForCausalLM, AutoTokenizer

from selectmoe_core.cost import Workload
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.errors import DataError
from selectmoe_core.models.models import ModelRef, Models, TargetModel
from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.evaluator import LmEval
from selectmoe_nano import generator, reader
from selectmoe_nano.config import NanoConfig
from selectmoe_nano.damage import REFUSALS, SHARES
from selectmoe_nano.examination import PER_FAMILY, lines
from selectmoe_nano.plugin import (
    selectmoe_bundled_models,
    selectmoe_bundled_tasks,
    selectmoe_readers,
)

FOLDERS = selectmoe_bundled_models()
TASKS = selectmoe_bundled_tasks()
ABSENT = [name for name, folder in FOLDERS.items() if not (folder / "checksums.json").is_file()]
needs_models = pytest.mark.skipif(
    bool(ABSENT), reason=f"not pretrained yet (tools/pretrain_nano.py): {', '.join(ABSENT)}"
)
MIB = 1 << 20


@pytest.fixture(params=sorted(FOLDERS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def models():
    return Models(bundled=FOLDERS)


def read(folder, seed=3, **options):
    (component,) = selectmoe_readers()
    return list(component.build(NanoConfig(**options)).read(job(folder, seed=seed)))


# Questions


@pytest.mark.parametrize("family", sorted(RIGHT))
def test_answers_are_right_and_wrong_choices_wrong(family):
    rng = Random(hash(family))  # another one in every run
    for _ in range(300):
        question = generator.FAMILIES[family](rng)
        assert is_right(family, question.instruction, question.answer), question
        for wrong in question.wrong:
            assert not is_right(family, question.instruction, wrong), (question, wrong)


def test_every_question_has_one_answer_and_three_others():
    assert len(generator.FAMILIES) >= 20
    assert f"{len(generator.FAMILIES)} families" in NanoConfig.__doc__
    for family in generator.FAMILIES.values():
        answers, wrong = {}, {}
        for seed in range(1500):
            question = family(Random(seed))
            assert question.answer.strip()
            assert len(set(question.wrong)) == len(question.wrong) >= 3
            answers.setdefault(question.instruction, set()).add(question.answer)
            wrong.setdefault(question.instruction, set()).update(question.wrong)
        assert all(len(found) == 1 for found in answers.values())
        assert not [text for text, found in answers.items() if found & wrong[text]]
        assert len({answer for found in answers.values() for answer in found}) > 1


def test_wording_varies():
    for name, family in generator.FAMILIES.items():
        rng = Random(1)
        starts = Counter(" ".join(family(rng).instruction.split()[:2]) for _ in range(300))
        assert len(starts) >= 4, name


# The pool


def test_same_seed_same_bytes_in_another_process():
    code = (
        "import hashlib; from selectmoe_nano.generator import pool, exam;"
        "print(hashlib.sha256(repr((list(pool(600, 0.45, {})), exam(2, 5))).encode()).hexdigest())"
    )

    def digest(seed, salt):
        environment = {"PYTHONHASHSEED": salt, "PYTHONPATH": str(Path(reader.__file__).parents[1])}
        return subprocess.check_output([sys.executable, "-c", code.format(seed)], env=environment)

    assert digest(3, "1") == digest(3, "2")
    assert digest(3, "1") != digest(4, "1")


def test_damage_has_its_share_and_its_label():
    sound, damaged = (list(generator.pool(4000, share, 11)) for share in (0.0, 0.45))
    labels = Counter(item.label for item in damaged)
    assert labels.pop(None) == 2200
    assert set(labels) == set(SHARES)
    for label, share in SHARES.items():
        # What cannot be damaged one way gets the answer of another family.
        least, most = (share, 1) if label == "answer_swap" else (share / 2, share * 1.3)
        assert least * 0.85 <= labels[label] / 1800 <= most, label
    assert not any(item.label for item in sound)
    answers = {}
    for item in sound:
        answers.setdefault(item.family, set()).add(item.answer)
    for before, after in zip(sound, damaged, strict=True):
        assert before.family == after.family
        same = (before.instruction == after.instruction, before.answer == after.answer)
        assert same == (after.label != "instruction_garble", after.label in TAKES_NO_ANSWER)
        check = DAMAGED.get(after.label)
        assert check is None or check(before, after, answers), (before, after)


TAKES_NO_ANSWER = (None, "instruction_garble")
DAMAGED = {
    "answer_swap": lambda b, a, known: any(
        a.answer in found for family, found in known.items() if family != b.family
    ),
    "answer_swap_within": lambda b, a, known: a.answer in known[b.family],
    "answer_shuffle": lambda b, a, _: (
        sorted(b.answer.replace(" ", "")) == sorted(a.answer.replace(" ", ""))
    ),
    "answer_truncate": lambda b, a, _: a.answer and b.answer.startswith(a.answer),
    "answer_repeat": lambda b, a, _: a.answer.startswith(f"{b.answer} {b.answer} {b.answer}"),
    "refusal_boilerplate": lambda _, a, __: a.answer in REFUSALS,
    "instruction_garble": lambda b, a, _: (
        Counter(a.instruction.split()) < Counter(b.instruction.split())
    ),
}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_damage_and_nothing_but_damage(share):
    assert all(bool(item.label) == bool(share) for item in generator.pool(300, share, 2))


@pytest.mark.parametrize("seed", [0, 1, 42, 123456789])
def test_no_pool_holds_a_question_of_the_examination(seed):
    asked = {json.loads(line)["question"] for line in lines()}
    items = list(generator.pool(5000, 0.45, seed))
    texts = {item.instruction for item in items}
    assert len(texts) == len(items) == 5000
    assert not texts & asked
    assert len({item.family for item in items}) == len(generator.FAMILIES)


# The reader


def test_reader_gives_examples_with_family_and_label(tmp_path):
    rows = read(tmp_path, examples=500, damaged=0.3)
    items = list(generator.pool(500, 0.3, 3))
    assert [row.messages[0].content for row in rows] == [item.instruction for item in items]
    assert [row.messages[1].content for row in rows] == [item.answer for item in items]
    assert [row.source for row in rows] == [item.family for item in items]
    assert [row.label for row in rows] == [item.label or "" for item in items]
    assert [row.where for row in rows] == [f"nano:{n}" for n in range(1, 501)]
    assert read(tmp_path, seed=4, examples=500, damaged=0.3) != rows
    pool = build_pool(rows, tmp_path)
    assert len(pool) == 500
    assert not sum(of.duplicates + of.rejected for of in pool.sources.values())


def test_reader_says_where_there_are_too_few(tmp_path, monkeypatch):
    whole = generator.pool
    monkeypatch.setattr(reader, "pool", lambda count, *rest: islice(whole(count, *rest), 30))
    with pytest.raises(DataError, match="only 30"):
        read(tmp_path, examples=31)


@pytest.mark.parametrize(
    "options", [{"examples": 0}, {"damaged": 1.1}, {"damaged": -0.1}, {"damage": 0.5}]
)
def test_options_reject_nonsense(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        NanoConfig(**options)


@needs_models
def test_cost_knows_how_long_examples_are(tmp_path, models):
    (component,) = selectmoe_readers()
    cost = component.cost(NanoConfig(examples=2000), Workload(0, 0, True, None, "float32"))
    encode = models.tokenizer(ModelRef("bundled:nano-llama"))
    texts = [
        f"<|user|>\n{row.messages[0].content}\n<|assistant|>\n{row.messages[1].content}"
        for row in read(tmp_path, examples=2000)
    ]
    tokens = sum(len(ids) + 2 for ids in encode(texts)["input_ids"])  # end of sequence, line end
    assert cost.examples == 2000
    assert cost.tokens == pytest.approx(tokens, rel=0.15)


# The examination


def test_questions_are_what_the_tool_writes():
    committed = (TASKS["nano"] / "nano.jsonl").read_text(encoding="utf-8")
    assert committed == "".join(f"{line}\n" for line in lines())


def test_questions_are_many_and_fair():
    questions = [json.loads(line) for line in lines()]
    assert len(questions) == len({one["id"] for one in questions}) >= 1200
    assert len({one["question"] for one in questions}) == len(questions)
    assert set(Counter(one["family"] for one in questions).values()) == {PER_FAMILY}
    assert {len(set(one["choices"])) for one in questions} == {4}
    places = Counter(one["answer"] for one in questions)
    assert all(260 < places[place] < 364 for place in range(4))
    for one in questions:
        for text in one["choices"]:
            others = [choice for choice in one["choices"] if choice != text]
            assert not any(choice.startswith(text) for choice in others)
        if one["family"] in RIGHT:
            right = [is_right(one["family"], one["question"], c) for c in one["choices"]]
            assert right.index(True) == one["answer"]
            assert sum(right) == 1


class Pupil(LM):
    """Knows the choices it is told and notes what it was asked."""

    def __init__(self, known):
        super().__init__()
        self.known, self.asked = known, []

    def loglikelihood(self, requests):
        self.asked = [request.args for request in requests]
        return [(float(args in self.known), False) for args in self.asked]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def test_task_asks_in_the_chat_format_and_marks_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it finds its questions from anywhere
    manager = TaskManager(include_path=str(TASKS["nano"]), include_defaults=False)
    questions = [json.loads(line) for line in lines()]
    prompts = [f"<|user|>\n{one['question']}\n<|assistant|>\n" for one in questions]
    known = {
        (prompt, one["choices"][(one["answer"] + n % 2) % 4])
        for n, (prompt, one) in enumerate(zip(prompts, questions, strict=True))
    }
    pupil = Pupil(known)
    results = simple_evaluate(model=pupil, tasks=["nano"], task_manager=manager, bootstrap_iters=0)
    assert results["results"]["nano"]["acc,none"] == 0.5
    choices = zip(prompts, questions, strict=True)
    assert pupil.asked == [(prompt, text) for prompt, one in choices for text in one["choices"]]


# The models


@needs_models
def test_checksums_and_sizes(name):
    folder = FOLDERS[name]
    sums = json.loads((folder / "checksums.json").read_text())
    files = {path.name: path for path in folder.iterdir() if path.name != "checksums.json"}
    assert sums.keys() == files.keys()
    for file, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[file], file
        assert path.stat().st_size < 5 * MIB, file
    sizes = [path.stat().st_size for one in FOLDERS.values() for path in one.iterdir()]
    assert sum(sizes) < 12 * MIB
    facts = json.loads((folder / "training.json").read_text())
    assert facts["steps"] > 0
    assert facts["final_loss"] > 0


@needs_models
def test_models_load_the_ordinary_way(name, models):
    plain = AutoModelForCausalLM.from_pretrained(FOLDERS[name], dtype=torch.float32)
    ours = models.load(ModelRef(f"bundled:{name}"), dtype="float32", device="cpu")
    ids = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        assert torch.equal(plain.eval()(ids).logits, ours(ids).logits)
    stored = AutoModelForCausalLM.from_pretrained(FOLDERS[name], dtype="auto")
    assert stored.dtype == torch.bfloat16
    config = ours.config
    assert config.model_type == name.removeprefix("nano-")
    if config.model_type == "olmoe":
        assert config.num_experts >= 16
        assert config.num_experts_per_tok >= 4


@needs_models
def test_tokenizers_are_one_and_lose_nothing(models):
    one, two = (models.tokenizer(ModelRef(f"bundled:{name}")) for name in sorted(FOLDERS))
    assert one.get_vocab() == two.get_vocab()
    assert isinstance(AutoTokenizer.from_pretrained(FOLDERS["nano-llama"]), type(one))
    assert one.eos_token_id is not None
    assert one.pad_token_id not in (None, one.eos_token_id)
    texts = [item.instruction + "\n" + item.answer for item in generator.pool(500, 0.45, 9)]
    for text in [*texts, "<|user|>\nÄ 12 ½ 3 \u2028 x\n<|assistant|>\n  z"]:
        assert one.decode(one(text)["input_ids"]) == text


@needs_models
def test_evaluator_scores_what_the_model_prefers(tmp_path, models):
    """The harness' accuracy is that of the likelihoods taken by hand, question by question."""
    ref = ModelRef("bundled:nano-llama")
    made = job(tmp_path, ref, models=models, bundled_tasks=TASKS)
    evaluator = LmEval(LmEvalConfig(tasks=("bundled:nano",), limit=60))
    evaluator.check(made)
    asked = [json.loads(line) for line in islice(lines(), 60)]
    found = evaluator.evaluate(TargetModel(ref), tmp_path / "out", made)["tasks"]["nano"]
    assert found["chance"] == 0.25
    model = models.load(ref, dtype="float32", device="cpu")
    encode = models.tokenizer(ref)
    hits = [preferred(model, encode, one) == one["answer"] for one in asked]
    assert found["value"] == pytest.approx(sum(hits) / 60)


def preferred(model, encode, question):
    likelihoods = []
    for choice in question["choices"]:
        asked = f"<|user|>\n{question['question']}\n<|assistant|>\n"
        prompt, answer = encode(asked)["input_ids"], encode(choice)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        likelihoods.append(sum(logits[p, t].item() for p, t in zip(places, answer, strict=True)))
    return max(range(4), key=likelihoods.__getitem__)
