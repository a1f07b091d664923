"""The harness's results: written in its own format, and summarised as facts."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from lm_eval.loggers.evaluation_tracker import EvaluationTracker
from lm_eval.utils import handle_non_serializable, hash_string, sanitize_list

from selectmoe_core import inside

NORMALISED = ("hellaswag", "arc_")
"""Tasks whose published figure is the accuracy normalised by the length of the choices."""
ACCURACIES = ("acc", "acc_norm")
CHANCE_ERRORS = 2.0
"""Results less than this many standard errors above chance count as chance."""


def write_results(
    results: Mapping[str, Any], tracker: EvaluationTracker, out: Path, *, samples: bool
) -> None:
    """Write ``results_<time>.json`` and ``samples_<task>_<time>.jsonl`` as the harness does.

    The harness's own writer only logs a failure, such as a full disk; this one raises.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("results_*.json"), *out.glob("samples_*.jsonl")):
        old.unlink()  # from an interrupted attempt
    # With several processes, the questions are ordered by process.
    of_task: dict[str, list[dict[str, Any]]] = {
        name: sorted(found, key=lambda sample: int(sample["doc_id"]))
        for name, found in results["samples"].items()
    }
    tracker.general_config_tracker.log_end_time()
    document = {key: value for key, value in results.items() if key != "samples"}
    document["task_hashes"] = {name: _hash(found) for name, found in of_task.items()}
    document |= asdict(tracker.general_config_tracker)
    now = datetime.fromtimestamp(time.time()).isoformat().replace(":", "-")
    _write(out / f"results_{now}.json", [_json(document, indent=2)])
    if samples:
        for name, found in of_task.items():
            # A task's name is what its author wrote: "a/b" is one file too.
            file = f"samples_{name.replace('/', '_')}_{now}.jsonl"
            _write(
                inside(out, file, where=f"the task {name}"),
                [_json(_flat(sample)) for sample in found],
            )


def summarise(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the facts of every task and group.

    Each has ``metric``, ``value``, ``stderr``, ``higher_is_better``, ``questions``, ``chance``
    (``None`` if there is none), ``at_chance``, and all ``metrics``.
    """
    chances = {name: chance(name, results) for name in results["samples"]}
    facts: dict[str, dict[str, Any]] = {}
    for name, values in results["results"].items():
        metrics = _metrics(values)
        if not metrics:
            continue  # a group that does not aggregate
        metric = primary(name, metrics)
        leaves = [leaf for leaf in _leaves(name, results) if leaf in results["n-samples"]]
        sizes = [int(results["n-samples"][leaf]["effective"]) for leaf in leaves]
        expected = None
        if metric in ACCURACIES:
            expected = _mean([chances.get(leaf) for leaf in leaves], sizes)
        value, stderr = metrics[metric]["value"], metrics[metric]["stderr"]
        facts[name] = {
            "metric": metric,
            "value": value,
            "stderr": stderr,
            "higher_is_better": _higher(name, metric, results),
            "questions": sum(sizes),
            "chance": expected,
            "at_chance": _at_chance(value, stderr, expected),
            "metrics": metrics,
        }
    return facts


def primary(task: str, metrics: Mapping[str, Any]) -> str:
    """Return the main metric of a task: accuracy, or another one."""
    if task.startswith(NORMALISED) and "acc_norm" in metrics:
        return "acc_norm"
    return "acc" if "acc" in metrics else next(iter(metrics))


def chance(task: str, results: Mapping[str, Any]) -> float | None:
    """Return the accuracy of guessing: the mean of 1 divided by the number of choices."""
    samples = results["samples"][task]
    config = results["configs"][task]
    if config.get("output_type") != "multiple_choice" or not samples:
        return None
    # Accuracy by mutual information requests every choice twice, with and without its question.
    asked = [metric.get("metric") for metric in config.get("metric_list") or []]
    times = 2 if "acc_mutual_info" in asked else 1
    return sum(times / len(sample["arguments"]) for sample in samples) / len(samples)


def _metrics(values: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Read ``acc,none`` and ``acc_stderr,none``; another filter than ``none`` stays in the name."""
    found: dict[str, dict[str, float | None]] = {}
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        name = metric if filtered == "none" else key
        stderr = _number(values.get(f"{metric}_stderr,{filtered}"))
        found[name] = {"value": float(value), "stderr": stderr}
    return found


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None  # the harness writes "N/A"


def _leaves(name: str, results: Mapping[str, Any]) -> list[str]:
    children = results["group_subtasks"].get(name)
    if not children:
        return [name]
    return list(dict.fromkeys(leaf for child in children for leaf in _leaves(child, results)))


def _higher(name: str, metric: str, results: Mapping[str, Any]) -> bool:
    of_task = results["higher_is_better"].get(name, {})
    return of_task.get(metric.partition(",")[0]) is not False


def _mean(values: Sequence[float | None], sizes: Sequence[int]) -> float | None:
    if not values or not sum(sizes) or None in values:
        return None
    return sum(v * n for v, n in zip(values, sizes, strict=True) if v is not None) / sum(sizes)


def _at_chance(value: float | None, stderr: float | None, expected: float | None) -> bool:
    if value is None or stderr is None or expected is None:
        return False
    return value - expected <= CHANCE_ERRORS * stderr


def _hash(samples: Sequence[Mapping[str, str]]) -> str:
    keys = ("doc_hash", "prompt_hash", "target_hash")
    return str(hash_string("".join(sample[key] for sample in samples for key in keys)))


def _flat(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Turn lists of arguments into tables, as the harness does, so that ``datasets`` reads them."""
    arguments = {
        f"gen_args_{n}": {f"arg_{m}": part for m, part in enumerate(group)}
        for n, group in enumerate(sample["arguments"])
    }
    return {
        **sample,
        "resps": sanitize_list(sample["resps"]),
        "filtered_resps": sanitize_list(sample["filtered_resps"]),
        "arguments": arguments,
        "target": str(sample["target"]),
    }


def _json(value: object, **options: Any) -> str:  # noqa: ANN401
    text = json.dumps(value, default=handle_non_serializable, ensure_ascii=False, **options)
    return f"{text}\n"


def _write(path: Path, lines: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)
