"""The parts of the benchmark on judged rows: what each does, and the tables of what is there."""

import json
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from evidence_arms import CONTRAST, Arm
from evidence_bench import Bench, digest, free, scratch
from evidence_measures import blended, logistic, ranks
from evidence_rivals import BATCH_TOKENS, answer_states
from natural_heads import HEAD, PAIR_SECONDS, Fit, fit_pairs, fits, left_out, reward_head
from natural_models import NAME as MODELS
from natural_models import ModelAnswers, models_table
from natural_parts import Clock, Part, claim
from natural_sets import Together
from natural_table import planted_table, set_table

from selectmoe_core import ModelRef
from selectmoe_core.audit.agreement import right
from selectmoe_core.store import FileHashes
from selectmoe_damage.config import RATES
from selectmoe_olmoe.warmup.pairs import comparable

MEANING = {"sentence_shuffle": 1.5, "number_slip": 1.0, "name_swap": 0.5, "negation": 0.5}
"""Rates of the kinds that the default mixture leaves out."""
CHECKED = {"wrong_numbers": 4.0, "number_slip": 4.0, "wrong_arithmetic": 8.0, "prompt_number": 6.0}
"""Numbers often: a row that a drawn kind cannot change gets another one, and these fit few rows."""
ROUTERS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "contrastive": ({}, {}),
    "contrastive, all kinds": ({"damages": RATES | MEANING}, {}),
    "contrastive, numbers often": ({"damages": RATES | CHECKED}, {}),
    "contrastive, places": ({"place_weight": 1.0}, {}),
}
"""Options of the warm-up and of the converter beside the usual ones."""
OTHERS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "contrastive, trash rows as copies": ({}, {"trash_can_init": "experts"}),
    "contrastive, trash as one group": ({"balance_over": "grouped"}, {}),
    "contrastive, numbers often, places": (
        {"damages": RATES | CHECKED, "place_weight": 1.0},
        {},
    ),
}
"""The same, after the pairs."""
BLENDED = ("contrastive", "contrastive, numbers often")
BLENDS = ("min", "sum 1:1", "sum 3:1")
SCORE_SECONDS = 0.002
"""Seconds of scoring a row of about 200 tokens, the loading of the model apart."""


class NaturalBench(Bench):
    """The bench of the evidence, with a base that may be given."""

    @cached_property
    def base_key(self) -> str:
        """The digest of what makes the base model, or of the given one."""
        if self.chosen.base:
            return digest(FileHashes(None).of_tree(self.chosen.base))
        key: str = super().base_key
        return key

    @property
    def tokenizer(self) -> Path:
        """The folder of the base's tokenizer, which is there before the base is."""
        found: Path = self.chosen.base or self.chosen.llama
        return found

    @cached_property
    def base(self) -> Path:
        """The base model."""
        given: Path | None = self.chosen.base
        made: Path = given or super().base
        return made


