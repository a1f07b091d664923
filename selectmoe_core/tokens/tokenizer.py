"""What selectmoe uses of a tokenizer."""

from typing import Any, Protocol


class Tokenizer(Protocol):
    """The part of a transformers fast tokenizer that selectmoe uses."""

    eos_token: str | None
    is_fast: bool
    chat_template: Any
    backend_tokenizer: Any

    def __call__(self, text: list[str], **options: Any) -> Any:  # noqa: ANN401
        """Return ``input_ids`` and, in ``encodings``, the positions of the tokens."""
        ...

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:  # noqa: ANN401
        """Return the conversation as text."""
        ...
