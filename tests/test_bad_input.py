"""Bad input of many kinds: the right exit code, one readable message, and nothing is lost.

Every case starts from a project that has run up to its selection; afterwards all files that were
there before are as they were.
"""

import errno
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import LEFT_OUT, Project, Said, rows_of, tree, use_site, write_plugin, write_rows
from one_module_plugins import GOOD


def readable(said: Said) -> str:
    """Check the form of what was said and return it."""
    text = said.err
    assert "Traceback" not in text, text
    errors = [line for line in text.splitlines() if line.startswith("Error: ")]
    assert errors, text
    assert "Hint: " in text, text
    assert max(map(len, errors)) < 700, text
    return text


def files(project: Project) -> dict[str, bytes]:
    """All files but those that every run may write: hashes, locks, and its own folder."""
    return {
        name: content
        for name, content in tree(project.folder).items()
        if not name.endswith((".lock", "hashes.json")) and not name.startswith("outputs/fake/")
    }


def assert_kept(project: Project, before: dict[str, bytes]) -> None:
    now = files(project)
    assert {name for name in before if now.get(name) != before[name]} == set()


@dataclass(frozen=True)
class Case:
    """What is broken, how the command is called, and what must be said."""

    name: str
    code: int
    says: str
    arguments: Sequence[str] = ()
    damage: Callable[[Project], object] = lambda project: None


# ------------------------------------------------------------------------------------ recipes


def recipe_bytes(content: bytes) -> Callable[[Project], object]:
    return lambda project: project.recipe.write_bytes(content)


def append(text: str) -> Callable[[Project], object]:
    return lambda project: project.recipe.write_text(project.recipe.read_text() + text)


def a_cycle(project: Project) -> None:
    (project.folder / "other.toml").write_text('extends = "recipe.toml"\n')
    project.recipe.write_text('extends = "other.toml"\n')


def a_loop(project: Project) -> None:
    (project.folder / "loop").symlink_to("loop")


def a_folder(project: Project) -> None:
    project.recipe.unlink()
    project.recipe.mkdir()


