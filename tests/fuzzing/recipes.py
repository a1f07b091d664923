"""Recipes with mistakes of every kind: planned, and carried out where that is cheap.

Nothing but exit code 0 or 2 with a readable message may come of it, in a few seconds, and nothing
may be written outside the folder of outputs.
"""

import copy
import functools
import json
import os
import random
import re
import tomllib
from pathlib import Path
from typing import Any

import tomli_w
from fake_recipe import RECIPE

from fuzzing.cases import Area, Report
from fuzzing.place import ROOT, call, changes, faults_of, fingerprint, working_in
from fuzzing.values import TEXTS, mutate, mutate_bytes, nested, odd

LOCAL = RECIPE.replace(
    'use = "fake-score"\nreads_model = true\nshard_examples = 8', 'use = "length"'
)
"""A recipe whose score takes no model, so that the run up to the selection takes no time."""
SEVERAL = """\
format = 1
name = "several"
[chat]
template = "template.jinja"
max_length = 128
[pool]
use = "jsonl"
path = ["pool.jsonl", "folder/*.jsonl"]
on_reject = "skip"
columns = { prompt = "question" }
[score.short]
use = "length"
[score.chance]
use = "random"
seed = 3
[score.both]
use = "blend"
scores = ["short", "chance"]
weights = [1.0, 0.5]
[select]
use = "top-k"
k = 5
score = "both"
[audit]
sample = 20
"""
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
CHAT_ROW = (
    '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
)
CHEAP = frozenset(
    {
        *("jsonl", "parquet", "csv", "less", "nano", "random", "length", "blend"),
        *("fake-score", "fake-convert", "fake-train"),
    }
)
STAGES = ("pool", "convert", "warmup", "score", "select", "train", "evaluate")
JUNK = (
    "a = {}", "[[pool]]", "[pool.x.y]", "x = {}", "pool.use = 'x'", "= 1", "[", "]", "'''",
    "x = 1979-05-27T07:32:00Z", "x = {}{}", '"" = 1', "score.'a/b'.use = 'random'", "\x00",
    "\ufeff",
)  # fmt: skip
BIG = ("9" * 5000, "0x" + "f" * 9000, "1e" + "9" * 400, "[" * 3000 + "]" * 3000,
       "{a=" * 900 + "1" + "}" * 900,
       "9223372036854775808", "-" + "9" * 100, "0." + "1" * 3000, "inf", "-nan")  # fmt: skip


def run(generator: random.Random, folder: Path) -> Report:
    """Write a mutated recipe, plan it, and run it where no model is needed."""
    report = Report()
    project = _project(folder)
    arguments = _mutated(generator, project, report)
    outputs = folder / "outputs"
    options = _options(generator)
    before = fingerprint(folder, outputs)
    with working_in(project):
        said = call("plan", "recipe.toml", "--outputs", str(outputs), *options, *arguments)
        report.came = {0: "planned", 2: "refused"}.get(said.code, f"exit {said.code}")
        for kind, what in faults_of(said, (0, 2)):
            report.fault(f"plan: {kind}", what)
        whole = "--json" in options and "--until" not in options
        if said.code == 0 and whole and _cheap(said.out):
            _carry_out(report, outputs, arguments)
    for change in changes(before, fingerprint(folder, outputs)):
        report.fault("written outside its outputs", change)
    return report


def _carry_out(report: Report, outputs: Path, arguments: list[str]) -> None:
    command = ["run", "recipe.toml", "--until", "select", "--quiet", "--outputs", str(outputs)]
    said = call(*command, *arguments)
    report.came = {0: "run", 1: "failed in a stage"}.get(said.code, f"run exit {said.code}")
    for kind, what in faults_of(said, (0, 1, 2)):
        report.fault(f"run: {kind}", what)


def _cheap(out: str) -> bool:
    """Return whether a plan takes no model: then carrying it out takes no time."""
    nodes = json.loads(out)["nodes"]
    made = [node for node in nodes if not node["key"].startswith(("train", "evaluate", "select"))]
    return bool(nodes) and all(node["component"] in CHEAP for node in made)


