"""The router scorer: examples in, statistics of their tokens' routing out."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np

from selectmoe_core import Example, Job, ModelError, ModelRef, Shard, ShardScores, TokenDetail
from selectmoe_core.cost import ShapeNames
from selectmoe_core.data import Part
from selectmoe_core.models import SELECTOR, Batch, OnItsWay, RouterSignals, padded, within_budget
from selectmoe_core.tokens import (
    ChatFormat,
    Encoded,
    Joined,
    answer_ends,
    even,
    moved,
    packed,
    token_texts,
)
from selectmoe_router.config import NEEDS_TRASH, WITHOUT_TRASH, RouterConfig, chosen_layers
from selectmoe_router.packed import PackedMeans
from selectmoe_router.reduction import Routing, ShardTable, TokenMeans
from selectmoe_router.shading import values_of_tokens
from selectmoe_router.statistics import STATISTICS

log = logging.getLogger("selectmoe.router")

NOTHING_COUNTS = "no response token (the answer is empty or was truncated)"
PLAIN = "transformers"
RESPONSE = "response"
TOKENS = (RESPONSE, "end", "all")


class RouterScorer:
    """Opens the Select-MoE model; see ``RouterConfig``."""

    def __init__(self, config: RouterConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Compare the options with the model's configuration, if that exists already."""
        model = job.inputs.model
        if model is None or (config := job.models.config(model)) is None:
            return
        trash, _ = _trash_and_slots(model, config)
        job.models.selector(model)
        self._check_trash(trash, model)
        self._layers(int(config["num_hidden_layers"]), model)

    @contextmanager
    def open(self, job: Job) -> Iterator["RouterShardScorer"]:
        """Load the model and find its routers.

        Raises:
            ModelError: the model has no router, lacks the trash cans that the statistic needs, or
                lacks a layer.
        """
        ref = job.inputs.model
        if ref is None:
            raise ModelError("the router scorer has no model")
        model = job.models.load(ref, dtype=job.dtype, device=job.device)
        signals = RouterSignals(model)
        trash, top_k = _trash_and_slots(ref, model.config.to_dict())
        self._check_trash(trash, ref)
        layers = self._layers(len(signals), ref)
        signals.cut_behind(layers[-1])
        routing = Routing(signals.outputs(job.device) - trash, trash, top_k)
        if routing.experts < top_k:
            raise ModelError(f"{ref}: {routing.experts} regular experts cannot fill {top_k} slots")
        tokenizer = job.models.tokenizer(ref)
        over = self.config.tokens or _taught_tokens(job, ref)
        yield RouterShardScorer(self.config, job, tokenizer, signals, layers, routing, over)

    def _check_trash(self, trash: int, model: ModelRef) -> None:
        if self.config.statistic in NEEDS_TRASH and not trash:
            raise ModelError(
                f"statistic = '{self.config.statistic}', but {model} has no trash cans",
                hint=f"score with a converted model, or set statistic = '{WITHOUT_TRASH}'",
            )

    def _layers(self, count: int, model: ModelRef) -> tuple[int, ...]:
        try:
            return chosen_layers(self.config.layers, count)
        except ValueError as error:
            raise ModelError(f"{model}: {error}", hint="correct the option 'layers'") from None


