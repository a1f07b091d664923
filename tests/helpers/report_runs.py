"""Small finished runs, made through the same functions that the stages use."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.data.examples import Message, RawExample, Reject
from selectmoe_core.data.pool import Pool
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.data.scores import ShardScores, write_part
from selectmoe_core.data.shown import TokenDetail, examples_of_score, write_tokens
from selectmoe_core.report import NodeRecord, RunRecord
from selectmoe_core.stages.select import SCHEMA
from selectmoe_core.store import Artifact


def example(
    source: str, question: str, answer: str, label: str = "", where: str = "pool.jsonl:1"
) -> RawExample:
    messages = (Message("user", question), Message("assistant", answer))
    return RawExample(source, messages, where=where, label=label)


class Run:
    """Collects artifacts into a record."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "run"
        self.folder.mkdir(parents=True)
        self.nodes: list[NodeRecord] = []

    def artifact_folder(self, key: str) -> Path:
        folder = self.root / "store" / key.replace(":", "-").replace("@", "-")
        folder.mkdir(parents=True)
        return folder

    def add(
        self,
        key: str,
        component: str,
        facts: Mapping,
        arms: Sequence[str] = ("selected",),
        seconds: float = 1.0,
        cached: bool = False,
        folder: Path | None = None,
    ) -> Artifact:
        folder = folder or self.artifact_folder(key)
        stage = key.split("@", maxsplit=1)[0].split(":", maxsplit=1)[0]
        digest = f"{len(self.nodes):064x}"
        artifact = Artifact(stage, component, digest, folder, facts, seconds)
        artifact.save()
        self.nodes.append(
            NodeRecord(key, stage, component, digest, folder, cached, seconds, tuple(arms))
        )
        return artifact

    def pool(self, rows: Sequence[RawExample | Reject]) -> Pool:
        folder = self.artifact_folder("pool")
        pool = build_pool(rows, folder, on_reject="skip")
        facts = {
            "examples": len(pool),
            "sources": {name: vars(of) for name, of in pool.sources.items()},
        }
        self.add("pool", "jsonl", facts, ("selected", "random"), folder=folder)
        return pool

    def score(
        self,
        pool: Pool,
        values: Sequence[float],
        skipped: Sequence[str | None] | None = None,
        key: str = "score",
        parts: int = 2,
        details: Mapping[str, np.ndarray] | None = None,
        arms: Sequence[str] = ("selected",),
        tokens: Mapping | None = None,
        warnings: Sequence[str] = (),
        meanings: Mapping[str, Mapping] | None = None,
        features: np.ndarray | None = None,
        shading: Mapping[int, TokenDetail] | None = None,
    ) -> Artifact:
        folder = self.artifact_folder(key)
        cuts = np.linspace(0, len(pool), parts + 1).astype(int)
        for number, (start, stop) in enumerate(pairwise(cuts)):
            table = pa.Table.from_batches(list(pool.batches(start, stop)))
            scores = ShardScores(
                np.asarray(values[start:stop], dtype=np.float64),
                skipped[start:stop] if skipped else None,
                {name: of[start:stop] for name, of in (details or {}).items()},
                features[start:stop] if features is not None else None,
            )
            write_part(
                folder,
                number,
                table.column("id").combine_chunks(),
                table.column("source").combine_chunks(),
                scores,
            )
        facts = {"examples": len(pool)} | ({"tokens": tokens} if tokens else {})
        facts |= {"warnings": list(warnings)} if warnings else {}
        facts |= {"details": meanings} if meanings else {}
        if shading:
            write_tokens(folder, list(shading), list(shading.values()))
        return self.add(key, "router", facts, arms, folder=folder, seconds=41.0)

    def select(
        self,
        pool: Pool,
        rows: Sequence[int],
        key: str = "select",
        arms: Sequence[str] = ("selected",),
        reasons: Sequence[str | None] | None = None,
        clusters: Sequence[int | None] | None = None,
    ) -> Artifact:
        folder = self.artifact_folder(key)
        sources = pool.source_names().to_pylist()
        kept = [sources[row] for row in rows]
        ids = pool.ids().astype(">u8")
        columns = {
            "row": list(rows),
            "id": [ids[row].tobytes() for row in rows],
            "source": kept,
            "rank": list(range(1, len(rows) + 1)),
            "reason": list(reasons or [None] * len(rows)),
            "cluster": list(clusters or [None] * len(rows)),
        }
        nothing = [None] * len(rows)
        whole = {name: columns.get(name, nothing) for name in SCHEMA.names}
        pq.write_table(pa.table(whole, schema=SCHEMA), folder / "selection.parquet")
        facts = {
            "kept": len(rows),
            "of": len(pool),
            "sources": {
                name: {"kept": kept.count(name), "of": sources.count(name)} for name in set(sources)
            },
        }
        return self.add(key, "top-fraction", facts, arms, folder=folder)

    def train(
        self,
        key: str,
        log: Sequence[Mapping],
        arms: Sequence[str] = ("selected",),
        facts: Mapping | None = None,
    ) -> Artifact:
        folder = self.artifact_folder(key)
        lines = [json.dumps(entry) for entry in log]
        (folder / "train_log.jsonl").write_text("\n".join([*lines, '{"step": 9']), "utf-8")
        return self.add(key, "llama-lora", facts or {}, arms, folder=folder, seconds=73.0)

    def evaluate(
        self, arm: str, tasks: Mapping[str, Mapping], samples: Mapping[str, Sequence] | None = None
    ) -> Artifact:
        key = "evaluate" if arm == "selected" else f"evaluate@{arm}"
        folder = self.artifact_folder(key)
        for task, values in (samples or {}).items():
            rows = [
                {"doc_id": number, "doc_hash": f"h{number}", "acc": value}
                for number, value in enumerate(values)
            ]
            (folder / f"samples_{task}_2026-01-02T03-04-05.678.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in rows), "utf-8"
            )
        return self.add(key, "lm-eval", {"tasks": tasks}, (arm,), folder=folder, seconds=12.0)

    def record(self, command: str = "selectmoe run recipes/default.toml") -> RunRecord:
        return RunRecord(
            name="nano <rehearsal>",
            recipe='name = "nano"\n[score]\nuse = "router"\n',
            started="2026-01-02T03:04:05",
            seconds=128.4,
            command=command,
            versions={"selectmoe": "0.1.0", "torch": "2.13"},
            hardware={"cpu": "2 cores", "memory": "24 GiB"},
            nodes=tuple(self.nodes),
        )


