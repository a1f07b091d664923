"""Target examples that are held back from the evaluation: what is a target is not asked."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

TASKS = {
    "arc_easy": "arc_easy.jsonl",
    "sciq": "sciq.jsonl",
    "hellaswag": "hellaswag_1k.jsonl",
    "piqa": "piqa.jsonl",
}
"""The evaluated tasks, and their files below ``eval/``."""


def hold_back(data: Path, out: Path, targets: Sequence[str], count: int, questions: int) -> None:
    """Write ``out/eval`` (what is asked) and ``out/targets`` (one file of each target task).

    The examples that are held back are those with the smallest hash of their question, so that any
    number of them contains every smaller one.

    Args:
        data: the folder with ``eval/``.
        out: where to write; what is there already stays as it is.
        targets: the tasks that examples are held back from.
        count: how many of each.
        questions: how many are asked of each task; 0 for all that are left.
    """
    for folder in ("eval", "targets"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for task, name in TASKS.items():
        rows = _rows(data / "eval" / name)
        held = sorted(rows, key=_rank)[:count] if task in targets else []
        texts = {row["question"] for row in held}  # the same question may be there twice
        asked = [row for row in rows if row["question"] not in texts]
        _write(out / "eval" / name, asked[: questions or None])
        if held:
            _write(out / "targets" / f"{task}.jsonl", [_example(task, row) for row in held])


def most_questions(out: Path) -> int:
    """Return how many questions the largest file in ``out/eval`` has: a limit that cuts none."""
    return max(len(_rows(out / "eval" / name)) for name in TASKS.values())


def _rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as lines:  # texts may hold line separators of Unicode
        return [json.loads(line) for line in lines]


def _rank(row: dict) -> str:
    return hashlib.sha256(row["question"].encode()).hexdigest()


def _example(task: str, row: dict) -> dict:
    """Return a question with its right answer, as a conversation; a text to read is left out."""
    turns = {
        "user": f"Question: {row['question']}",
        "assistant": row["choices"][row["answer"]],
    }
    messages = [{"role": role, "content": text} for role, text in turns.items()]
    return {"dataset": task, "id": row["id"], "messages": messages}


def _write(path: Path, rows: Sequence[dict]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def target_options(parser: argparse.ArgumentParser, out: Path) -> None:
    """Add the options that decide the strategies and what they aim at; ``out`` is a default."""
    add = parser.add_argument
    add("--data", type=Path, required=True, help="the folder with less/ and eval/")
    add("--out", type=Path, default=out)
    add("--arms", nargs="+", metavar="NAME", help="only these strategies")
    add("--targets", nargs="+", choices=list(TASKS), default=["arc_easy", "sciq"])
    add("--device", default="auto")
