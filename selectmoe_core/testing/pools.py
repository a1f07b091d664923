"""Small pools for the checks: generated examples, and a job around them."""

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selectmoe_core.config import Config
from selectmoe_core.data.examples import Example, Message, RawExample, content_id
from selectmoe_core.data.pool import Pool
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.data.vectors import finish_vectors, write_vectors
from selectmoe_core.models.models import ModelRef, Models
from selectmoe_core.plugin.component import Component
from selectmoe_core.plugin.declared import declared
from selectmoe_core.plugin.protocols import Inputs, Job, Need
from selectmoe_core.tokens.encoding import Encoded, encode

TEXT = """the router sends each token to few experts and an answer may be short or long, Größe
naïve 数 一 42 3.14 def f(x): return x*x 🙂 why how list"""
SOURCES = ("cot", "dolly", "flan_v2")
WIDTH = 8
"""Numbers of a generated vector."""


def generated_examples(count: int = 40, seed: int = 0) -> list[Example]:
    """Return examples of one or more turns, of many lengths, from three sources, all different."""
    draw = random.Random(seed)
    words_known = TEXT.split()

    def text(most: int) -> str:
        words = draw.choices(words_known, k=draw.randint(1, most))
        return draw.choice((" ", "\n", "  ")).join(words)

    examples = []
    for number in range(count):
        turns = [Message("system", "Be brief.")] if number % 5 == 0 else []
        for _ in range(1 + number % 3):
            turns += [Message("user", f"{number}: {text(20)}"), Message("assistant", text(40))]
        identity = content_id(turns).hex()
        examples.append(Example(identity, draw.choice(SOURCES), tuple(turns)))
    return examples


@dataclass
class Bench:
    """A pool in a folder, and jobs that contain only what a component declares.

    Attributes:
        folder: the folder for all files.
        examples: the pool's examples, in its order.
        pool: the pool.
    """

    folder: Path
    examples: Sequence[Example]
    pool: Pool = field(init=False)
    _encoded: dict[int, tuple[Any, Encoded]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        folder = self.folder / "pool"
        folder.mkdir(parents=True)
        self.pool = build_pool(
            (RawExample(example.source, example.messages) for example in self.examples), folder
        )
        if len(self.pool) != len(self.examples):
            raise ValueError("two of the examples are equal; give different ones")

    def job(
        self,
        component: Component[Any, Any],
        config: Config,
        base: Job,
        model: ModelRef | None = None,
        scores: Mapping[str, Path] | None = None,
        questions: Path | None = None,
        checkpoints: Path | None = None,
        vectors: Path | None = None,
        targets: "Bench | None" = None,
    ) -> Job:
        """Return ``base`` with the pool's inputs, as far as the component declares them.

        Without ``targets`` the pool's own examples are the target examples.
        """
        others = targets or self
        embedded = Need.FEATURES in component.needs(config)
        job = base.changed(
            scratch=self.folder / "scratch",
            checkpoints=self.folder / "checkpoints",
            inputs=Inputs(
                model,
                self.pool.folder,
                scores or {},
                questions,
                targets=others.pool.folder,
                checkpoints=checkpoints,
                vectors=vectors or (self.vectors() if embedded else None),
                target_vectors=others.vectors() if embedded else None,
            ),
        )
        whole = job.changed(encoded=lambda tokenizer: self._encode(job, tokenizer))
        return declared(whole, component, config)

    def vectors(self) -> Path:
        """Return the folder of the pool's vectors: random numbers that each example determines."""
        folder = self.folder / "vectors"
        if not folder.is_dir():
            draws = [np.random.default_rng(int(example.id, 16)) for example in self.examples]
            made = np.stack([draw.normal(size=WIDTH) for draw in draws])
            write_vectors(folder, 0, made, len(made))
            finish_vectors(folder, [len(made)])
        return folder

    def _encode(self, job: Job, tokenizer: Any) -> Encoded:  # noqa: ANN401
        known = self._encoded.get(id(tokenizer))
        if known is None:
            folder = self.folder / f"encoded-{len(self._encoded)}"
            known = tokenizer, encode(self.pool.examples(), folder, job.chat, tokenizer)
            self._encoded[id(tokenizer)] = known
        return known[1]


@contextmanager
def generated_pool(count: int = 40, seed: int = 0) -> Iterator[Pool]:
    """Yield a pool of generated examples, for tests of filters and readers of pools."""
    with tempfile.TemporaryDirectory() as folder:
        yield Bench(Path(folder), generated_examples(count, seed)).pool


def installed_models() -> Models:
    """Return the loader of all models that the installed plugins know."""
    from selectmoe_core.plugin.manager import load_plugins
    from selectmoe_core.plugin.registry import Registry

    return Registry(load_plugins()).models
