"""Write a small set of preferences and labels, to try ``[warmup.pairs]`` and ``audit --labelled``.

    python tools/example_preferences.py work/mine
    python tools/example_preferences.py work/format --quality format

The questions are those of the nano pool. By default, answers that say something plainly are
preferred to ones that hedge. With ``--quality format`` each prompt asks for a form, the preferred
answer has it, and the other has the form that another prompt asks for: only prompt and answer
together show which is better. Both answers are about equally long: no score that knows only length
can tell them apart.
"""

import argparse
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from selectmoe_nano.generator import stream
from selectmoe_nano.question import Question

PLAIN = ("The answer is {}.", "It is surely {}.", "It must be {}.", "Clearly it is {}.")
HEDGED = ("Perhaps it is {}.", "It might be {}?", "I guess it is {}.", "Who knows, {}.")
FORMS = {
    "Answer in brackets.": "[{}]",
    "Answer in quotes.": '"{}"',
    "Answer between stars.": "*{}*",
    "Answer with a mark.": "{}!!",
}
"""What a prompt may ask for, and an answer of that form; all are equally long."""
SIZES = {"manner": (400, 150, 100), "format": (300, 150, 100)}
"""Pairs to learn from, pairs to judge by, and graded prompts."""


def main() -> None:
    """Write ``preferences.jsonl``, ``pairs.jsonl`` and ``graded.jsonl`` into a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quality", choices=sorted(SIZES), default="manner")
    chosen = parser.parse_args()
    folder: Path = chosen.folder
    folder.mkdir(parents=True, exist_ok=True)
    trained, held, graded = SIZES[chosen.quality]
    chance = random.Random(3)
    asked = [question for _, question in islice(stream(11), trained + held + graded)]
    make = pair_of_manner if chosen.quality == "manner" else pair_of_format
    pairs = [make(question, chance) for question in asked[: trained + held]]
    _write(folder / "preferences.jsonl", pairs[:trained])
    _write(folder / "pairs.jsonl", pairs[trained:])
    grades = grades_of_manner if chosen.quality == "manner" else grades_of_format
    rows = [row for question in asked[trained + held :] for row in grades(question, chance)]
    _write(folder / "graded.jsonl", rows)


def pair_of_manner(question: Question, chance: random.Random) -> dict[str, str]:
    """Return a plain and a hedging answer."""
    return {
        "prompt": question.instruction,
        "chosen": chance.choice(PLAIN).format(question.answer),
        "rejected": chance.choice(HEDGED).format(question.answer),
    }


def grades_of_manner(question: Question, chance: random.Random) -> Iterator[dict[str, Any]]:
    """Yield a plain right answer, a plain wrong one, and a wrong one that hedges."""
    for stars, forms, answer in (
        (3, PLAIN, question.answer),
        (2, PLAIN, question.wrong[0]),
        (1, HEDGED, question.wrong[1]),
    ):
        text = chance.choice(forms).format(answer)
        yield {"prompt": question.instruction, "completion": text, "stars": stars}


def pair_of_format(question: Question, chance: random.Random) -> dict[str, str]:
    """Return an answer in the form that the prompt asks for, and one in another."""
    wanted, other = chance.sample(sorted(FORMS), 2)
    return {
        "prompt": f"{question.instruction} {wanted}",
        "chosen": FORMS[wanted].format(question.answer),
        "rejected": FORMS[other].format(question.answer),
    }


def grades_of_format(question: Question, chance: random.Random) -> Iterator[dict[str, Any]]:
    """Yield a right answer in the form asked for, a wrong one, and a wrong one in another form."""
    wanted, other = chance.sample(sorted(FORMS), 2)
    for stars, form, answer in (
        (3, wanted, question.answer),
        (2, wanted, question.wrong[0]),
        (1, other, question.wrong[1]),
    ):
        prompt = f"{question.instruction} {wanted}"
        yield {"prompt": prompt, "completion": FORMS[form].format(answer), "stars": stars}


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