RECIPES = [
    Case("unknown key", 2, "did you mean 'fraction'?", ["select.fracton=0.1"]),
    Case("unknown table", 2, "unknown table '[trian]'", damage=append("\n[trian]\nuse = 'x'\n")),
    Case("wrong type", 2, "option 'fraction': Input should be", ["select.fraction=many"]),
    Case("out of range", 2, "less than or equal to 1, got 2", ["select.fraction=2"]),
    Case("not a number", 2, "option 'factor': Input should be a finite", ["score.factor=nan"]),
    Case("fraction of nothing", 2, "greater than 0, got 0", ["select.fraction=0"]),
    Case("no use", 2, "[train]: option 'use' is missing", ["~train.use"]),
    Case("unknown component", 2, "did you mean 'fake-score'?", ["score.use=fake-scor"]),
    Case("component of another kind", 2, "no scorer named 'jsonl'", ["score.use=jsonl"]),
    Case("table that is none", 2, "[train]: must be a table", ["train=3"]),
    Case("score that is none", 2, "[score]: must be a table", ["score=[1]"]),
    Case("wrong format", 2, "option 'format'", ["format=2"]),
    Case("bad name", 2, "option 'name': it must have another form", ["name=../../up"]),
    Case("name of the store", 2, "the folder of all artifacts has this name", ["name=store"]),
    Case("negative seed", 2, "option 'seed'", ["seed=-1"]),
    Case("seed beyond 32 bits", 2, "less than or equal to 4294967295", ["seed=5000000000"]),
    Case("negative seed of a stage", 2, "[train]: option 'seed'", ["train.seed=-1"]),
    Case("huge seed of a stage", 2, "[warmup]: option 'seed'", ["warmup.seed=4294967296"]),
    Case("number beyond 64 bits", 2, "more than 64 bits", [f"pool.max_line_bytes={1 << 63}"]),
    Case("hexadecimal beyond", 2, "more than 64 bits", damage=append(f"x = 0x{'f' * 5000}\n")),
    Case("thousands of digits", 2, "thousands of digits", damage=append(f"x = {'1' * 5000}\n")),
    Case("deep lists", 2, "too deeply", damage=append(f"x = {'[' * 9000}{']' * 9000}\n")),
    Case("deep tables", 2, "too deeply", damage=append(f"[{'a.' * 3000}a]\n")),
    Case("deep override", 2, "no TOML value", ["select.x=[[[[[[["]),
    Case("NUL in a path", 2, "'pool.path' holds a NUL",
         damage=recipe_bytes(b'format = 1\nname = "x"\npool.path = "a\\u0000b"\n')),
    Case("a list of a thousand as a table", 2, "must be a table, got ['x', 'x',",
         [f"select={['x'] * 1000}"]),
    Case("a list of a thousand as extends", 2, "must be a file name, got ['x', 'x',",
         damage=recipe_bytes(b"extends = [" + b'"x", ' * 1000 + b"]\n")),
    Case("a name of hundreds in extends", 2, "the name is too long for a file",
         damage=recipe_bytes(b'extends = "' + b"a" * 254 + b'"\n')),
    Case("a name of thousands as a pool", 2, "there is no", [f"pool.path={'a' * 3000}"]),
    Case("a name of hundreds as a model", 2, "warmup", [f"train.model=./{'a' * 300}", "x.y=1"]),
    Case("NUL in extends", 2, "holds a NUL", damage=recipe_bytes(b'extends = "a\\u0000"\n')),
    Case("extends the root", 2, "/ is a folder", damage=recipe_bytes(b'extends = "/"\n')),
    Case("long name of a pool", 2, "there is no", ["pool.path=" + "x" * 300]),
    Case("unknown home", 2, "~nobody-here/x", ["pool.path=~nobody-here/x"]),
    Case("unknown home of a model", 2, "~nobody-here/x", ["train.model=~nobody-here/x"]),
    Case("home as a model", 2, "is not a model", ["train.model=~"]),
    Case("loop of links", 2, "there is no", ["pool.path=loop"], damage=a_loop),
    Case("template that is a device", 2, "not a regular file", ["chat.template=/dev/zero"]),
    Case("unknown baseline", 2, "[compare]: option 'baselines", ["compare.baselines=[bse]"]),
    Case("missing required option", 2, "option 'path' is missing", ["~pool.path"]),
    Case("bad override", 2, "not of the form KEY=VALUE", ["select.fraction"]),
    Case("removal of nothing", 2, "no 'select.nothing' to remove", ["~select.nothing"]),
    Case("unknown stage", 2, "did you mean 'score'?", ["--until", "scoring"]),
    Case("no GPU", 2, "torch sees no such device", ["--device", "cuda:99"]),
    Case("not TOML", 2, "not valid TOML", damage=recipe_bytes(b"[pool\n")),
    Case("duplicate key", 2, "not valid TOML", damage=append('\n[pool]\nuse = "less"\n')),
    Case("not UTF-8", 2, "not UTF-8: byte", damage=recipe_bytes(b'name = "caf\xe9"\n')),
    Case("binary", 2, "recipe.toml: not", damage=recipe_bytes(bytes(range(256)))),
    Case("empty", 2, "option 'format' is missing", damage=recipe_bytes(b"")),
    Case("cyclic extends", 2, "extends itself", damage=a_cycle),
    Case("missing parent", 2, "no recipe gone.toml", damage=recipe_bytes(b'extends = "gone.toml"')),
    Case("folder", 2, "is a folder, not a recipe", damage=a_folder),
    Case("missing", 2, "there is no recipe", damage=lambda project: project.recipe.unlink()),
    Case("missing template", 2, "cannot read the template", ["chat.template=no.jinja"]),
    Case("missing model", 2, "there is no model at", ["train.model=./nowhere"]),
    Case("unknown bundled model", 2, "no plugin ships a model", ["train.model=bundled:x"]),
    Case("no model", 2, "no model to start from", ["~train.model"]),
    Case("no pool", 2, "there is no [pool]", ["~pool"]),
    Case("threshold beside random", 2, "needs a selector that uses ranks",
         ["select.use=threshold", "select.min=1"]),
]  # fmt: skip


# -------------------------------------------------------------------------------------- pools

POOL = "pool.jsonl"
GOOD_LINE = json.dumps(rows_of(1)[0])


def pool(*lines: str | bytes) -> Callable[[Project], object]:
    content = b"".join((x.encode() if isinstance(x, str) else x) + b"\n" for x in lines)
    return lambda project: (project.folder / POOL).write_bytes(content)


def messages(*turns: tuple[str, object]) -> str:
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]})


