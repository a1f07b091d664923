"""Examples with random turns of random words."""

import random

from selectmoe_core.data.examples import Example, Message, content_id

WORDS = ["the cat", " ", "  ", "\n", "x", "hello", "    def f(x):", "é", "🙂", "</s>", "\u2028"]


def random_examples(rng: random.Random, count: int) -> list[Example]:
    found = []
    for _ in range(count):
        turns = []
        for _ in range(rng.randrange(1, 4)):
            turns.append(Message("user", "".join(rng.choices(WORDS, k=rng.randrange(0, 9)))))
            turns.append(Message("assistant", "".join(rng.choices(WORDS, k=rng.randrange(0, 9)))))
        source = rng.choice(["alpha", "beta", "größe"])
        found.append(Example(content_id(turns).hex(), source, tuple(turns)))
    return found
