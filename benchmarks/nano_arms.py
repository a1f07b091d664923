r"""Ways to warm up, compared on the bundled nano model and a CPU: kinds, places, trash rows.

    OMP_NUM_THREADS=1 python benchmarks/nano_arms.py --data data --out work/nano-arms

The pool is generated: nano questions, and sums whose answers show the equation. Each arm warms up
on clean rows alone, and the router scores rows in which every kind of damage was planted, each
compared with the rows that this kind could change. Sets that people judged are scored too, for
judging only; the nano model knows hardly any English, so these figures say little. Each arm leaves
a JSON line and its scores, a second run does what is missing, and ``--table`` prints what is there.
At last a blend of router, IFD and loss is fitted on the kinds that the warm-up was not shown.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from evidence_bench import Bench, digest, results, scratch, work_folder
from evidence_data import Judged
from natural_sets import Natural, read_sets
from rows import Rows

from selectmoe_core import Example, Message, ModelRef
from selectmoe_core.audit.agreement import pair_accuracy
from selectmoe_core.audit.fitting import TooFew, fit_blend
from selectmoe_core.audit.fitting_text import blend_lines
from selectmoe_core.audit.measures import auroc
from selectmoe_core.data.corruption import plant
from selectmoe_core.data.examples import content_id
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.training.checkpoints import complete_checkpoints
from selectmoe_damage.config import RATES
from selectmoe_nano.generator import stream

BASE = {
    "trainable": "all",
    "learning_rate": 1e-3,
    "lm_weight": 0.1,
    "epochs": 2.0,
    "batch_size": 16,
    "statistics": False,
}
MEANING = {"sentence_shuffle": 1.5, "number_slip": 1.0, "name_swap": 0.5, "negation": 0.5}
NUMBERS = {"wrong_arithmetic": 2.0, "prompt_number": 2.0, "date_slip": 0.7, "unit_swap": 0.7}
CHECKED = {"wrong_numbers": 4.0, "number_slip": 4.0, "wrong_arithmetic": 8.0, "prompt_number": 6.0}
"""Kinds that fit few rows need a high rate: a row that a drawn kind cannot change gets another."""
READINGS = ("end",)
EACH = 100
"""Rows of each kind at most."""


@dataclass(frozen=True)
class NanoArm:
    """A warm-up.

    Attributes:
        name: in the tables.
        warmup: options beside ``BASE``.
        convert: options of the converter.
        checkpoints: also score by this many checkpoints on the way.
        seed: of copies, order and trash rows.
    """

    name: str
    warmup: Mapping[str, Any] = field(default_factory=dict)
    convert: Mapping[str, Any] = field(default_factory=dict)
    checkpoints: int = 0
    seed: int = 1


def arms() -> list[NanoArm]:
    """Return all arms."""
    more = {"damages": RATES | MEANING}
    whole = {"damages": RATES | MEANING | NUMBERS}
    often = {"damages": RATES | {"wrong_numbers": 7.0}}
    checked = {"damages": RATES | CHECKED}
    copies = {"trash_can_init": "experts"}
    return [
        NanoArm("eleven kinds"),
        NanoArm("eleven kinds, numbers ten times", often),
        NanoArm("checkpoints", {}, {}, 5),
        NanoArm("numbers often", checked),
        NanoArm("eleven kinds, places", {"place_weight": 1.0}),
        NanoArm("trash rows as copies", {}, copies),
        NanoArm("trash as one group", {"balance_over": "grouped"}),
        NanoArm("numbers often, places", checked | {"place_weight": 1.0}),
        NanoArm("19 kinds", whole),
        NanoArm("trash rows as copies, one group", {"balance_over": "grouped"}, copies),
        NanoArm("15 kinds", more),
        NanoArm("eleven kinds, places of 0.3", {"place_weight": 0.3}),
    ]


def generated(count: int, seed: int) -> list[Example]:
    """Return rows: three nano questions to one sum whose answer shows its equation."""
    questions = stream(seed)
    random = Random(seed)
    found: dict[str, Example] = {}
    while len(found) < count:
        if len(found) % 4 == 3:
            made = _row("sums", *_sum(random))
        else:
            family, question = next(questions)
            made = _row(family, question.instruction, question.answer)
        found[made.id] = made
    return list(found.values())


def _sum(random: Random) -> tuple[str, str]:
    """Return a question with two numbers, and an answer with its equation."""
    a, b = random.randrange(10, 90), random.randrange(2, 10)
    sign, result = random.choice((("+", a + b), ("-", a - b), ("x", a * b)))
    asked = random.choice(("What is {}?", "Compute {}.", "{} =")).format(f"{a} {sign} {b}")
    return asked, f"{a} {sign} {b} = {result}. So the answer is {result}."


def _row(source: str, prompt: str, answer: str) -> Example:
    messages = (Message("user", prompt), Message("assistant", answer))
    return Example(content_id(messages).hex(), source, messages)


@dataclass(frozen=True)
class Planted:
    """Clean rows, and damaged copies of them by kind: positions among ``examples``.

    Attributes:
        examples: the clean rows, followed by the copies.
        clean: for each kind the rows that it could change.
        damaged: for each kind the copies.
    """

    examples: list[Example]
    clean: Mapping[str, np.ndarray]
    damaged: Mapping[str, np.ndarray]


def planted(rows: list[Example], damages: Mapping[str, Any], seed: int) -> Planted:
    """Plant every kind in up to ``EACH`` of the rows that it can change."""
    examples, clean, damaged = list(rows), {}, {}
    for kind, damage in damages.items():
        fits, copies = [], []
        for place, row in enumerate(rows):
            if len(copies) < EACH and (copy := plant(row, damage, rows, seed)) is not None:
                fits.append(place)
                copies.append(len(examples))
                examples.append(copy)
        if len(copies) >= 20:
            clean[kind], damaged[kind] = np.array(fits), np.array(copies)
    return Planted(examples, clean, damaged)


class NanoBench:
    """The rows and the parts."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        registry = Registry(load_plugins())
        chat = ChatFormat(ChatConfig(template="tulu", max_length=192))
        rows = generated(chosen.rows + chosen.held, 5)
        self.planted = planted(rows[: chosen.held], registry.damages, 7)
        self.sets: list[Natural] = read_sets(chosen.data, chosen.natural) if chosen.data else []
        judged = [*self.planted.examples, *(row for one in self.sets for row in one.examples)]
        work = work_folder(chosen)
        pool = Rows(rows[chosen.held :], chat, work / "pool-tokens")
        nothing = (Judged("all", judged, np.full(len(judged), "")),)
        scored = Rows(judged, chat, work / "judged-tokens")
        self.bench = Bench(chosen, registry, chat, pool, nothing, scored)
        self.base = registry.models.find(ModelRef("bundled:nano-olmoe"))
        self.setting = digest(pool.ids, scored.ids)

    def run(self, arm: NanoArm) -> dict[str, Any]:
        """Convert, warm up, score, measure."""
        bench = self.bench
        start = time.monotonic()
        with scratch(bench.work / "arm") as work:
            job = bench.job(arm.seed, work)
            part = bench.part(Kind.CONVERTER, "olmoe-trashcan", dict(arm.convert))
            part.convert(ModelRef(str(self.base)), work / "converted", job)
            options = BASE | dict(arm.warmup)
            if arm.checkpoints:
                steps = int(len(bench.pool) * BASE["epochs"] / BASE["batch_size"])  # type: ignore[operator]
                options["checkpoint_every"] = steps // arm.checkpoints
            trainer = bench.part(Kind.TRAINER, "select-moe-contrastive", options)
            converted = ModelRef(str(work / "converted"))
            said = dict(trainer.train(converted, bench.pool, work / "warmed", job))
            signals = dict(self.signals(work / "warmed", work))
            if arm.checkpoints:
                signals |= self.over_time(work)
        np.savez_compressed(bench.out / f"scores-{self.key(arm)}.npz", **signals)
        figures = {name: self.measured(score) for name, score in signals.items()}
        facts = {name: said[name] for name in ("steps", "seconds", "first", "final")}
        facts["corrupted_copies"] = said["corrupted_copies"]
        seconds = round(time.monotonic() - start, 1)
        return {"arm": asdict(arm), "facts": facts, "figures": figures, "seconds": seconds}

    def key(self, arm: NanoArm) -> str:
        """Return the digest of all that decides an arm's result."""
        return digest(self.setting, asdict(arm), BASE)

    def plain(self) -> dict[str, np.ndarray]:
        """Return the scores that need no router, made once."""
        path = self.bench.out / f"plain-{self.setting}.npz"
        if not path.is_file():
            with scratch(self.bench.work / "plain") as work:
                details = self.bench.scores("ifd", {}, self.base, self.bench.rows, work).details
            np.savez_compressed(
                path, **{"IFD, low": -details["ifd"], "loss, low": -details["loss"]}
            )
        with np.load(path) as kept:
            return dict(kept)

    def blends(self, arm: NanoArm) -> list[str]:
        """Return what a blend of an arm's router and the plain scores gives on kinds unseen."""
        path = self.bench.out / f"scores-{self.key(arm)}.npz"
        if not path.is_file():
            return []
        with np.load(path) as kept:
            scores = {"router": kept["trash mass, end"]} | self.plain()
        labels = np.full(len(self.bench.rows), "", dtype="<U32")
        for kind, places in self.planted.damaged.items():
            labels[places] = kind
        rows = np.arange(len(self.planted.examples))
        rates = RATES | dict(arm.warmup.get("damages", {}))
        kinds = [kind for kind in self.planted.damaged if not rates[kind]]
        given = {name: score[rows] for name, score in scores.items()}
        fit = fit_blend(given, labels[rows], kinds)
        return [f"{arm.name}:", *blend_lines(fit or TooFew())]

    def signals(self, model: Path, work: Path) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the scores of the router of a model."""
        for tokens in READINGS:
            found = self.bench.scores("router", {"tokens": tokens}, model, self.bench.rows, work)
            yield f"trash mass, {tokens}", found.score

    def over_time(self, work: Path) -> dict[str, np.ndarray]:
        """Return what the checkpoints of the warm-up say: trash mass and answer loss over time."""
        rows, bench = self.bench.rows, self.bench
        masses, losses = [], []
        for model in complete_checkpoints(work / "checkpoints"):
            masses.append(bench.scores("router", {"tokens": "end"}, model, rows, work).score)
            losses.append(-bench.scores("ifd", {}, model, rows, work).details["loss"])
        found: dict[str, np.ndarray] = {}
        for name, series in (("trash mass", np.array(masses)), ("loss, low", np.array(losses))):
            found |= {f"{name}, checkpoint {n + 1}": series[n] for n in (0, len(series) - 1)}
            found[f"{name}, mean of checkpoints"] = series.mean(axis=0)
            found[f"{name}, last minus first"] = series[-1] - series[0]
            found[f"{name}, steady (low spread)"] = -series.std(axis=0)
        return found

    def measured(self, score: np.ndarray) -> dict[str, Any]:
        """Return AUROC by kind, and pair accuracy on judged sets."""
        kinds = {}
        for kind in self.planted.clean:
            clean, damaged = self.planted.clean[kind], self.planted.damaged[kind]
            found = auroc(score[clean], score[damaged])
            kinds[kind] = [round(found.value, 3), round(found.stderr, 3), len(damaged)]
        start, sets = len(self.planted.examples), {}
        for one in self.sets:
            stop = start + len(one.examples)
            agreement = pair_accuracy(score[start:stop], one.pairs, one.groups)
            sets[one.about.name] = [round(agreement.value, 3), agreement.count]
            start = stop
        return {"kinds": kinds, "sets": sets}


def table(lines: list[dict[str, Any]]) -> str:
    """Return the figures, a row for each arm and reading, a column for each kind."""
    found = []
    for line in lines:
        for reading, figures in line["figures"].items():
            cells = [f"{name} {value[0]:.3f}" for name, value in figures["kinds"].items()]
            cells += [f"[{name}] {value[0]:.3f}" for name, value in figures["sets"].items()]
            found.append(f"{line['arm']['name']} | {reading}: {', '.join(cells)}")
    return "\n".join(found)


def main(arguments: list[str] | None = None) -> int:
    """Run the arms that are missing and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, required=True)
    add("--work", type=Path)
    add("--data", type=Path, help="a folder with natural/, to judge by")
    add("--rows", type=int, default=2000, help="to warm up on")
    add("--held", type=int, default=600, help="to plant damage in")
    add("--natural", type=int, default=160, help="rows of each judged set at most")
    add("--only", nargs="*", default=[], help="arms whose names begin so")
    add("--minutes", type=float, default=1e9, help="begin no arm later")
    add("--table", action="store_true")
    chosen = parser.parse_args(arguments)
    if not chosen.table:
        chosen.out.mkdir(parents=True, exist_ok=True)
        nano, begun = NanoBench(chosen), time.monotonic()
        done = {line["key"] for line in results(chosen.out)}
        for arm in arms():
            key = nano.key(arm)
            wanted = not chosen.only or any(arm.name.startswith(one) for one in chosen.only)
            if key in done or not wanted:
                continue
            if time.monotonic() - begun > 60 * chosen.minutes:
                print(f"not begun: {arm.name}", flush=True)
                continue
            line = nano.run(arm) | {"key": key}
            with (chosen.out / "evidence.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{arm.name}: {line['seconds']} s", flush=True)
        for arm in arms():
            print("\n".join(nano.blends(arm)))
    print(table(results(chosen.out)))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
