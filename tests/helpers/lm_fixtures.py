"""A small model and examples for scorers by language models; a module names it in
``pytest_plugins``."""

import numpy as np
import pytest
import torch
from lm_models import TINY, example_of, job_of, save_model
from transformers import LlamaConfig, LlamaForCausalLM

from selectmoe_core import Example, Job, Message, ModelRef


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> ModelRef:
    torch.manual_seed(3)
    return save_model(LlamaForCausalLM(LlamaConfig(**TINY)), tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    random = np.random.default_rng()
    letters = list("abcdefgh ,.éß")

    def text() -> str:
        # At most 43 bytes: seven of them fit the limit of 400 tokens, so none is cut by chance.
        return "x" + "".join(random.choice(letters, size=int(random.integers(1, 22))))

    rows = []
    for number in range(30):
        turns = [Message("system", text())] if number % 4 == 0 else []
        for _ in range(1 + number % 3):
            turns += [Message("user", text()), Message("assistant", text())]
        rows.append(example_of(turns))
    rows[7] = example_of([Message("user", "far too long " * 60), Message("assistant", "no")])
    rows[8] = example_of([Message("user", ""), Message("assistant", "an answer to nothing")])
    return rows


@pytest.fixture
def job(llama, examples, tmp_path) -> Job:
    return job_of(llama, examples, tmp_path)
