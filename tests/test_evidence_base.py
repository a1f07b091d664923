"""The base of the evidence that is made in several runs, and carried in pieces."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import evidence_base_run
from evidence_base import steps, upcycle
from evidence_base_run import Training
from natural_parts import Clock
from rows import Rows

from selectmoe_core import Example, Message, ModelRef
from selectmoe_core.data.examples import content_id
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat

TOTAL = 4000.0


@pytest.fixture(scope="module")
def models():
    return Registry(load_plugins()).models


def row(number):
    messages = Message("user", f"What is {number}?" * (number % 4)), Message("assistant", "It is.")
    return Example(content_id(messages).hex(), "s", messages)


class Killed(Exception):  # noqa: N818
    """Stands for the end of a machine."""


class Place:
    """Makes trainings of one base over the same rows."""

    def __init__(self, models, folder):
        self.llama = models.find(ModelRef("bundled:nano-llama"))
        chat = ChatFormat(ChatConfig(template="tulu", max_length=64))
        rows = Rows([row(number) for number in range(1, 60)], chat, folder / "tokens")
        self.pool = rows.encoded(models.tokenizer(ModelRef(str(self.llama))))
        self.text = np.random.default_rng(0).integers(5, 500, size=(20, 32)).astype(np.int32)

    def batches(self):
        return steps(self.pool, self.text, 256)

    def training(self, out, key="k"):
        out.mkdir(exist_ok=True)
        probe = [self.pool[number].ids for number in range(4)]
        made = Training(upcycle(self.llama, probe, 4, 2, "cpu"), out, key)
        made.model.set_experts_implementation("eager")
        made.load()
        return made


def test_a_training_that_was_left_ends_with_the_same_weights(models, tmp_path, monkeypatch):
    place = Place(models, tmp_path)
    whole = place.training(tmp_path / "whole")
    assert whole.run(place.batches(), TOTAL, Clock(99.0), 1e9)
    assert not (tmp_path / "whole" / "state.pt").exists()
    # The time is over after the first step.
    first = place.training(tmp_path / "parts")
    assert not first.run(place.batches(), TOTAL, Clock(-1.0), 1e9)
    assert first.step == 1
    first.save()
    # The second run is killed, after it has saved its state on the way.
    second = place.training(tmp_path / "parts")
    assert (second.step, second.seen) == (1, first.seen)
    saved = []

    def dying():
        saved.append(second.step)
        Training.save(second)
        if len(saved) == 3:
            raise Killed

    monkeypatch.setattr(second, "save", dying)
    with pytest.raises(Killed):
        second.run(place.batches(), TOTAL, Clock(99.0), 0.0)
    assert saved == [2, 3, 4]
    third = place.training(tmp_path / "parts")
    assert third.step == 4
    assert third.run(place.batches(), TOTAL, Clock(99.0), 1e9)
    assert (third.step, third.seen) == (whole.step, whole.seen)
    for name, weight in whole.masters.named.items():
        assert torch.equal(third.masters.named[name], weight), name
    entries = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").open()]
    assert entries[0]["tokens"] > 0
    with pytest.raises(SystemExit, match="other options"):
        place.training(tmp_path / "parts", "another")


def test_a_model_is_carried_in_pieces(models, tmp_path, capsys):
    place = Place(models, tmp_path)
    place.training(tmp_path / "t").model.save_pretrained(tmp_path / "model")
    limit = 300_000
    command = ["cut", str(tmp_path / "model"), "--out", str(tmp_path / "pieces")]
    assert evidence_base_run.main([*command, "--limit", str(limit)]) == 0
    pieces = sorted((tmp_path / "pieces").glob("*.safetensors"))
    assert len(pieces) > 5
    assert all(path.stat().st_size < limit + 50_000 for path in pieces)
    join = ["join", str(tmp_path / "pieces"), "--out", str(tmp_path / "again")]
    assert evidence_base_run.main(join) == 0
    before = load_file(tmp_path / "model" / "model.safetensors")
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(before[name].dtype == after[name].dtype for name in before)
    AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    capsys.readouterr()
    one = load_file(pieces[2])
    save_file({name: tensor + 1 for name, tensor in one.items()}, pieces[2])
    pieces[4].unlink()
    wanted = f"missing or damaged: {pieces[2].name}, {pieces[4].name}"
    with pytest.raises(SystemExit, match=wanted):
        evidence_base_run.main(join)
