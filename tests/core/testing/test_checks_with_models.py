"""The kit's checks of converters, trainers and evaluators: they pass good parts and no others."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from llama_models import llama  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from simple_options import Options  # noqa: E402

from selectmoe_core import About, Component, Need, Question, StageError  # noqa: E402
from selectmoe_core.models.models import Models  # noqa: E402
from selectmoe_core.testing import check_converter, check_evaluator, check_trainer  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    llama(folder)
    return folder


NEEDS = frozenset({Need.MODEL, Need.TOKENS})


def component(part, **fields):
    return Component("part", Options, lambda _: part, About(), lambda _: NEEDS, **fields)


def refuses(check, part, model, message, **fields):
    with pytest.raises(AssertionError, match=message):
        check(component(part, **fields), model=model, models=Models())


# ------------------------------------------------------------------------------------ converters


class Copies:
    def convert(self, model, out, job):
        shutil.copytree(job.models.find(model), out)
        (out / "selector.json").write_text("{}")
        return {"tensors": 1}

    def verify(self, converted, original, how, job):
        ours, theirs = (
            load_file(folder / "model.safetensors")
            for folder in (converted, job.models.find(original))
        )
        for name, tensor in ours.items():
            if not torch.equal(tensor, theirs[name]):
                raise StageError(f"{name} differs")
        return {}


class NoSelector(Copies):
    def convert(self, model, out, job):
        shutil.copytree(job.models.find(model), out)
        return {}


class DrawsFreely(Copies):
    def convert(self, model, out, job):
        super().convert(model, out, job)
        tensors = load_file(out / "model.safetensors")
        tensors["model.norm.weight"] = torch.rand_like(tensors["model.norm.weight"])
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        return {}


class NeverLooks(Copies):
    def verify(self, converted, original, how, job):
        return {}


class NoFacts(Copies):
    def convert(self, model, out, job):
        super().convert(model, out, job)
        return {"path": out}


def test_a_good_converter_passes(model):
    assert check_converter(component(Copies()), model=model, models=Models()) == {"tensors": 1}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (NoSelector(), "left no selector.json"),
        (DrawsFreely(), "a second conversion with the same seed gives other weights"),
        (NeverLooks(), "accepts a model of which one weight has changed"),
        (NoFacts(), "facts that are not JSON"),
    ],
)
def test_what_is_wrong_with_a_converter_is_named(model, part, message):
    refuses(check_converter, part, model, message)


# -------------------------------------------------------------------------------------- trainers


class Trains:
    def train(self, model, examples, out, job):
        rows = examples.encoded(job.models.tokenizer(model))
        assert len(rows) == len(examples) == len(list(examples))
        job.metrics(1, {"loss": 1.0})
        network = job.models.load(model, dtype="float32", device="cpu")
        network.save_pretrained(out)
        return {"steps": 1}


class Silent(Trains):
    def train(self, model, examples, out, job):
        return super().train(model, examples, out, job.changed(metrics=lambda *_: None))


class Diverges(Trains):
    def train(self, model, examples, out, job):
        job.metrics(1, {"loss": float("nan")})
        return super().train(model, examples, out, job)


class LeavesNothing(Trains):
    def train(self, model, examples, out, job):
        job.metrics(1, {"loss": 1.0})
        return {}


class LeavesHalf(Trains):
    def train(self, model, examples, out, job):
        super().train(model, examples, out, job)
        tensors = load_file(out / "model.safetensors")
        del tensors["model.norm.weight"]
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        return {}


class NeverTheSame(Trains):
    def train(self, model, examples, out, job):
        super().train(model, examples, out, job)
        tensors = load_file(out / "model.safetensors")
        tensors["model.norm.weight"] = torch.rand_like(tensors["model.norm.weight"])
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        return {}


def test_a_good_trainer_passes(model):
    found = check_trainer(component(Trains()), model=model, models=Models())
    assert found == {"examples": 8, "steps": 1}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Silent(), "it recorded nothing"),
        (Diverges(), "job.metrics got loss = nan"),
        (LeavesNothing(), "left nothing in out"),
        (LeavesHalf(), "did not load completely"),
        (NeverTheSame(), "a second training gives other weights"),
    ],
)
def test_what_is_wrong_with_a_trainer_is_named(model, part, message):
    refuses(check_trainer, part, model, message)


# ------------------------------------------------------------------------------------ evaluators

FACTS = {"metric": "acc", "value": 0.5, "stderr": 0.1, "questions": 4, "chance": 0.25}


class Measures:
    def __init__(self, **changes):
        self.facts = {**FACTS, **changes}
        self.calls = 0

    def evaluate(self, model, out, job):
        job.models.load_target(model, dtype="float32", device="cpu")
        return {"tasks": {"t": self.facts}}

    def questions(self, job):
        yield Question("t", "q?")


class Wanders(Measures):
    def evaluate(self, model, out, job):
        self.calls += 1
        return {"tasks": {"t": {**self.facts, "value": 0.1 * self.calls}}}


class AsksNothing(Measures):
    def questions(self, job):
        yield from ()


def test_a_good_evaluator_passes(model):
    part = component(Measures(), questions=lambda config: config)
    assert check_evaluator(part, model=model)["tasks"]["t"]["value"] == 0.5


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Measures(value=float("nan")), "facts that are not JSON"),
        (Measures(value=None), "has no finite 'value'"),
        (Measures(stderr=-1), "'stderr' must be a number or None"),
        (Measures(chance="a half"), "'chance' must be a number or None"),
        (Measures(questions=0), "'questions' must be their number"),
        (Measures(metric=None), "names no 'metric'"),
        (Wanders(), "a second evaluation differs"),
        (AsksNothing(), r"questions\(\) yields nothing"),
    ],
)
def test_what_is_wrong_with_an_evaluator_is_named(model, part, message):
    refuses(check_evaluator, part, model, message, questions=lambda config: config)


def test_facts_are_what_the_core_writes(model):
    found = check_converter(component(Copies()), model=model, models=Models())
    assert json.loads(json.dumps(found)) == found
