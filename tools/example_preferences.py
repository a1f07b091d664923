"""Write a small set of preferences and labels, to try ``[warmup.pairs]`` and ``audit --labelled``.

    python tools/example_preferences.py work/mine

The questions are those of the nano pool. Answers that say something plainly are preferred to ones
that hedge, and both are about equally long: no score that knows only length can tell them apart.
"""

import argparse
import json
import random
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from selectmoe_nano.generator import stream

PLAIN = ("The answer is {}.", "It is surely {}.", "It must be {}.", "Clearly it is {}.")
HEDGED = ("Perhaps it is {}.", "It might be {}?", "I guess it is {}.", "Who knows, {}.")
TRAINED, HELD, GRADED = 400, 150, 100


def main() -> None:
    """Write ``preferences.jsonl``, ``pairs.jsonl`` and ``graded.jsonl`` into a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(3)
    asked = [question for _, question in islice(stream(11), TRAINED + HELD + GRADED)]
    pairs = [
        {
            "prompt": question.instruction,
            "chosen": chance.choice(PLAIN).format(question.answer),
            "rejected": chance.choice(HEDGED).format(question.answer),
        }
        for question in asked[: TRAINED + HELD]
    ]
    graded = [
        {"prompt": question.instruction, "completion": text, "stars": stars}
        for question in asked[TRAINED + HELD :]
        for stars, text in (
            (3, chance.choice(PLAIN).format(question.answer)),
            (2, chance.choice(PLAIN).format(question.wrong[0])),
            (1, chance.choice(HEDGED).format(question.wrong[1])),
        )
    ]
    _write(folder / "preferences.jsonl", pairs[:TRAINED])
    _write(folder / "pairs.jsonl", pairs[TRAINED:])
    _write(folder / "graded.jsonl", graded)


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
