"""The reader: generated examples instead of files."""

from collections.abc import Iterator

from selectmoe_core import DataError, Job, Message, RawExample
from selectmoe_nano.config import NanoConfig
from selectmoe_nano.generator import Item, pool


class NanoReader:
    """Yields generated questions with their answers."""

    def __init__(self, config: NanoConfig) -> None:
        self.config = config

    def read(self, job: Job) -> Iterator[RawExample]:
        """Yield the examples; the source is the family, the label the kind of damage.

        Raises:
            DataError: the families have fewer different questions than are wanted.
        """
        count = 0
        for item in pool(self.config.examples, self.config.damaged, job.seed):
            count += 1
            yield _example(item, count)
        if count < self.config.examples:
            raise DataError(
                f"[pool] nano: with this seed there are only {count} different questions, "
                f"not {self.config.examples}",
                hint=f"set examples = {count} or less",
            )


def _example(item: Item, number: int) -> RawExample:
    messages = (Message("user", item.instruction), Message("assistant", item.answer))
    return RawExample(item.family, messages, where=f"nano:{number}", label=item.label or "")
