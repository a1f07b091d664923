"""The embedder ``sentence-transformers``: text in, the vector of a sentence model out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from selectmoe_core import Example, Job, ModelError, Shard
from selectmoe_embed.config import SentenceTransformersConfig


class SentenceTransformers:
    """Opens a sentence model; see ``SentenceTransformersConfig``."""

    def __init__(self, config: SentenceTransformersConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job, role: str) -> Iterator["SentenceEmbedder"]:  # noqa: ARG002
        """Load the model, whichever examples are embedded."""
        import torch
        from sentence_transformers import SentenceTransformer

        ref = job.inputs.model
        if ref is None:
            raise ModelError("the embedder sentence-transformers has no model")
        kwargs = {"dtype": getattr(torch, job.dtype)}
        path = str(job.models.find(ref))
        model = SentenceTransformer(path, device=job.device, model_kwargs=kwargs)
        yield SentenceEmbedder(self.config, model)


class SentenceEmbedder:
    """Embeds with a loaded model."""

    def __init__(self, config: SentenceTransformersConfig, model: Any) -> None:  # noqa: ANN401
        self._config = config
        self._model = model

    def embed(self, shard: Shard) -> np.ndarray:
        """Return the vectors of a shard; the model sorts the texts by length itself."""
        texts = [self._config.prefix + text_of(one, self._config.text) for one in shard.examples]
        size = self._config.batch_size
        return np.asarray(self._model.encode(texts, batch_size=size, show_progress_bar=False))


def text_of(example: Example, which: str) -> str:
    """Return the text of an example that is embedded."""
    if which == "prompt":
        return example.prompt
    if which == "response":
        return example.response
    return "\n".join(message.content for message in example.messages)
