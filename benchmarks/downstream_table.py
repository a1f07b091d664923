"""The tables: every arm beside random selection, with paired intervals."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from downstream_arm import BASE, ORACLE, RANDOM, Arm
from downstream_intervals import Interval, difference, mean, share_of_gain, weighted

LOSS, TOKEN_LOSS = "held-out loss", "held-out loss per token"
SHOWN = 6
Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Group:
    """The arms of one strategy, quota and fraction: one line for each seed.

    Attributes:
        label: strategy and quota.
        lines: the results, by seed.
    """

    label: str
    lines: Mapping[int, Mapping[str, Any]]

    def of(self, measure: str, seeds: Sequence[int]) -> np.ndarray:
        """Return a measure of each item, ``[seeds, items]``; where there is no training, one."""
        lines = [self.lines[seed] for seed in (self.lines if self.label == BASE else seeds)]
        if measure in (LOSS, TOKEN_LOSS):
            return np.array([line["heldout"]["loss"] for line in lines])
        return np.array([[int(one) for one in line["tasks"][measure]["right"]] for line in lines])


def tables(lines: Lines) -> str:
    """Return the results as Markdown: settings that cannot be compared stand apart."""
    apart: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for line in {line["key"]: line for line in lines}.values():
        apart[line["common"]].append(line)
    if not apart:
        return "no arm is done yet"
    return "\n\n".join(
        f"# Settings {common}: {', '.join(sorted({line['machine'] for line in of}))}\n\n"
        + "\n\n".join(_of_settings(of))
        for common, of in apart.items()
    )


def _of_settings(lines: Lines) -> Iterator[str]:
    groups: dict[float, dict[str, dict[int, Mapping[str, Any]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for line in lines:
        arm = Arm(**line["arm"])
        groups[arm.fraction][arm.label][arm.seed] = line
    base = groups.pop(0.0, {})
    for fraction, of in sorted(groups.items()):
        found = {label: Group(label, by_seed) for label, by_seed in {**base, **of}.items()}
        yield f"## {fraction:.0%} of the pool"
        yield _selected(found)
        for measure in _measures(lines):
            yield _compared(measure, found)
    if base and not groups:
        yield from (_compared(one, {BASE: Group(BASE, base[BASE])}) for one in _measures(lines))


def _measures(lines: Lines) -> list[str]:
    return [LOSS, TOKEN_LOSS, *sorted({task for line in lines for task in line["tasks"]})]


def _selected(groups: Mapping[str, Group]) -> str:
    """Return what was selected: rows, clean share, tokens, the largest sources."""
    rows = ["| arm | rows | clean | tokens | sources |", "|---|---|---|---|---|"]
    for label, group in groups.items():
        if label == BASE:
            continue
        some = list(group.lines.values())
        clean = np.mean([line["clean"] for line in some])
        tokens = np.mean([line["train"]["tokens"] for line in some])
        sources = sorted(some[0]["sources"].items(), key=lambda of: -of[1])[:SHOWN]
        told = ", ".join(f"{name} {n / some[0]['selected']:.0%}" for name, n in sources)
        rows.append(f"| {label} | {some[0]['selected']} | {clean:.1%} | {tokens:,.0f} | {told} |")
    return "\n".join(rows)


def _compared(measure: str, groups: Mapping[str, Group]) -> str:
    lines = {label: of for label, of in groups.items() if _has(of, measure)}
    better = "lower" if measure in (LOSS, TOKEN_LOSS) else "higher"
    metric = next(
        (
            of.lines[seed]["tasks"][measure]["metric"]
            for of in lines.values()
            for seed in of.lines
            if measure in of.lines[seed]["tasks"]
        ),
        "nats",
    )
    rows = [
        f"### {measure} ({metric}; {better} is better)\n",
        "| arm | seeds | value | minus random | by seed | of the oracle's gain |",
        "|---|---|---|---|---|---|",
    ]
    rows += [_row(label, measure, lines) for label in lines]
    return "\n".join(rows)


def _has(group: Group, measure: str) -> bool:
    some = next(iter(group.lines.values()))
    return measure in (LOSS, TOKEN_LOSS) or measure in some["tasks"]


def _row(label: str, measure: str, groups: Mapping[str, Group]) -> str:
    own, random, oracle = groups[label], groups.get(RANDOM), groups.get(ORACLE)
    seeds = sorted(own.lines)
    cells = [label, str(len(seeds)), _cell(_figure(measure, own, None, seeds))]
    both = sorted(random.lines) if random and label == BASE else seeds
    both = [seed for seed in both if random and seed in random.lines]
    if label == RANDOM or not random or not both:
        return f"| {' | '.join([*cells, '', '', ''])} |"
    cells.append(_cell(_figure(measure, own, random, both), sign="+"))
    each = [_figure(measure, own, random, [seed]).value for seed in both]
    cells.append(" ".join(f"{one:+.4f}" for one in each))
    shared = [seed for seed in both if oracle and seed in oracle.lines]
    gain = ""
    if measure == LOSS and oracle and shared and label not in (ORACLE, BASE):
        of_all = (group.of(measure, shared) for group in (own, random, oracle))
        gain = _cell(share_of_gain(*of_all), digits=2)
    return f"| {' | '.join([*cells, gain])} |"


def _figure(measure: str, own: Group, other: Group | None, seeds: Sequence[int]) -> Interval:
    values = own.of(measure, seeds)
    beside = None if other is None else other.of(measure, seeds)
    if measure == TOKEN_LOSS:
        first = next(iter(own.lines.values()))
        return weighted(values, beside, np.array(first["heldout"]["tokens"], dtype=np.float64))
    return mean(values) if beside is None else difference(values, beside)


def _cell(of: Interval, *, digits: int = 4, sign: str = "") -> str:
    form = f"{sign}.{digits}f"
    return f"{of.value:{form}} [{of.low:{form}}, {of.high:{form}}]"
