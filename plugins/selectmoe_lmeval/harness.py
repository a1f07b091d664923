"""Running the harness without its bars, log lines and changes of random state."""

import contextlib
import io
import logging
import platform
import random
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.evaluator
import lm_eval.models.huggingface
import numpy as np
import torch
import tqdm
from lm_eval.models.huggingface import HFLM
from torch.utils import collect_env

from selectmoe_core import Advance, Job, Message, StageError, TargetModel
from selectmoe_core.tokens import ChatFormat
from selectmoe_lmeval.config import LmEvalConfig

CPU_BATCH = 16
LOG = "lm_eval.log"
UNMATCHED = "Label index was not in within range"
TRUNCATED = re.compile(r"exceeds model's maximum length|Truncating")


def load_model(model: TargetModel, config: LmEvalConfig, job: Job) -> HFLM:
    """Load a target into the harness' model class.

    Raises:
        ModelError: it cannot be loaded.
        StageError: a chat template is needed, but the tokenizer has none.
    """
    tokenizer = job.models.tokenizer(model.base)
    if config.apply_chat_template is True and not tokenizer.chat_template:
        raise StageError(
            f"apply_chat_template is set, but the tokenizer of {model.base} has no chat template",
            hint='set apply_chat_template = "training" for the format of [chat], or false, or add '
            "a template to the tokenizer (tokenizer_config.json)",
        )
    batch = config.batch_size
    if batch == "auto" and job.device == "cpu":
        batch = CPU_BATCH
    in_training_format = config.apply_chat_template == "training"
    kind = partial(TrainingFormat, job.chat) if in_training_format else HFLM
    loaded = kind(
        pretrained=job.models.load_target(model, dtype=job.dtype, device=job.device),
        tokenizer=tokenizer,
        batch_size=batch,
        max_batch_size=config.max_batch_size,
    )
    if job.world.size > 1:
        _spread(loaded, job)
    return loaded


class TrainingFormat(HFLM):
    """A model whose questions are put into the recipe's chat format, as its training data was."""

    def __init__(self, chat: ChatFormat, **options: Any) -> None:  # noqa: ANN401
        """Use a chat format; the other options are those of ``HFLM``."""
        # A template writes its own first token; for tulu the tokenizer adds it, as in training.
        first = None if chat.config.template == "tulu" else False
        super().__init__(**options, add_bos_token=first)
        self.chat = chat

    def chat_template(self, chat_template: bool | str = False) -> str:  # noqa: ARG002
        """Return what the results say about the template: its text, or its name."""
        return self.chat.template or f"[chat] template = {self.chat.config.template}"

    def apply_chat_template(
        self,
        chat_history: list[dict[str, str]],
        add_generation_prompt: bool = True,
    ) -> str:
        """Return the text of a conversation up to where the answer begins.

        Without ``add_generation_prompt`` the last turn is the beginning of the answer.
        """
        turns = [
            Message(turn["role"], turn["content"])  # type: ignore[arg-type]  # no other roles
            for turn in chat_history
        ]
        begun = "" if add_generation_prompt else turns.pop().content
        return self.chat.prompt(turns, self.tokenizer) + begun


def _spread(model: HFLM, job: Job) -> None:
    """Give each process its share of the requests, which HFLM does only for a model it loads."""
    from accelerate import Accelerator

    model.accelerator = Accelerator(cpu=job.device == "cpu")
    model._rank = job.world.rank  # noqa: SLF001
    model._world_size = job.world.size  # noqa: SLF001


def summed(count: int, job: Job) -> int:
    """Return the sum of a count over all processes."""
    if job.world.size == 1:
        return count
    from accelerate.utils import gather_object

    return sum(gather_object([count]))


class LogCount(logging.Handler):
    """Counts the harness's messages about truncated questions and unknown answers."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.truncated = self.unmatched = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record."""
        text = record.getMessage()
        self.truncated += bool(TRUNCATED.search(text))
        self.unmatched += UNMATCHED in text


@contextmanager
def quiet(job: Job, log: Path | None) -> Iterator[LogCount]:
    """Show the harness's progress as the job's; write its log to a file; restore random states.

    ``simple_evaluate`` seeds the global generators of Python, numpy and torch; their states are
    restored.
    """
    count = LogCount()
    with ExitStack() as stack:
        stack.enter_context(_kept_random_state())
        stack.enter_context(_logging_to(log, count))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(_no_data_bars())
        bars = _bars(job)
        stack.enter_context(_replaced(lm_eval.models.huggingface, "tqdm", bars))
        for module in (lm_eval.api.task, lm_eval.api.model, tqdm):
            stack.enter_context(_replaced(module, "tqdm", _NoBar))
        stack.enter_context(_replaced(lm_eval.evaluator, "get_git_commit_hash", _revision))
        stack.enter_context(_replaced(collect_env, "get_pretty_env_info", _environment))
        yield count


class _NoBar:
    """Replaces tqdm and shows nothing."""

    def __init__(self, iterable: Iterable[Any] = (), **_: Any) -> None:  # noqa: ANN401
        self.iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self.iterable)

    def update(self, amount: float = 1) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _bars(job: Job) -> type[_NoBar]:
    class Bar(_NoBar):
        """Replaces tqdm and moves the job's bar."""

        def __init__(
            self,
            iterable: Iterable[Any] = (),
            *,
            total: float | None = None,
            **options: Any,  # noqa: ANN401
        ) -> None:
            super().__init__(iterable)
            self.bar: Any = None
            self.advance: Advance = lambda _: None
            if total and not options.get("disable"):
                self.bar = job.progress.task("evaluate", total, "requests")
                self.advance = self.bar.__enter__()

        def update(self, amount: float = 1) -> None:
            self.advance(amount)

        def close(self) -> None:
            if self.bar is not None:
                self.bar.__exit__(None, None, None)
                self.bar = None

    return Bar


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _logging_to(path: Path | None, count: LogCount) -> Iterator[None]:
    logger = logging.getLogger("lm_eval")
    before = (logger.level, logger.propagate, logger.handlers[:])
    handlers: list[logging.Handler] = [count]
    if path is not None:
        file = logging.FileHandler(path, mode="w", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    logger.handlers, logger.propagate = handlers, False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.level, logger.propagate, logger.handlers = before
        for handler in handlers:
            handler.close()


@contextmanager
def _no_data_bars() -> Iterator[None]:
    shown = datasets.is_progress_bar_enabled()
    level = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    # A file that it cannot read is also an error.
    datasets.logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _kept_random_state() -> Iterator[None]:
    python, legacy, on_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(on_cpu)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)


def _environment() -> str:
    """Return facts about the machine; torch's own report takes many seconds."""
    lines = [f"PyTorch version: {torch.__version__}", f"Python: {platform.python_version()}"]
    lines.append(f"OS: {platform.platform()}")
    if torch.cuda.is_available():
        lines.append(f"GPU: {torch.cuda.get_device_name()}")
    return "\n".join(lines)


def _revision() -> str | None:
    """Return the output of ``git describe``, without its error messages on stderr."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always"], capture_output=True, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