class RouterShardScorer:
    """Scores with a loaded model."""

    def __init__(
        self,
        config: RouterConfig,
        job: Job,
        tokenizer: Any,  # noqa: ANN401
        signals: RouterSignals,
        layers: tuple[int, ...],
        routing: Routing,
        over: str,
    ) -> None:
        self._config = config
        self._over = over
        self._job = job
        self._tokenizer = tokenizer
        self._signals = signals
        self._layers = layers
        self._routing = routing
        self._batch_tokens = config.tokens_at_once(job.device)
        self._packed, reason = signals.packed_decoder()
        self._kernel = reason if self._packed else PLAIN
        log.info("kernel: %s", self._kernel if self._packed else f"{PLAIN} ({reason})")
        if self._packed:
            self._compile()

    @cached_property
    def _encoded(self) -> Encoded:
        return self._job.encoded(self._tokenizer)

    def score(self, shard: Shard) -> ShardScores:
        """Return the mean of the statistic over counted tokens and layers.

        Details: every statistic the router has, and ``layers``, the chosen one per layer
        ``[examples, layers]``. Features: mean router probabilities, layer by layer,
        ``[examples, layers * outputs]``. An example in which no token counts is skipped; its
        details and features are NaN.
        """
        return self.begin(shard)()

    def begin(self, shard: Shard) -> Callable[[], ShardScores]:
        """Send a shard's batches to the device; return a function that waits for the scores."""
        encoded = self._encoded
        tokens = encoded.joined(shard.rows)
        mask = counted(tokens.parts, tokens.starts, self._over, encoded.chat)
        rows = np.flatnonzero(tokens.sums(mask))
        read = self._read_packed if self._packed else self._read_padded
        return partial(self._scores, len(shard.rows), list(read(tokens, mask, rows)))

    def _scores(self, examples: int, taken: list[tuple[np.ndarray, OnItsWay]]) -> ShardScores:
        features = self._config.features
        table = ShardTable(examples, len(self._layers), self._routing, features=features)
        skipped = np.ones(examples, dtype=bool)
        for rows, means in taken:
            table.fill(rows, means.numpy())
            skipped[rows] = False
        by_layer = table.columns[self._config.statistic]
        details = {name: values.mean(axis=1) for name, values in table.columns.items()}
        return ShardScores(
            score=by_layer.mean(axis=1),
            skipped=[NOTHING_COUNTS if skip else None for skip in skipped.tolist()],
            details=details | {"layers": by_layer},
            features=table.features,
            kernel=self._kernel,
        )

    def tokens(self, examples: Sequence[Example]) -> list[TokenDetail]:
        """Return what the statistic is for each token, as the report shows it.

        The tokens of the answers have a number, or all if all count; ``counts`` marks those that
        the score is a mean over.
        """
        encoded = self._job.chat.encode(examples, self._tokenizer)
        meaning = next(
            entry.meaning for entry in STATISTICS if entry.name == self._config.statistic
        )
        reading = self._routing, self._config.statistic
        ids = [example.ids for example in encoded]
        device, at_once = self._job.device, self._batch_tokens
        values = values_of_tokens(self._signals, self._layers, ids, reading, device, at_once)
        found = []
        for example, own in zip(encoded, values, strict=True):
            counts = counted(example.parts, np.zeros(1, np.int64), self._over, self._job.chat)
            answer = counts | (example.parts == Part.RESPONSE)
            shown = np.where(answer, 1 - own if meaning.complement else own, np.nan)
            texts = tuple(token_texts(self._tokenizer, example.ids.tolist()))
            found.append(TokenDetail(meaning.title, texts, shown, counts))
        return found

    def _compile(self) -> None:
        """Read two short examples, so that kernels are compiled or loaded from disk."""
        tokens = Joined(np.zeros(64, np.int32), np.zeros(64, np.uint8), np.array([0, 32, 64]))
        for _, means in self._read_packed(tokens, np.ones(64, dtype=bool), np.arange(2)):
            means.numpy()

    def _read_packed(
        self, tokens: Joined, mask: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, OnItsWay]]:
        """Read the examples ``rows`` in one sequence; yield their means."""
        for places in even(tokens.lengths[rows], self._batch_tokens):
            batch = moved(packed(rows[places], tokens, mask), self._job.device)
            means = PackedMeans(batch, self._routing, features=self._config.features)
            shape = batch.positions, batch.starts, batch.longest
            self._packed.read(batch.ids, *shape, self._layers, means.take)
            yield batch.rows, OnItsWay(means.values)

    def _read_padded(
        self, tokens: Joined, mask: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, OnItsWay]]:
        """Do the same with padded batches, through transformers."""
        ids, masks = (np.split(all_of, tokens.starts[1:-1]) for all_of in (tokens.ids, mask))
        for batch in self._batches(ids, masks, rows):
            means = TokenMeans(batch.mask, self._routing, features=self._config.features)
            self._signals.read(batch.ids, self._layers, means.take)
            yield batch.rows, OnItsWay(means.values)

    def _batches(
        self, ids: Sequence[np.ndarray], masks: Sequence[np.ndarray], rows: np.ndarray
    ) -> Iterator[Batch]:
        lengths = np.array([len(ids[row]) for row in rows], dtype=np.int64)
        for places in within_budget(lengths, self._batch_tokens):
            yield padded(rows[places], ids, masks, self._job.device)


def counted(parts: np.ndarray, starts: np.ndarray, tokens: str, chat: ChatFormat) -> np.ndarray:
    """Return which tokens count for the score, bool ``[tokens]``.

    Args:
        parts: what each token is part of, of examples one after another, ``[tokens]``.
        starts: the first token of each example.
        tokens: the scorer's option.
        chat: the format.
    """
    if tokens == "end":
        return answer_ends(parts, starts)
    if tokens == RESPONSE:
        return np.asarray(parts == Part.RESPONSE)
    if chat.config.mask_format:
        return np.asarray(parts != Part.FORMAT)
    return np.ones(parts.shape, dtype=bool)


def _trash_and_slots(ref: ModelRef, config: dict[str, Any]) -> tuple[int, int]:
    """Return trash cans and top-k of a model's configuration."""
    names = ShapeNames()
    if (top_k := names.find(config, "top_k")) is None:
        raise ModelError(
            f"{ref} has no router: its configuration has no {' or '.join(names.top_k)}",
            hint="the router scorer needs a mixture of experts, such as a converted OLMoE",
        )
    return int(names.find(config, "trash") or 0), int(top_k)


def _taught_tokens(job: Job, ref: ModelRef) -> str:
    """Return the tokens at which warm-up trained the router; see ``selector.json``."""
    tokens = job.models.selector(ref).get("tokens", RESPONSE)
    if tokens not in TOKENS:
        raise ModelError(
            f"{SELECTOR} of {ref} says tokens = {tokens!r}",
            hint=f"it must be one of {', '.join(TOKENS)}; or set the scorer's option 'tokens'",
        )
    return str(tokens)