def a_long_line(project: Project) -> None:
    block = b"x" * (1 << 20)
    with (project.folder / POOL).open("wb") as file:
        file.write(GOOD_LINE.encode() + b'\n{"messages": "')
        for _ in range(100):
            file.write(block)
        file.write(b'"}\n')


def cut_gzip(project: Project) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows_of(5000))
    packed = gzip.compress(lines.encode())
    (project.folder / "pool.jsonl.gz").write_bytes(packed[: len(packed) // 2])


def cut_parquet(project: Project) -> None:
    table = pa.Table.from_pylist(rows_of(50))
    pq.write_table(table, project.folder / "pool.parquet")
    content = (project.folder / "pool.parquet").read_bytes()
    (project.folder / "pool.parquet").write_bytes(content[: len(content) - 20])


def empty_folder(project: Project) -> None:
    (project.folder / "empty").mkdir()


def some_less(project: Project) -> None:
    folder = project.folder / "less" / "cot"
    folder.mkdir(parents=True)
    write_rows(folder / "cot_data.jsonl", rows_of(3))


LESS = ["pool.use=less", "pool.path=less"]

POOLS = [
    Case("missing file", 2, "there is no", ["pool.path=nowhere.jsonl"]),
    Case("folder without data", 1, "no data file in the folder", ["pool.path=empty"], empty_folder),
    Case("pattern that fits nothing", 2, "there is no", ["pool.path=data/*.jsonl"]),
    Case("empty", 1, "the pool is empty", damage=pool()),
    Case("blank lines", 1, "the pool is empty", damage=pool("", "  ", "\t")),
    Case("broken JSON", 1, "pool.jsonl:2: not valid JSON", damage=pool(GOOD_LINE, '{"messages": ')),
    Case("line cut short", 1, "pool.jsonl:2: not valid", damage=pool(GOOD_LINE, GOOD_LINE[:40])),
    Case("a broken JSON array", 1, "of the JSON array", damage=pool("[", GOOD_LINE, GOOD_LINE)),
    Case("rows that are no objects", 1, "must be an object, got", damage=pool("[1, 2]", "3")),
    Case("not UTF-8", 1, "not UTF-8: byte 0xe9", damage=pool(GOOD_LINE, b'{"messages": "\xe9"}')),
    Case("100 MB line", 1, "longer than 67,108,864 bytes", damage=a_long_line),
    Case("nested too deeply", 1, "nested too deeply", damage=pool("[" * 200_000)),
    Case("unknown columns", 1, "fit no row format", damage=pool('{"text": "a", "score": 3}')),
    Case("unknown role", 1, "unknown role 'robot'", damage=pool(messages(("robot", "hi")))),
    Case("no answer", 1, "no answer by the assistant", damage=pool(messages(("user", "hi")))),
    Case("empty answer", 1, "every answer of the assistant is empty",
         damage=pool(messages(("user", "hi"), ("assistant", " ")))),
    Case("begins with an answer", 1, "it starts with the assistant",
         damage=pool(messages(("assistant", "hi")))),
    Case("system in the middle", 1, "a system message is not the first",
         damage=pool(messages(("user", "a"), ("system", "b"), ("assistant", "c")))),
    Case("content that is no text", 1, "the content of a turn is not text but a number",
         damage=pool(messages(("user", 3), ("assistant", "c")))),
    Case("no messages", 1, "at least one turn", damage=pool('{"messages": []}')),
    Case("half a surrogate", 1, "half of a surrogate pair",
         damage=pool('{"messages": [{"role": "user", "content": "a"}, '
                     '{"role": "assistant", "content": "\\ud83d"}]}')),
    Case("all rejected", 1, "the pool is empty", ["pool.on_reject=skip"], pool("x", "y")),
    Case("gzip cut short", 1, "damaged or incomplete", ["pool.path=pool.jsonl.gz"], cut_gzip),
    Case("parquet cut short", 1, "pool.parquet", ["pool.use=parquet", "pool.path=pool.parquet"],
         cut_parquet),
    Case("LESS without a source", 2, "flan_data.jsonl", [*LESS, "pool.sources=[cot,flan]"],
         some_less),
    Case("LESS with a source twice", 2, "named twice", [*LESS, "pool.sources=[cot,cot]"],
         some_less),
    Case("sample of nothing", 1, "the pool is empty", ["pool.subset_ratio=1e-9"]),
]  # fmt: skip


# --------------------------------------------------------------------------- scores, selections


def damaged(pattern: str, content: bytes | None = None) -> Callable[[Project], object]:
    """Overwrite the files of the store that a pattern finds, or cut them in half."""

    def damage(project: Project) -> None:
        found = [path for path in project.store.glob(pattern) if path.is_file()]
        assert found
        for path in found:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2] if content is None else content)

    return damage