def accuracy(value: float, stderr: float | None, questions: int = 400, chance: float = 0.25):
    return {
        "metric": "acc,none",
        "value": value,
        "stderr": stderr,
        "questions": questions,
        "chance": chance,
    }


def made_up_tokens(
    pool: Pool, values: np.ndarray, rng: np.random.Generator
) -> dict[int, TokenDetail]:
    """Return numbers for the words of the answers of the examples that a report shows."""
    codes = np.unique(pool.source_names().to_pylist(), return_inverse=True)[1]
    rows = examples_of_score(np.asarray(values, float), pool.ids(), codes)
    found = {}
    for row, one in zip(rows, pool.take(rows), strict=True):
        asked = [f"{word} " for word in one.prompt.split()]
        answer = [f"{word} " for word in one.response.split()] or [one.response]
        numbers = np.concatenate([np.full(len(asked), np.nan), rng.random(len(answer))])
        counts = np.isfinite(numbers)
        found[row] = TokenDetail("mass on trash cans", (*asked, *answer), numbers, counts)
    return found


def made_up_load(rng: np.random.Generator, layers: int = 4, outputs: int = 20) -> dict:
    """Return the expert load of a warm-up: 4 trash cans, some experts that get nothing."""
    shares = rng.dirichlet(np.full(outputs, 0.5), (2, layers)).round(5).tolist()
    return {
        "examples": 64, "tokens": 9001, "experts": outputs - 4,
        "before": shares[0], "after": shares[1],
    }  # fmt: skip


