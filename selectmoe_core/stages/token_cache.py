"""The tokens of the whole pool for a tokenizer: made once, shared by all who read them."""

import hashlib
import json
import logging
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from selectmoe_core.data.pool import Pool
from selectmoe_core.errors import StageError
from selectmoe_core.runtime.progress import Advance, Progress
from selectmoe_core.stages.code import Code
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.store import Artifact, Facts, Store
from selectmoe_core.tokens.chat import ChatFormat
from selectmoe_core.tokens.encoding import Encoded
from selectmoe_core.tokens.files import Kept
from selectmoe_core.tokens.tokenize import encode_pool

log = logging.getLogger("selectmoe.encoded")

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


def tokens_digest(spec: NodeSpec, chat: ChatFormat, tokenizer: str) -> str:
    """Return the digest of a pool's tokens: pool, chat format, a tokenizer's digest, our code."""
    content = [spec.input_digests["pool"], chat.digest, tokenizer, _code()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@cache
def _code() -> str:
    """Return the digest of the code that tokenises."""
    roots = ("tokenize", "encode_pool"), ("chat", "ChatFormat")
    return Code.installed(()).digest((f"selectmoe_core.tokens.{name}", of) for name, of in roots)


def tokens_folder(spec: NodeSpec, chat: ChatFormat, tokenizer: str) -> Path:
    """Return where a pool's tokens under the tokenizer of a digest are, or will be."""
    return Store(spec.store).folder(STAGE, tokens_digest(spec, chat, tokenizer))


def encoded_pool(
    spec: NodeSpec,
    chat: ChatFormat,
    tokenizer: Any,  # noqa: ANN401
    progress: Progress,
    written: Advance = lambda _: None,
) -> Encoded:
    """Return the pool's tokens, tokenising where nobody has yet.

    Args:
        spec: a node that reads the pool.
        chat: how the examples are rendered.
        tokenizer: the tokenizer.
        progress: shows how far it is.
        written: is told the further rows that can be read from ``tokens_folder``: first of all
            those that were there before, or 0.
    """
    own = tokenizer_digest(tokenizer)
    found = found_tokens(spec, chat, own)
    if found is None:
        store, digest = Store(spec.store), tokens_digest(spec, chat, own)
        folder = store.folder(STAGE, digest)
        with store.lock(STAGE, digest, lambda text: print(text, file=sys.stderr)):  # noqa: T201
            if store.find(STAGE, digest) is None:  # nobody has made them meanwhile
                facts = _make(spec, folder, chat, tokenizer, progress, written)
                Artifact(STAGE, "tokenizer", digest, folder, facts).save()
        found = found_tokens(spec, chat, own)
    assert found is not None
    return found


def found_tokens(spec: NodeSpec, chat: ChatFormat, tokenizer: str) -> Encoded | None:
    """Return the pool's tokens under the tokenizer of a digest, or ``None`` before they are whole.

    Raises:
        StageError: a file was lost or cut since the tokens were written.
    """
    artifact = Store(spec.store).find(STAGE, tokens_digest(spec, chat, tokenizer))
    if artifact is None:
        return None
    encoded = Encoded.open(artifact.folder, chat)
    if not encoded.holds(int(artifact.facts["examples"]), int(artifact.facts["tokens"])):
        raise StageError(
            f"the tokens in {artifact.folder} are damaged",
            hint=f"remove the folder {artifact.folder} to have them made again",
        )
    return encoded


def _make(
    spec: NodeSpec,
    folder: Path,
    chat: ChatFormat,
    tokenizer: Any,  # noqa: ANN401
    progress: Progress,
    written: Advance,
) -> Facts:
    """Tokenise the pool, from where an earlier run stopped."""
    pool, begin, kept = Pool.open(spec.inputs["pool"]), time.monotonic(), Kept.of(folder)
    if kept.rows:
        log.info("%d examples had been tokenised before", kept.rows)
    kept.cut(folder)  # before anybody is told of rows: what lies behind is then read by nobody
    written(kept.rows)
    with progress.task("tokenise", len(pool), done=kept.rows) as advance:

        def made(rows: float) -> None:
            written(rows)
            advance(rows)

        encoded = encode_pool(pool, folder, chat, tokenizer, made, kept=kept)
    seconds = time.monotonic() - begin
    log.info("%d examples, %d tokens made in %.2f s", len(encoded), encoded.tokens, seconds)
    truncated = int(encoded.cut.sum())
    if truncated and spec.progress != "none":
        what = f"{truncated:,} of {len(encoded):,} examples at {chat.config.max_length:,} tokens"
        print(f"  truncated: {what}", file=sys.stderr)  # noqa: T201
    return {"examples": len(encoded), "tokens": encoded.tokens}