def lost(pattern: str) -> Callable[[Project], object]:
    def damage(project: Project) -> None:
        found = list(project.store.glob(pattern))
        assert found
        for path in found:
            path.unlink()

    return damage


NEXT = ["select.fraction=0.5"]

RESULTS = [
    Case("all scores equal", 1, "all 40 scores are equal", ["score.what=equal"]),
    Case("scores that are no numbers", 1, "no finite score and no reason", ["score.what=nothing"]),
    Case("too few scores", 1, "scores of shape (7,) for 8", ["score.what=short"]),
    Case("all skipped", 1, "none of 40 examples has a score", ["score.what=skip"]),
    Case("threshold above all", 1, "no example of 40 was selected",
         ["select.use=threshold", "select.min=1e9", "compare.baselines=[base]"]),
    Case("more than there are", 1, "only 40 of 40 examples have a score",
         ["select.use=top-k", "select.k=41"]),
]  # fmt: skip

DAMAGED = {
    "artifact that is no JSON": ("select", "artifact.json", damaged("select-*/artifact.json")),
    "emptied artifact": ("score", "artifact.json", damaged("score-*/artifact.json", b"")),
    "artifact of another shape": (
        "pool", "artifact.json", damaged("pool-*/artifact.json", b'{"stage": "pool"}')
    ),
    "emptied selection": (
        "select", "selected_data.jsonl", damaged("select-*/selected_data.jsonl", b"")
    ),
    "scores cut short": ("score", "part-00001", damaged("score-*/scores/part-00001.parquet")),
    "a part of the scores lost": ("score", "part-00001", lost("score-*/scores/part-00001.parquet")),
    "pool lost": ("pool", "pool.arrow", lost("pool-*/pool.arrow")),
    "counts of the pool lost": ("pool", "pool.json", lost("pool-*/pool.json")),
    "batches of the pool lost": ("pool", "batches.npy", lost("pool-*/batches.npy")),
}  # fmt: skip
"""What is done to the store, the stage and the file that are named."""


