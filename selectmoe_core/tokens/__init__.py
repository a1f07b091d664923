"""Chat formats, and examples as token ids."""

from typing import TYPE_CHECKING

from selectmoe_core.lazy import lazy_names

if TYPE_CHECKING:
    from selectmoe_core.data.examples import Rendered
    from selectmoe_core.tokens.chat import (
        ChatConfig,
        ChatFormat,
        EncodedExample,
        answer_ends,
    )
    from selectmoe_core.tokens.control import ControlTokens
    from selectmoe_core.tokens.encoding import (
        Encoded,
        Joined,
        encode,
    )
    from selectmoe_core.tokens.packing import (
        PackedBatch,
        even,
        moved,
        packed,
    )
    from selectmoe_core.tokens.texts import (
        token_texts,
    )
    from selectmoe_core.tokens.tokenizer import Tokenizer
    from selectmoe_core.tokens.unrendered import unrendered_rows

__getattr__ = lazy_names(
    __name__,
    {
        "selectmoe_core.tokens.chat": "ChatConfig ChatFormat EncodedExample answer_ends",
        "selectmoe_core.data.examples": "Rendered",
        "selectmoe_core.tokens.control": "ControlTokens",
        "selectmoe_core.tokens.encoding": "Encoded Joined encode",
        "selectmoe_core.tokens.packing": "PackedBatch even moved packed",
        "selectmoe_core.tokens.texts": "token_texts",
        "selectmoe_core.tokens.tokenizer": "Tokenizer",
        "selectmoe_core.tokens.unrendered": "unrendered_rows",
    },
)

__all__ = [
    "ChatConfig",
    "ChatFormat",
    "ControlTokens",
    "Encoded",
    "EncodedExample",
    "Joined",
    "PackedBatch",
    "Rendered",
    "Tokenizer",
    "answer_ends",
    "encode",
    "even",
    "moved",
    "packed",
    "token_texts",
    "unrendered_rows",
]