def _project(folder: Path) -> Path:
    """Make the files that recipes name, and neighbours that none may touch."""
    project = folder / "project"
    for name in ("victim", "project/base", "project/folder", "project/empty"):
        (folder / name).mkdir(parents=True)
    (folder / "victim" / "kept.txt").write_text("kept")
    rows = [
        {"prompt": f"q{n}", "completion": "a" * (n + 1), "dataset": "ab"[n % 2]} for n in range(12)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (project / "pool.jsonl").write_text(text)
    (project / "folder" / "more.jsonl").write_text(text.replace("q", "r"))
    for source in ("cot", "dolly", "flan_v2", "oasst1"):
        (project / "less" / source).mkdir(parents=True)
        (project / "less" / source / f"{source}_data.jsonl").write_text(CHAT_ROW)
    (project / "template.jinja").write_text(TEMPLATE)
    (project / "base" / "config.json").write_text('{"model_type": "fake"}')
    (project / "base" / "model.safetensors").write_bytes(b"weights")
    (project / "loop").symlink_to("loop")
    (project / "up").symlink_to("..")
    os.mkfifo(project / "pipe")
    return project


@functools.cache
def _bases() -> list[tuple[str, str]]:
    """Return the recipes to start from; half of them are cheap enough to be carried out."""
    shipped = sorted((ROOT / "recipes").glob("*.toml"))
    texts = [(path.stem, path.read_text(encoding="utf-8")) for path in shipped]
    texts = [(name, re.sub(r'"[^"]*train/processed"', '"less"', text)) for name, text in texts]
    return [*texts, *[("local", LOCAL), ("several", SEVERAL)] * (len(texts) // 2)]


@functools.cache
def _keys() -> tuple[str, ...]:
    """Return every name that means something in some recipe."""
    from selectmoe_core.plugin.manager import load_plugins
    from selectmoe_core.plugin.registry import Registry
    from selectmoe_core.recipe.head import RecipeHead
    from selectmoe_core.recipe.recipe import OPTIONS, TABLES, StageOptions

    entries = list(Registry(load_plugins()))
    options = {name for entry in entries for name in entry.component.config.model_fields}
    own = {
        name for kind in (RecipeHead, StageOptions, *OPTIONS.values()) for name in kind.model_fields
    }
    return tuple(sorted({*options, *own, *TABLES}))


@functools.cache
def _components() -> tuple[str, ...]:
    from selectmoe_core.plugin.manager import load_plugins
    from selectmoe_core.plugin.registry import Registry

    return tuple(sorted({entry.component.name for entry in Registry(load_plugins())}))


def _mutated(generator: random.Random, project: Path, report: Report) -> list[str]:
    """Write the recipe and return the arguments that change it further."""
    name, text = generator.choice(_bases())
    report.did.append(f"recipe {name}")
    tree = tomllib.loads(text)
    if "extends" in tree:  # as what it extends lies elsewhere
        tree["extends"] = tree["extends"].removesuffix(".toml")
    for _ in range(generator.choice((0, 1, 1, 1, 1, 2, 4))):
        report.did.append(_mutate_tree(generator, tree))
    if generator.random() < 0.1:
        _extend(generator, project, tree, report)
    try:
        content = tomli_w.dumps(tree).encode()
    except (
        UnicodeError,
        ValueError,
        TypeError,
        RecursionError,
    ):  # TOML has no such value: as it was, then
        content = text.encode()
    for _ in range(generator.choice((0, 0, 0, 0, 0, 1, 2))):
        content, did = _mutate_text(generator, content)
        report.did.append(did)
    (project / "recipe.toml").write_bytes(content)
    arguments = [_override(generator, tree) for _ in range(generator.choice((0, 0, 0, 1, 2)))]
    arguments = [argument.replace("\0", "") for argument in arguments]  # no argument holds one
    report.did += [f"argument {argument!r}" for argument in arguments]
    return ["--", *arguments] if arguments else []


def _mutate_tree(generator: random.Random, tree: dict[str, Any]) -> str:
    stage = generator.choice(STAGES)
    table = tree.get(stage)
    match generator.choice(
        ("any", "any", "any", "use", "name", "deep", "option", "option", "option")
    ):
        case "use" if isinstance(table, dict):
            use = generator.choice([*_components(), *_components(), generator.choice(TEXTS)])
            table["use"] = use
            return f"{stage}.use = {use!r}"
        case "name" if isinstance(tree.get("score"), dict):
            name = generator.choice(TEXTS)
            scores = tree["score"]
            tree["score"] = {"a": scores, name: copy.deepcopy(scores)}
            return f"two scores, one named {name!r:.100}"
        case "deep":
            depth = generator.choice((5, 50, 150))
            tree[stage] = nested(depth, 1, tables=generator.random() < 0.7)
            return f"{stage} is nested {depth} deep"
        case "option" if isinstance(table, dict):
            known = [key for key in table if key != "use"]
            key = generator.choice([*known, generator.choice(_keys())])
            small = generator.choice((0, 1, 2, 3, 0.25, 0.5, 1.0, True, False, "a", ["a"]))
            table[key] = small if generator.random() < 0.5 else odd(generator, times=True)
            return f"{stage}.{key} = {table[key]!r:.200}"
    return mutate(generator, tree, list(_keys()), lambda: odd(generator, times=True))


def _extend(generator: random.Random, project: Path, tree: dict[str, Any], report: Report) -> None:
    """Let the recipe extend another, which may lead nowhere or back."""
    target = generator.choice(
        ("recipe.toml", "./recipe.toml", "up/project/recipe.toml", "default", "default.toml",
        "parent.toml",
         "folder", "pipe", "loop", "none.toml", "pool.jsonl", "/dev/null", generator.choice(TEXTS),
         3, [])
    )  # fmt: skip
    tree["extends"] = target
    parent: dict[str, Any] = tomllib.loads(generator.choice(_bases())[1])
    back = generator.choice((None, "recipe.toml", "parent.toml", "default"))
    if back:
        parent["extends"] = back
    report.did.append(f"extends {target!r:.100}, parent extends {back}")
    (project / "parent.toml").write_bytes(tomli_w.dumps(parent).encode())


def _mutate_text(generator: random.Random, content: bytes) -> tuple[bytes, str]:
    lines = content.split(b"\n")
    number = generator.randrange(len(lines))
    match generator.choice(("bytes", "big", "junk", "drop", "double", "line ends")):
        case "big":
            key, equals, _ = lines[number].partition(b"=")
            value = generator.choice(BIG)
            lines[number] = (key if equals else b"x ") + b"= " + value.encode()
            return b"\n".join(lines), f"line {number + 1}: {value[:20]}... of {len(value)}"
        case "junk":
            junk = generator.choice(JUNK)
            lines.insert(number, junk.encode())
            return b"\n".join(lines), f"line {number + 1}: {junk!r}"
        case "drop":
            return b"\n".join(lines[:number] + lines[number + 1 :]), f"drop line {number + 1}"
        case "double":
            return b"\n".join(lines[: number + 1] + lines[number:]), f"double line {number + 1}"
        case "line ends":
            return generator.choice((b"\r\n", b"\r")).join(lines), "other line ends"
    return mutate_bytes(generator, content)


def _override(generator: random.Random, tree: dict[str, Any]) -> str:
    from fuzzing.values import places

    found = [".".join(map(str, path)) for path in places(tree)] or ["pool"]
    key = generator.choice([*found, *found, generator.choice(_keys()), generator.choice(TEXTS)])
    if generator.random() < 0.3:
        key = f"{generator.choice(STAGES)}.{generator.choice(_keys())}"
    match generator.choice(("set", "set", "set", "remove", "add", "junk", "text")):
        case "remove":
            return f"~{key}"
        case "add":
            return f"+{key}={odd(generator)}"
        case "junk":
            return str(generator.choice(TEXTS))
        case "text":
            some = (*TEXTS, *BIG, f"{chr(0xDC80)}x", "[a,b", "[a,b]", "{a=1}")
            return f"{key}={generator.choice(some)}"
    return f"{key}={odd(generator)!r}"


def _options(generator: random.Random) -> list[str]:
    options = ["--json"] if generator.random() < 0.7 else []
    if generator.random() < 0.1:
        options += [
            "--until",
            generator.choice([*STAGES, generator.choice(TEXTS).replace("\0", "")]),
        ]
    if generator.random() < 0.1:
        options += ["--hash"]
    return options


AREA = Area("recipes", run, seconds=60.0, chunk=250)
