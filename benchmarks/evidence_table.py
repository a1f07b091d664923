"""The results of the evidence as text."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

SHORT = {
    "answer_swap": "swap",
    "answer_shuffle": "shuffle",
    "answer_truncate": "cut",
    "refusal_boilerplate": "refusal",
    "instruction_garble": "garble",
    "answer_loop": "loop",
    "prompt_echo": "echo",
    "wrong_numbers": "numbers",
    "mojibake": "mojibake",
    "html_debris": "html",
    "role_swap": "roles",
}
SHOWN = ("main", "unseen", "later half")
"""Signals that are shown, beside all blends."""
BLEND = " with ifd"


def table(lines: Sequence[dict[str, Any]], setting: str | None = None) -> str:
    """Return tables of the arms and rivals of each setting, a table for each judged set.

    A setting is a base model, a pool and rows to judge by: results of different ones are no seeds
    of one another. Of two lines of the same key the later counts.

    Args:
        lines: of the results; those without AUROCs are passed over.
        setting: the only one to show.
    """
    results = {line["key"]: line for line in lines if "auroc" in line}
    by_setting: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in results.values():
        by_setting[line["setting"]].append(line)
    shown = [setting] if setting is not None else list(by_setting)
    return "\n\n".join(f"setting {one}\n\n{_setting(by_setting[one])}" for one in shown)


def _setting(lines: Sequence[dict[str, Any]]) -> str:
    """Return the tables of one setting: a row for each way of scoring, a column for each kind."""
    rows: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for name, signals in line["auroc"].items():
            for signal, kinds in signals.items():
                if line["name"] == "rivals":
                    rows[name][signal].append(kinds)
                elif kinds and (signal in SHOWN or signal.endswith(BLEND)):
                    arm, epochs = line["name"].rpartition("/")[0], line["epochs"]
                    rows[name][f"{arm}, {epochs:.3g} epochs [{signal}]"].append(kinds)
    return "\n\n".join(_set(name, ways) for name, ways in rows.items()) or "nothing is there yet"


def _set(name: str, ways: dict[str, list[dict[str, float]]]) -> str:
    kinds = sorted({kind for found in ways.values() for one in found for kind in one} - {"all"})
    head = f"{name:<58}{'all':>12}" + "".join(f"{SHORT.get(kind, kind):>10}" for kind in kinds)
    return "\n".join([head, *(_row(way, found, kinds) for way, found in ways.items())])


def _row(way: str, found: Sequence[dict[str, float]], kinds: Sequence[str]) -> str:
    def cell(kind: str) -> str:
        values = [one[kind] for one in found if kind in one]
        if not values:
            return "-"
        spread = f" ±{np.std(values, ddof=1):.3f}" if len(values) > 1 and kind == "all" else ""
        return f"{np.mean(values):.3f}{spread}"

    seeds = f" x{len(found)}" if len(found) > 1 else ""
    return f"{way + seeds:<58}{cell('all'):>12}" + "".join(f"{cell(kind):>10}" for kind in kinds)
