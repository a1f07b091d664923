"""The tokens of the whole pool for a tokenizer: made once, shared by all who read them."""

import hashlib
import json
import shutil
import sys
from typing import Any

from selectmoe_core.artifacts import Artifact, Store
from selectmoe_core.chat import ChatFormat
from selectmoe_core.distributed import current_world
from selectmoe_core.encoding import Encoded, encode
from selectmoe_core.errors import StageError
from selectmoe_core.pool import Pool
from selectmoe_core.progress import Progress
from selectmoe_core.stages.work import Work

STAGE = "encoded"


def tokenizer_digest(tokenizer: Any) -> str:  # noqa: ANN401
    """Return what identifies a tokenizer: its whole definition, wherever it was loaded from."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise StageError("a slow tokenizer cannot be used", hint="use one with a tokenizer.json")
    definition = json.dumps(
        [backend.to_str(), tokenizer.eos_token, tokenizer.bos_token, tokenizer.chat_template],
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(definition.encode()).hexdigest()


def encoded_pool(work: Work, chat: ChatFormat, tokenizer: Any, progress: Progress) -> Encoded:  # noqa: ANN401
    """Return the pool's tokens, tokenising where nobody has yet."""
    content = [work.input_digests["pool"], chat.digest, tokenizer_digest(tokenizer)]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    store = Store(work.store)
    folder = store.folder(STAGE, digest)
    if current_world().main:
        with store.lock(STAGE, digest, lambda text: print(text, file=sys.stderr)):  # noqa: T201
            if store.find(STAGE, digest) is None:
                _encode(Pool.open(work.inputs["pool"]), store, digest, chat, tokenizer, progress)
    else:
        _wait_for_main()
    return _whole(Encoded.open(folder, chat), store, digest)


def _whole(encoded: Encoded, store: Store, digest: str) -> Encoded:
    """Check that no file was lost or cut since the tokens were written."""
    artifact = store.find(STAGE, digest)
    if artifact is not None and not encoded.holds(
        int(artifact.facts["examples"]), int(artifact.facts["tokens"])
    ):
        raise StageError(
            f"the tokens in {artifact.folder} are damaged",
            hint=f"remove the folder {artifact.folder} to have them made again",
        )
    return encoded


def _encode(
    pool: Pool,
    store: Store,
    digest: str,
    chat: ChatFormat,
    tokenizer: Any,  # noqa: ANN401
    progress: Progress,
) -> None:
    folder = store.folder(STAGE, digest)
    shutil.rmtree(folder, ignore_errors=True)
    with progress.task("tokenise", len(pool)) as advance:
        encoded = encode(pool.examples(), folder, chat, tokenizer, advance)
    facts = {"examples": len(encoded), "tokens": encoded.tokens}
    Artifact(STAGE, "tokenizer", digest, folder, facts).save()


def _wait_for_main() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