def full_run(root: Path, sources: int = 5, rows: int = 300, seed: int = 0) -> Run:
    """Return a run with all stages, its figures drawn at random."""
    rng = np.random.default_rng(seed)
    run = Run(root)
    names = [f"source {number:02d}" for number in range(sources)]
    found: list[RawExample | Reject] = []
    for place, name in enumerate(names):
        for number in range(rows // (1 + place % 3)):
            words = " ".join(f"word{n}" for n in rng.integers(0, 900, rng.integers(3, 60)))
            label = "answer_swap" if rng.random() < 0.3 else ""
            found.append(
                example(name, f"Question {number} of {name}: {words}?", words[::-1], label)
            )
        found.append(found[-1])
        found.append(Reject(name, f"{name}.jsonl:7", "its answer is empty"))
    pool = run.pool(found)
    log = [
        {
            "step": step,
            "loss": 3 / (1 + step / 9) + rng.normal(0, 0.05),
            "cross_entropy": 2.5 / (1 + step / 9),
            "constraint": 1 - step / 80,
            "learning_rate": 1e-4 * (1 - step / 60),
            **{f"trash_share/layer_{n:02d}": 0.1 * n + step / 200 for n in range(4)},
            "trash_share": 0.15 + step / 200,
        }
        for step in range(1, 60)
    ]
    run.train("warmup", log, facts={"expert_load": made_up_load(rng)})
    codes = ("en", "de", "fr", "es", "zh", "ru", "")
    languages = {
        name: dict(zip(codes, rng.integers(0, 90, 7).tolist(), strict=True)) for name in names
    }
    run.add(
        "filter:language",
        "language",
        {"languages": languages, "examples": len(pool), "left_out": 0},
    )
    codes = np.unique(pool.source_names().to_pylist(), return_inverse=True)[1]
    values = rng.gamma(3, 0.08, len(pool)) + 0.05 * (codes % 7)
    skipped = [("no token of it counts" if rng.random() < 0.01 else None) for _ in range(len(pool))]
    values = np.where([bool(reason) for reason in skipped], np.nan, values)
    counts = {
        name: {"examples": of.examples, "tokens": 61 * of.examples, "cut": 3, "nothing_counts": 1}
        for name, of in pool.sources.items()
    }
    layers = rng.random((len(pool), 4))
    tokens = {"tokenizer": "nano-olmoe", **counts}
    meaning = {"title": "mass on trash cans", "complement": True, "each": "layer", "share": True}
    run.score(
        pool,
        values,
        skipped,
        details={"layers": layers},
        tokens=tokens,
        meanings={"layers": meaning},
        shading=made_up_tokens(pool, values, rng),
    )
    order = np.argsort(-np.nan_to_num(values, nan=-1))
    run.select(pool, order[: len(pool) // 10].tolist())
    run.select(
        pool, rng.permutation(len(pool))[: len(pool) // 10].tolist(), "select@random", ("random",)
    )
    for arm in ("selected", "random"):
        key = "train" if arm == "selected" else "train@random"
        start = 2.4 if arm == "selected" else 2.8
        run.train(
            key,
            [{"step": s, "loss": start * 0.97**s + rng.normal(0, 0.02)} for s in range(40)],
            (arm,),
        )
    truth = {"base": (0.41, 0.262), "random": (0.52, 0.27), "selected": (0.59, 0.255)}
    for arm, shares in truth.items():
        answers = {
            task: (rng.random(400) < share).astype(float)
            for task, share in zip(("nano_arithmetic", "nano_world"), shares, strict=True)
        }
        tasks = {task: accuracy(of.mean(), of.std(ddof=1) / 20) for task, of in answers.items()}
        run.evaluate(arm, tasks, {task: of.tolist() for task, of in answers.items()})
    return run