class Run:
    """The parts of a run, in the order of their worth; each is done once, by one process."""

    def __init__(
        self, bench: NaturalBench, together: Together, models: ModelAnswers | None, clock: Clock
    ) -> None:
        self.bench = bench
        self.together = together
        self.models = models
        self.clock = clock
        self.scores: dict[str, np.ndarray] = {}
        self.folded: set[str] = set()
        self.fine = True

    def parts(self) -> list[Part]:
        """Return all parts."""
        chosen, scored = self.bench.chosen, self.bench.rows
        scoring = 15 + len(scored) * SCORE_SECONDS
        warming = 30 + chosen.epochs * len(self.bench.pool) * PAIR_SECONDS + scoring
        found = [self._part("plain scores", self.plain, 3 * scoring)]
        found += [self._warming(name, warming) for name in ROUTERS]
        found += [
            self._part("unwarmed router", lambda: self.router("unwarmed router"), 20 + scoring),
            self._part("states", self.states, scoring),
        ]
        folds, self.short = fits(self.teaching, chosen.folds, chosen.sizes)
        for fit in (*folds, *left_out(self.teaching)):
            needs = ("states",) if fit.way == HEAD else ()
            make = lambda fit=fit: self.fit(fit)  # type: ignore[misc]  # noqa: E731
            facts = (chosen.folds, fit.pairs.tolist())
            found.append(self._part(f"{fit.name}/{fit.fold}", make, fit.seconds, needs, facts))
        return found + [self._warming(name, warming) for name in OTHERS]

    def _warming(self, name: str, seconds: float) -> Part:
        return self._part(name, lambda: self.router(name), seconds, facts=(ROUTERS | OTHERS)[name])

    @cached_property
    def teaching(self) -> Together:
        """The judged sets with the pairs that a warm-up can learn from."""
        tokenizer = self.bench.registry.models.tokenizer(ModelRef(str(self.bench.tokenizer)))
        encoded = self.bench.rows.encoded(tokenizer)

        def differ(better: int, worse: int) -> bool:
            return comparable(encoded[better], encoded[worse], "end")

        return self.together.teaching(differ)

    def _part(
        self,
        name: str,
        make: Callable[[], tuple[dict[str, np.ndarray], Any]],
        seconds: float,
        needs: tuple[str, ...] = (),
        facts: Any = None,  # noqa: ANN401
    ) -> Part:
        key = digest(self.bench.setting, name, self.bench.chosen.epochs, facts)

        def done() -> None:
            start = time.monotonic()
            scores, said = make()
            path = self.bench.out / f"natural-{key}.npz"
            partial = path.with_name(f".{key}.npz")
            np.savez_compressed(partial, **scores)
            partial.rename(path)
            line = {"facts": said, "figures": self.figures(scores)}
            self.bench.note(name, line, time.monotonic() - start, key)

        return Part(name, key, done, seconds, needs)

    def all(self) -> None:
        """Do every part that is missing, wanted and not in the hands of another process."""
        parts = self.parts()
        for line in self.short:
            print(f"not there: {line}", flush=True)
        for number, part in enumerate(parts, start=1):
            if not self._load(part) and self._begins(part):
                rest = sum(p.seconds for p in parts[number - 1 :] if not self._file(p).is_file())
                print(
                    f"[{number}/{len(parts)}] {part.name}: about {part.seconds:.0f} s on an H100; "
                    f"{rest / 60:.0f} min of parts are left{self.clock.shown}",
                    flush=True,
                )
                try:
                    part.make()
                    self._load(part)
                except Exception:
                    traceback.print_exc()
                    self.fine = False
                finally:
                    free()

    def _file(self, part: Part) -> Path:
        return self.bench.out / f"natural-{part.key}.npz"

    def _load(self, part: Part) -> bool:
        """Read the scores of a part that is done."""
        if not self._file(part).is_file():
            return False
        with np.load(self._file(part)) as kept:
            self.scores |= {signal: kept[signal] for signal in kept.files}
        return True

    def _begins(self, part: Part) -> bool:
        chosen = self.bench.chosen
        if chosen.only and not any(part.name.startswith(start) for start in chosen.only):
            return False
        if any(name not in self.scores for name in part.needs):
            return False
        if not self.clock.fits(part):
            print(f"not begun, no time: {part.name}", flush=True)
            return False
        return claim(self.bench.out, part.key)

    def plain(self) -> tuple[dict[str, np.ndarray], Any]:
        """Score by what needs no router."""
        bench = self.bench
        with scratch(bench.work / "plain") as work:
            details = bench.scores("ifd", {}, bench.base, bench.rows, work).details
            length = bench.scores("length", {}, bench.base, bench.rows, work).score
        loss, alone = details["loss"], details["loss_alone"]
        found = {
            "length": length,
            "answer loss, low": -loss,
            "IFD, low": -details["ifd"],
            "IFD of perplexities, low": alone - loss,
        }
        return found, None

    def router(self, name: str) -> tuple[dict[str, np.ndarray], Any]:
        """Warm up, or not, and score by the router."""
        bench = self.bench
        arm = Arm(name, None)
        if name in ROUTERS | OTHERS:
            warmup, convert = (ROUTERS | OTHERS)[name]
            small = {"batch_size": 8, "micro_batch_size": 8} if bench.chosen.tiny else {}
            arm = Arm(name, CONTRAST | small | warmup, bench.chosen.epochs, convert=convert)
        with scratch(bench.work / "arm") as work:
            model, facts = bench.warmed(arm, bench.pool, work)
            found = {
                name: bench.scores("router", {"tokens": "end"}, model, bench.rows, work).score,
            }
        return found, facts

    def states(self) -> tuple[dict[str, np.ndarray], Any]:
        """Read the base's states of the judged sets: what the reward head learns from."""
        bench = self.bench
        job, ref = bench.job(0, bench.work), ModelRef(str(bench.base))
        model = job.models.load(ref, dtype=job.dtype, device=job.device)
        encoded = bench.rows.encoded(job.models.tokenizer(ref))
        count = len(self.together.examples)
        whole = answer_states(model, encoded.take(np.arange(count)), BATCH_TOKENS)
        return {"states": whole.astype(np.float16)}, {"width": whole.shape[1]}

    def fit(self, fit: Fit) -> tuple[dict[str, np.ndarray], Any]:
        """Learn from pairs by a warm-up or a reward head; score the rows that were held out."""
        if fit.way == HEAD:
            states = self.scores["states"].astype(np.float32)
            score = reward_head(states, fit.pairs, self.together.groups, fit.held)
            facts: dict[str, Any] = {"pairs": len(fit.pairs)}
        else:
            small = {"epochs": 1.0, "batch_size": 8, "micro_batch_size": 8}
            overrides = small if self.bench.chosen.tiny else {}
            score, facts = fit_pairs(self.bench, self.together, fit, overrides)
        return {f"{fit.name}/{fit.fold}": self._placed(score, fit.held)}, facts

    def _placed(self, score: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Return ranks of the rows that were held out among all judged rows, NaN elsewhere.

        Ranks, because the scores of different folds come from different models.
        """
        whole = np.full(len(self.bench.rows), np.nan)
        whole[np.flatnonzero(held)] = ranks(score)
        return whole

    def figures(self, scores: dict[str, np.ndarray]) -> dict[str, dict[str, list[float]]]:
        """Return the pair accuracy of new scores, and the number of pairs, by set."""
        found: dict[str, dict[str, list[float]]] = {}
        for name, score in scores.items():
            if len(score) != len(self.bench.rows) or score.ndim > 1:
                continue
            known = self.together.pairs[np.isfinite(score[self.together.pairs]).all(axis=1)]
            of = self.together.of[known[:, 0]]
            for number, one in enumerate(self.together.sets):
                if len(pairs := known[of == number]):
                    share = round(float(right(score, pairs).mean()), 4)
                    found.setdefault(name, {})[one.about.name] = [share, len(pairs)]
        return found

    # ------------------------------------------------------------------------------- judging

    def judged(self) -> dict[str, np.ndarray]:
        """Return every score of the judged rows; NaN where a fold is not done."""
        count = len(self.bench.rows)
        found: dict[str, np.ndarray] = {}
        for key, score in self.scores.items():
            name, _, fold = key.rpartition("/")
            if fold.isdigit():
                place = found.setdefault(name, np.full(count, np.nan))
                place[np.isfinite(score)] = score[np.isfinite(score)]
                self.folded.add(name)
            elif len(score) == count:
                found[key] = score
        for main in BLENDED:
            if main in found and "IFD, low" in found:
                for how, score in blended(found[main], found["IFD, low"]).items():
                    if how in BLENDS:
                        found[f"{main} with IFD, {how}"] = score
                found |= self._learned(main, found)
        return found

    def _learned(self, main: str, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return a blend whose weights come from planted damage, as an audit could learn them."""
        names = (main, "IFD, low", "answer loss, low")
        table = np.column_stack([ranks(scores[name]) for name in names])
        parts = self.bench.of_sets(np.arange(len(table)))
        held, rows = next((one, rows) for one, rows in parts if one.name == "held")
        score = logistic(table[rows], ~held.clean, table)
        return {f"{main}, weights learned from plants": score}

    def report(self) -> str:
        """Return the tables, and keep their figures."""
        scores = self.judged()
        if "length" not in scores:
            return "no tables yet: the part 'plain scores' is not done"
        sets = {one.about.name: one for one in self.together.sets}
        texts, figures = [], {}
        for judged, rows in self.bench.of_sets(np.arange(len(self.bench.rows))):
            of_set = {name: score[rows] for name, score in scores.items()}
            if judged.name in sets:
                natural = sets[judged.name]
                text, kept = set_table(natural, of_set, of_set["length"], self.folded)
            elif judged.name == MODELS:
                assert self.models is not None
                text, kept = models_table(self.models, of_set, of_set["length"])
            else:
                text, kept = planted_table(judged.name, of_set, judged)
            texts.append(text)
            figures[judged.name] = kept
        path = self.bench.out / "natural.json"
        path.write_text(json.dumps(figures, indent=1), encoding="utf-8")
        return "\n\n".join(texts)