@pytest.mark.parametrize(("stage", "file", "damage"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_results_are_made_again_with_a_warning(project, stage, file, damage):
    assert project.run().code == 0
    whole = {path: path.read_bytes() for path in project.store.glob("*/selected_data.jsonl")}
    damage(project)
    planned = project.call("plan", "recipe.toml")
    assert f"damaged, to be made again: {stage}" in planned.out
    # Scores are made again where a selection reads them.
    said = project.run(*(NEXT if stage in ("pool", "score") else []))
    assert said.code == 0, said.err
    assert f"warning: {stage}" in said.err
    assert file in said.err
    again = project.run()
    assert again.code == 0, again.err
    assert "warning" not in again.err
    assert "..." not in again.err
    assert {path: path.read_bytes() for path in whole} == whole


CASES = [
    pytest.param(case, id=f"{kind}: {case.name}")
    for kind, cases in (("recipe", RECIPES), ("pool", POOLS), ("result", RESULTS))
    for case in cases
]


def test_there_are_at_least_thirty_kinds():
    assert len(CASES) >= 30


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_told_and_nothing_is_lost(project, case):
    assert project.run("--until", "select", "--quiet").code == 0
    case.damage(project)
    before = files(project)
    said = project.run(*case.arguments, "--until", "select") if case.code == 1 else project.run(
        *case.arguments
    )  # fmt: skip
    assert said.code == case.code, said.err
    assert case.says in readable(said), said.err
    assert said.out == ""
    assert_kept(project, before)


# --------------------------------------------------------------------------------------- disk


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(project, monkeypatch):
    from selectmoe_core.stages.scoring import score

    real = score.write_part

    def full(folder, number, *rest):
        if number == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        real(folder, number, *rest)

    monkeypatch.setattr(score, "write_part", full)
    said = project.run()
    assert said.code == 1
    assert "No space left on device" in readable(said)
    monkeypatch.undo()
    project.calls()


def test_a_full_disk_loses_no_finished_shard(project):
    from selectmoe_core.stages.scoring import score

    with pytest.MonkeyPatch.context() as patch:
        real = score.write_part

        def full(folder, number, *rest):
            if number == 3:
                raise OSError(errno.ENOSPC, "No space left on device", str(folder))
            real(folder, number, *rest)

        patch.setattr(score, "write_part", full)
        assert project.run().code == 1
    project.calls()
    assert project.run().code == 0
    assert [call for call in project.calls() if call.startswith("score ")] == ["score 3", "score 4"]


@pytest.mark.parametrize("limit", [0, 300, 3000, 20_000])
def test_a_disk_that_takes_so_many_bytes_a_file_ends_in_one_message(project, limit):
    """Files larger than the limit fail as on a full disk, wherever in the run that is."""
    write_rows(project.folder / POOL, rows_of(2000))
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from selectmoe_core.cli import call\n"
        "sys.exit(call(sys.argv[1:]))\n"
    )
    before = files(project)
    command = [sys.executable, "-c", program, *LEFT_OUT, "run", "recipe.toml", "score.use=length"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = Said(done.returncode, done.stdout, done.stderr)
    assert said.code == 1, said.err
    assert "File too large" in readable(said) or "the disk is full" in said.err
    assert_kept(project, before)
    assert project.run("score.use=length").code == 0


def test_outputs_that_cannot_be_made_are_told(project):
    (project.folder / "file").write_text("x")
    said = project.run("--outputs", "file/below")
    assert said.code == 1
    assert "a file is where a folder must be" in readable(said)


def test_outputs_that_may_not_be_written_are_told(project, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    said = project.run()
    assert said.code == 1
    assert "Permission denied" in readable(said)


# ------------------------------------------------------------------------------------- plugins


def test_two_plugins_that_offer_one_name_stop_everything(project, tmp_path, monkeypatch):
    assert project.run("--until", "select").code == 0
    before = files(project)
    site = tmp_path / "bad-site"
    for name in ("one", "two"):
        write_plugin(site, name, GOOD)
    use_site(site, monkeypatch)
    said = project.run()
    assert said.code == 3
    assert "'good-score' is offered by two plugins" in readable(said)
    assert_kept(project, before)
    assert project.call("--disable-plugin", "one", "run", "recipe.toml").code == 0


def test_a_plugin_that_cannot_be_imported_stops_everything(project, tmp_path, monkeypatch):
    site = tmp_path / "bad-site"
    write_plugin(site, "bad", "import nowhere_at_all")
    use_site(site, monkeypatch)
    said = project.run()
    assert said.code == 3
    assert "bad-dist 1.5" in readable(said)


# --------------------------------------------------------------------------------- checkpoints

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

GATE = "model.layers.1.mlp.gate.weight"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def olmoe(tmp_path_factory):
    from transformers import OlmoeConfig, OlmoeForCausalLM

    torch.manual_seed(0)
    config = OlmoeConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    folder = tmp_path_factory.mktemp("olmoe")
    OlmoeForCausalLM(config).save_pretrained(folder)
    return folder


def rewrite(change):
    def damage(folder):
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def reconfigured(**changes):
    def damage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def cut(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def pickled(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def lost_shard(folder):
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    places = {}
    for number in (1, 2):
        shard = f"model-0000{number}-of-00002.safetensors"
        mine = {name: tensors[name] for name in names[number - 1 :: 2]}
        save_file(mine, folder / shard, metadata={"format": "pt"})
        places |= dict.fromkeys(mine, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / WEIGHTS).unlink()
    (folder / "model-00002-of-00002.safetensors").unlink()


CHECKPOINTS = [
    ("truncated shard", cut, ""),
    ("empty shard", lambda folder: (folder / WEIGHTS).write_bytes(b""), ""),
    ("garbage", lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 64), ""),
    ("lost shard", lost_shard, "model-00002-of-00002.safetensors"),
    ("missing gate", rewrite(lambda tensors: tensors.pop(GATE)), GATE),
    ("gate of wrong shape", rewrite(lambda t: t.update({GATE: torch.zeros(7, 16)})), GATE),
    ("no config", lambda folder: (folder / "config.json").unlink(), "config.json"),
    ("broken config", lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    ("pickled only", pickled, "safetensors"),
    ("not an OLMoE", reconfigured(model_type="llama"), "llama"),
    ("config without experts", reconfigured(num_experts=None), "num_experts"),
    ("nothing there", shutil.rmtree, ""),
]


@pytest.mark.parametrize(("name", "damage", "says"), CHECKPOINTS, ids=[c[0] for c in CHECKPOINTS])
def test_a_bad_checkpoint_is_not_converted(cli, olmoe, tmp_path, monkeypatch, name, damage, says):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = shutil.copytree(olmoe, tmp_path / "olmoe")
    damage(folder)
    before = tree(folder)
    said = cli("convert", folder, tmp_path / "out")
    assert said.code in (1, 2), said.err
    assert says in readable(said), said.err
    assert str(folder) in said.err or "model" in said.err
    assert tree(folder) == before
    # No half of a checkpoint is left that could be taken for a whole one.
    assert not (tmp_path / "out" / "config.json").exists()
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_a_conversion_overwrites_nothing(cli, olmoe, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    said = cli("convert", olmoe, tmp_path / "out")
    assert said.code == 2
    assert "is not empty" in readable(said)
    assert tree(tmp_path / "out") == {"mine": b"mine"}


def test_a_converted_model_that_was_changed_does_not_pass(cli, olmoe, tmp_path):
    assert cli("convert", olmoe, tmp_path / "out").code == 0
    rewrite(lambda tensors: tensors[GATE][0, 0].add_(1.0))(tmp_path / "out")
    said = cli("verify", tmp_path / "out", olmoe, "--no-logits")
    assert said.code == 1
    assert GATE in readable(said)


# ------------------------------------------------------- models within a run, without a child


@pytest.fixture
def in_process(monkeypatch):
    """Carry out stages that compute with torch in this process: starting one takes seconds."""
    from selectmoe_core.plan.node import Node

    monkeypatch.setattr(Node, "uses_torch", property(lambda _: False))


@pytest.fixture
def select_moe(cli, olmoe, project):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    place = project.folder / "select-moe"
    assert cli("convert", olmoe, place).code == 0
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())[:58]
    backend = Tokenizer(
        models.BPE({"<eos>": 0, "<unk>": 1} | {c: 2 + i for i, c in enumerate(letters)}, merges=[],
                   unk_token="<unk>")
    )  # fmt: skip
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(place)
    return place


ROUTER = ["score.use=router", "score.model=./select-moe", "--until", "score"]


def test_a_whole_selector_model_scores(project, select_moe, in_process):
    said = project.run(*ROUTER)
    assert said.code == 0, said.err


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (rewrite(lambda tensors: tensors[GATE].fill_(np.nan)), "no finite score"),
        (rewrite(lambda tensors: tensors.pop(GATE)), GATE),
        (rewrite(lambda t: t.update({GATE: torch.zeros(9, 16)})), "select-moe"),
        (cut, "select-moe"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "select-moe"),
    ],
    ids=["NaN weights", "missing tensor", "wrong shape", "truncated shard", "broken tokenizer"],
)
def test_a_bad_selector_model_gives_no_scores(project, select_moe, in_process, damage, says):
    damage(select_moe)
    before = files(project)
    said = project.run(*ROUTER)
    assert said.code == 1, said.err
    assert says in readable(said)
    assert not list(project.store.glob("score-*/artifact.json"))
    assert_kept(project, before)


def test_an_ordinary_model_has_no_trash_to_score_by(project, olmoe, select_moe, in_process):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(select_moe / name, olmoe / name)
    said = project.run("score.use=router", f"score.model={olmoe}", "--until", "score")
    assert said.code in (1, 2), said.err
    assert "trash" in readable(said)


def test_an_adapter_without_a_base_is_told(project, in_process):
    adapter = project.folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    said = project.run("train.model=./adapter")
    assert said.code in (1, 2), said.err
    assert "names no base model" in readable(said)


def test_an_unknown_task_is_told_before_the_first_stage(project, in_process, monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = project.run("evaluate.use=lm-eval", "evaluate.tasks=[arc_eazy]")
    assert said.code in (1, 2), said.err
    assert "arc_eazy" in readable(said)
    started, failed = project.calls()
    assert started == "run started"
    assert failed.startswith("run failed")
    assert "arc_eazy" in failed
