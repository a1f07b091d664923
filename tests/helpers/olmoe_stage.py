"""A stage of warm-up on a tiny converted model, run as the core would run it."""

import random

import pytest
import torch
from olmoe_models import byte_tokenizer, olmoe, save

from selectmoe_core.data.examples import Example, Message, content_id
from selectmoe_core.models.models import ModelRef, Models
from selectmoe_core.plugin.protocols import Job
from selectmoe_core.runtime.distributed import World
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import encode
from selectmoe_damage.plugin import selectmoe_damages
from selectmoe_olmoe import plugin
from selectmoe_olmoe.config import ConstraintConfig, ContrastiveConfig, TrashcanConfig
from selectmoe_olmoe.convert.converter import TrashcanConverter
from selectmoe_olmoe.warmup.parts import SelectMoeConstraint, SelectMoeContrastive
from selectmoe_olmoe.warmup.trainable import gates, load_trainable
from selectmoe_olmoe.warmup.trainer import WarmupTrainer

DAMAGES = {damage.name: damage for damage in selectmoe_damages()}
ALONE = World()
MODELS = Models(model_types=plugin.selectmoe_model_types())


def example(prompt: str, answer: str) -> Example:
    messages = (Message("user", prompt), Message("assistant", answer))
    return Example(content_id(messages).hex(), "test", messages)


class KilledError(Exception):
    """Stands for kill -9."""


def part_of(*, contrastive=False, **options):
    """Return one of the two warm-ups with options."""
    if contrastive:
        return SelectMoeContrastive(ContrastiveConfig(**options))
    return SelectMoeConstraint(ConstraintConfig(**options))


class Source:
    """Examples as the core hands them to a trainer."""

    def __init__(self, examples, folder, chat):
        self.examples, self.folder, self.chat = examples, folder, chat

    def __len__(self):
        return len(self.examples)

    def __iter__(self):
        return iter(self.examples)

    def encoded(self, tokenizer):
        return encode(self.examples, self.folder, self.chat, tokenizer)


def converted(folder):
    """Write a converted model with a tokenizer, fp32, 16 experts, top 4; return where it is."""
    shape = {"vocab_size": 260, "num_experts": 16, "num_experts_per_tok": 4}
    save(olmoe(**shape), folder / "olmoe")
    byte_tokenizer(folder / "olmoe")
    job = Job(seed=1, models=MODELS)
    TrashcanConverter(TrashcanConfig()).convert(
        ModelRef(str(folder / "olmoe")), folder / "model", job
    )
    return ModelRef(str(folder / "model"))


class Stage:
    """Runs warm-up as the core would, in folders of its own."""

    def __init__(self, base, folder):
        self.base, self.folder, self.tokens = base, folder, folder / "tokens"
        self.curve: list[dict[str, float]] = []
        self.chat = ChatFormat.load(ChatConfig())
        words = random.Random(3)
        self.examples = [
            example(
                "".join(words.choices("abcdef ", k=words.randint(3, 25))),
                "".join(words.choices("uvwxyz ", k=words.randint(3, 25))),
            )
            for _ in range(22)
        ]

    def job(self, name="run", **changes):
        return Job(
            seed=7,
            models=MODELS,
            chat=self.chat,
            checkpoints=self.folder / name / "checkpoints",
            scratch=self.folder / name / "scratch",
            damages=DAMAGES,
            metrics=lambda step, values: self.curve.append({"step": step, **values}),
            **changes,
        )

    def source(self, examples=None):
        return Source(examples or self.examples, self.tokens, self.chat)

    def run(self, name="run", examples=None, dtype="float32", world=ALONE, **options):
        self.curve.clear()
        part = part_of(**{"learning_rate": 1e-2, "max_steps": 6, "batch_size": 4} | options)
        out = self.folder / name / "model"
        job = self.job(name, dtype=dtype, world=world)
        facts = part.train(self.base, self.source(examples), out, job)
        return facts, out

    def resumed(self, at, last_act=lambda: None, **options):
        """Run to the end; run again, killed in the step after ``at``, and resume that run.

        Returns the folders of both models and what the whole run logged at each step;
        ``curve`` holds what the resumed one did.
        """
        _, whole = self.run("whole", **options)
        curve = {point["step"]: point for point in self.curve}
        step = WarmupTrainer.training_step

        def dying(trainer, *args, **kwargs):
            if trainer.state.global_step == at:
                last_act()
                raise KilledError
            return step(trainer, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WarmupTrainer, "training_step", dying)
            with pytest.raises(KilledError):
                self.run(**options)
        torch.manual_seed(99)  # whatever the new process starts with
        _, resumed = self.run(**options)
        return whole, resumed, curve

    def load(self, out, dtype="float32"):
        return MODELS.load(ModelRef(str(out)), dtype=dtype, device="cpu")

    def trainer(self, rows=None, name="probe", **options):
        """A trainer whose loss can be probed, its model and its rows."""
        part = part_of(**options)
        job = self.job(name)
        network = load_trainable(self.base, part.config, job)
        trained = part.rows(self.source(rows), MODELS.tokenizer(self.base), job)
        return part.trainer(self.base, network, trained, job), network, trained


def gradient(trainer, network, rows, split):
    """The gates' gradient of one optimizer step over ``rows`` in micro-batches of ``split``."""
    trainer.data_collator.batch = split
    batch = trainer.data_collator(rows)
    trainer.model_wrapped = network
    (fetched,), _ = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    network.zero_grad()
    loss = trainer.training_step(network, fetched)
    return loss.item(), torch.cat([gate.weight.grad.flatten() for gate in gates(network)])
