"""The router scorer: examples in, statistics of their tokens' routing out."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from selectmoe_core import Example, Job, ModelError, ModelRef, Shard, ShardScores, TokenDetail
from selectmoe_core.batches import Batch, padded, within_budget
from selectmoe_core.chat import ChatFormat, EncodedExample
from selectmoe_core.encoding import Encoded
from selectmoe_core.examples import Part
from selectmoe_core.models import SELECTOR
from selectmoe_router.config import NEEDS_TRASH, RouterConfig, chosen_layers
from selectmoe_router.packed import PackedMeans, ahead, even
from selectmoe_router.reduction import LayerSums, Routing, ShardTable, TokenMeans
from selectmoe_router.signals import RouterSignals

log = logging.getLogger("selectmoe.router")

NOTHING_COUNTS = "no response token (answer empty or cut off)"
PLAIN = "transformers"


class RouterScorer:
    """Opens the selector model; see ``RouterConfig``."""

    def __init__(self, config: RouterConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Compare the options with the model's configuration, where it is at hand already."""
        model = job.inputs.model
        if model is None or (config := job.models.config(model)) is None:
            return
        trash, _ = _trash_and_slots(job, model, config)
        self._check_trash(trash, model)
        self._layers(int(config["num_hidden_layers"]), model)

    @contextmanager
    def open(self, job: Job) -> Iterator["RouterShardScorer"]:
        """Load the model and find its routers.

        Raises:
            ModelError: no router, no trash cans where the statistic needs them, or a layer that is
                not there.
        """
        ref = job.inputs.model
        if ref is None:
            raise ModelError("the router scorer was given no model")
        model = job.models.load(ref, dtype=job.dtype, device=job.device)
        signals = RouterSignals(model)
        trash, top_k = _trash_and_slots(job, ref, model.config.to_dict())
        self._check_trash(trash, ref)
        layers = self._layers(len(signals), ref)
        signals.cut_behind(layers[-1])
        routing = Routing(signals.outputs(job.device) - trash, trash, top_k)
        if routing.experts < top_k:
            raise ModelError(f"{ref}: {routing.experts} regular experts cannot fill {top_k} slots")
        tokenizer = job.models.tokenizer(ref)
        yield RouterShardScorer(self.config, job, tokenizer, signals, layers, routing)

    def _check_trash(self, trash: int, model: ModelRef) -> None:
        if self.config.statistic in NEEDS_TRASH and not trash:
            raise ModelError(
                f"statistic = '{self.config.statistic}', but {model} has no trash cans",
                hint="score with a converted model, or set statistic = 'topk_ratio'",
            )

    def _layers(self, count: int, model: ModelRef) -> tuple[int, ...]:
        try:
            return chosen_layers(self.config.layers, count)
        except ValueError as error:
            raise ModelError(f"{model}: {error}", hint="change the option 'layers'") from None


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
    ) -> None:
        self._config = config
        self._job = job
        self._tokenizer = tokenizer
        self._signals = signals
        self._layers = layers
        self._routing = routing
        self._packed, told = signals.packed_decoder()
        self._kernel = told if self._packed else PLAIN
        log.info("kernel: %s", self._kernel if self._packed else f"{PLAIN} ({told})")

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
        encoded = self._encoded
        of_rows = [encoded[int(row)] for row in shard.rows]
        masks = [counted(one, self._config.tokens, encoded.chat) for one in of_rows]
        skipped = np.array([not mask.any() for mask in masks], dtype=bool)
        features = self._config.features
        table = ShardTable(len(of_rows), len(self._layers), self._routing, features=features)
        self._fill(table, of_rows, masks, np.flatnonzero(~skipped))
        by_layer = table.columns[self._config.statistic]
        details = {name: values.mean(axis=1) for name, values in table.columns.items()}
        return ShardScores(
            score=by_layer.mean(axis=1),
            skipped=[NOTHING_COUNTS if skip else None for skip in skipped],
            details=details | {"layers": by_layer},
            features=table.features,
            kernel=self._kernel,
        )

    def _fill(
        self,
        table: ShardTable,
        encoded: Sequence[EncodedExample],
        masks: Sequence[np.ndarray],
        rows: np.ndarray,
    ) -> None:
        """Read the examples ``rows`` and write their means into the table."""
        features = self._config.features
        if not self._packed:
            for batch in self._batches(encoded, masks, rows):
                means = TokenMeans(batch.mask, self._routing, features=features)
                self._signals.read(batch.ids, self._layers, means.take)
                table.fill(batch.rows, means)
            return
        ids = [one.ids for one in encoded]
        lengths = np.array([len(ids[row]) for row in rows], dtype=np.int64)
        batches = [rows[places] for places in even(lengths, self._config.batch_tokens)]
        taken = []
        for packed in ahead(batches, ids, masks, self._job.device):
            of_examples = PackedMeans(packed, self._routing, features=features)
            shape = packed.positions, packed.starts, packed.longest
            self._packed.read(packed.ids, *shape, self._layers, of_examples.take)
            taken.append((packed.rows, of_examples))
        for of_batch, of_examples in taken:  # now only, or the device would wait for the host
            table.fill(of_batch, of_examples)

    def tokens(self, examples: Sequence[Example]) -> list[TokenDetail]:
        """Return, for each token, 1 - the mass on trash cans, as a mean over the layers.

        Without trash cans it is the mass of the top-k experts. Every token has its value, also
        those that do not count for the score.
        """
        encoded = self._job.chat.encode(examples, self._tokenizer)
        everything = [np.ones(len(one.ids), dtype=bool) for one in encoded]
        found: dict[int, np.ndarray] = {}
        rows = np.flatnonzero([len(one.ids) for one in encoded])
        for batch in self._batches(encoded, everything, rows):
            sums = LayerSums(batch.mask, self._routing)
            self._signals.read(batch.ids, self._layers, sums.take)
            values = (sums.total / len(self._layers)).cpu().numpy()
            found.update(zip(batch.rows.tolist(), values, strict=True))
        return [self._detail(one, found.get(row)) for row, one in enumerate(encoded)]

    def _batches(
        self, encoded: Sequence[EncodedExample], masks: Sequence[np.ndarray], rows: np.ndarray
    ) -> Iterator[Batch]:
        lengths = np.array([len(encoded[row].ids) for row in rows], dtype=np.int64)
        ids = [one.ids for one in encoded]
        for places in within_budget(lengths, self._config.batch_tokens):
            yield padded(rows[places], ids, masks, self._job.device)

    def _detail(self, one: EncodedExample, values: np.ndarray | None) -> TokenDetail:
        if values is None:
            return TokenDetail((), ())
        texts = self._tokenizer.batch_decode([[int(token)] for token in one.ids])
        return TokenDetail(texts, values[: len(one.ids)].tolist())


def counted(one: EncodedExample, tokens: str, chat: ChatFormat) -> np.ndarray:
    """Return which tokens of an example count for the score, bool ``[length]``."""
    if tokens == "response":
        return np.asarray(one.parts == Part.RESPONSE)
    if chat.config.mask_format:
        return np.asarray(one.parts != Part.FORMAT)
    return np.ones(len(one.ids), dtype=bool)


def _trash_and_slots(job: Job, ref: ModelRef, config: dict[str, Any]) -> tuple[int, int]:
    """Return trash cans and top-k, from ``selector.json`` beside the model or its configuration."""
    folder = job.models.local(ref)
    if folder is not None and (folder / SELECTOR).is_file():
        selector = json.loads((folder / SELECTOR).read_text(encoding="utf-8"))
        return int(selector["trash_cans"]), int(selector["top_k"])
    top_k = int(config.get("num_experts_per_tok") or 0)
    if not top_k:
        raise ModelError(
            f"{ref} has no router: its configuration does not say num_experts_per_tok",
            hint="the router scorer needs a mixture-of-experts model, e.g. a converted OLMoE",
        )
    return int(config.get("num_trash_experts") or 0), top_k
