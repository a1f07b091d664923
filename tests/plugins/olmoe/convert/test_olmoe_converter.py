"""The streaming converter: what it keeps to the byte, what it adds, and what it refuses."""

import errno
import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from olmoe_models import olmoe, rewrite_json, save, tensors
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from selectmoe_core.errors import ModelError, StageError
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.protocols import Job
from selectmoe_olmoe.config import TrashcanConfig
from selectmoe_olmoe.convert import shards
from selectmoe_olmoe.convert.converter import TrashcanConverter
from selectmoe_olmoe.model.modeling import register

GATES = {"model.layers.0.mlp.gate.weight", "model.layers.1.mlp.gate.weight"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save(olmoe().to(torch.bfloat16), tmp_path_factory.mktemp("source"), "150KB")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return save(olmoe(), tmp_path_factory.mktemp("single"))


def convert(source, out, seed=42, **options):
    job = Job(seed=seed)
    return TrashcanConverter(TrashcanConfig(**options)).convert(ModelRef(str(source)), out, job)


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    same = one.dtype == other.dtype and one.shape == other.shape
    return same and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def test_only_gates_grow_and_everything_else_keeps_its_bytes(source, tmp_path):
    facts = convert(source, tmp_path / "out")
    before, after = tensors(source), tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        if name in GATES:
            assert after[name].shape == (72, 32)
            assert same_bytes(after[name][:64], weight)
        else:
            assert same_bytes(after[name], weight), name
    assert len(list(source.glob("*.safetensors"))) >= 3
    for path in source.glob("*.safetensors"):
        with safe_open(path, "pt") as a, safe_open(tmp_path / "out" / path.name, "pt") as b:
            assert list(a.keys()) == list(b.keys())
            assert b.metadata() == {"format": "pt"}
    assert facts["tensors"] == len(before)
    assert (facts["experts"], facts["trash_cans"], facts["top_k"]) == (64, 8, 8)
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert facts["bytes"] == written


def test_config_index_selector_and_small_files(source, tmp_path, narrow_umask):
    options = {
        "num_trash_experts": 3,
        "constraint_loss_weight": 0.5,
        "constraint_alpha": 2.0,
        "constraint_beta": 3.0,
        "balance_over": "regular",
        "trash_can_init_std": 0.1,
        "router_aux_loss_coef": 0.07,
    }
    out = tmp_path / "out"
    convert(source, out, **options)
    old = json.loads((source / "config.json").read_text())
    new = json.loads((out / "config.json").read_text())
    assert new["model_type"] == "select_moe"
    assert new["architectures"] == ["SelectMoeForCausalLM"]
    assert {name: new[name] for name in options} == options
    changed = {"model_type", "architectures", "router_aux_loss_coef"}
    assert {k: new[k] for k in old if k not in changed} == {
        k: v for k, v in old.items() if k not in changed
    }
    index = "model.safetensors.index.json"
    old, new = (json.loads((folder / index).read_text()) for folder in (source, out))
    assert new["weight_map"] == old["weight_map"]
    rows = 3 * 32 * 2
    assert new["metadata"]["total_parameters"] == old["metadata"]["total_parameters"] + rows
    assert new["metadata"]["total_size"] == old["metadata"]["total_size"] + 2 * rows
    selector = json.loads((out / "selector.json").read_text())
    assert selector == {
        "experts": 64,
        "trash_cans": 3,
        "top_k": 8,
        "converter": "olmoe-trashcan",
        "version": 2,
    }
    for name in ("tokenizer_config.json", "generation_config.json"):
        assert (out / name).read_bytes() == (source / name).read_bytes()
    for path in out.iterdir():
        assert path.stat().st_mode & 0o777 == narrow_umask, path
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_result_loads_whole(tmp_path, dtype):
    register()
    source = save(olmoe(num_hidden_layers=1).to(dtype), tmp_path / "source")
    convert(source, tmp_path / "out")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert model.dtype == dtype
    gate = model.model.layers[0].mlp.gate.weight
    saved = load_file(tmp_path / "out" / "model.safetensors")["model.layers.0.mlp.gate.weight"]
    assert torch.equal(gate, saved)


def rows(folder) -> dict[str, torch.Tensor]:
    return {name: weight[64:].float() for name, weight in tensors(folder).items() if name in GATES}


def test_rows_follow_seed_and_layer_not_the_shards(source, single, tmp_path):
    convert(source, tmp_path / "a")
    convert(single, tmp_path / "b")  # the same weights in one fp32 file
    convert(source, tmp_path / "c", seed=43)
    a, b, c = (rows(tmp_path / name) for name in "abc")
    for name in GATES:
        assert torch.equal(a[name], b[name].bfloat16().float())
        assert not torch.equal(a[name], c[name])
    first, second = a.values()
    assert not torch.equal(first, second)


def test_rows_have_the_stated_distribution(single, tmp_path):
    options = {"num_trash_experts": 64, "trash_can_init_mean": 0.5, "trash_can_init_std": 0.1}
    convert(single, tmp_path / "out", **options)
    values = torch.cat(list(rows(tmp_path / "out").values()))
    assert values.shape == (128, 32)
    assert values.mean().item() == pytest.approx(0.5, abs=0.01)
    assert values.std().item() == pytest.approx(0.1, rel=0.05)
    convert(single, tmp_path / "zero", trash_can_init_std=0.0)
    assert all((value == 0).all() for value in rows(tmp_path / "zero").values())


def test_trash_cans_may_start_as_copies_of_experts(source, single, tmp_path):
    for name, trash in (("few", 3), ("many", 100)):
        options = {"num_trash_experts": trash, "trash_can_init": "experts"}
        convert(single, tmp_path / name, trash_can_init_std=0.0, **options)
        chosen = []
        for gate, new in rows(tmp_path / name).items():
            old = load_file(single / "model.safetensors")[gate]
            same = (new[:, None] == old[None]).all(dim=-1)
            assert same.any(dim=1).all()
            uses = same.sum(dim=0)
            assert uses.max() - uses.min() <= 1  # none twice before all others once
            chosen.append(same.float().argmax(dim=1).tolist())
        assert chosen[0] != chosen[1]
    convert(source, tmp_path / "bf16", **options)
    convert(source, tmp_path / "plain", num_trash_experts=100)
    drawn, moved = rows(tmp_path / "plain"), rows(tmp_path / "bf16")
    for gate, copies in rows(tmp_path / "many").items():
        wanted = copies.bfloat16().float() + drawn[gate]
        torch.testing.assert_close(moved[gate], wanted, atol=2e-3, rtol=1e-2)


def test_an_interrupted_conversion_goes_on_and_ends_with_the_same_bytes(
    source, tmp_path, monkeypatch
):
    convert(source, tmp_path / "whole")
    out, calls = tmp_path / "out", []

    def failing(shard):
        calls.append(shard.target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        finish(shard)

    finish = shards._finish
    monkeypatch.setattr(shards, "_finish", failing)
    with pytest.raises(KeyboardInterrupt):
        convert(source, out)
    monkeypatch.setattr(shards, "_finish", finish)
    assert not (out / "config.json").exists()
    assert not list(out.glob(".*.partial"))
    done = sorted(out.glob("*.safetensors"))
    assert len(done) == 1
    stamp = done[0].stat().st_mtime_ns
    convert(source, out)
    assert done[0].stat().st_mtime_ns == stamp  # not written again
    whole = sorted(path.name for path in (tmp_path / "whole").iterdir())
    left = [p for p in out.iterdir() if not p.name.endswith(".partial")]
    assert sorted(path.name for path in left) == whole
    for name in whole:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_shard_that_a_crash_cut_short_is_written_again(source, tmp_path, monkeypatch):
    convert(source, tmp_path / "whole")

    def stop(source, out):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards, "_copy_small_files", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "out")
    cut, *kept = sorted((tmp_path / "out").glob("*.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in kept]
    cut.write_bytes(cut.read_bytes()[:-7])
    convert(source, tmp_path / "out")
    assert cut.read_bytes() == (tmp_path / "whole" / cut.name).read_bytes()
    assert [path.stat().st_mtime_ns for path in kept] == stamps


def test_the_files_are_those_that_safetensors_writes(source, tmp_path):
    convert(source, tmp_path / "out")
    for path in source.glob("*.safetensors"):
        written = tmp_path / "out" / path.name
        save_file(load_file(written), tmp_path / "plain", {"format": "pt"})
        assert written.read_bytes() == (tmp_path / "plain").read_bytes()


def test_converting_imports_neither_torch_nor_transformers(source, tmp_path):
    program = (
        "import sys\nfrom selectmoe_core.cli import call\ncode = call(sys.argv[1:])\n"
        "print(code, {'torch', 'transformers'} & sys.modules.keys(), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "convert", str(source), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("0 set()")
    assert (tmp_path / "out" / "selector.json").is_file()


def test_other_options_do_not_keep_old_shards(source, tmp_path):
    convert(source, tmp_path / "out")
    convert(source, tmp_path / "out", num_trash_experts=2)
    assert all(value.shape == (2, 32) for value in rows(tmp_path / "out").values())


def test_a_full_disk_is_said_plainly_and_leaves_nothing_half(source, tmp_path, monkeypatch):
    def full(source, target, run):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "copy_run", full)
        with pytest.raises(StageError, match="no space left") as caught:
            convert(source, tmp_path / "out")
    assert "free some space" in caught.value.hint
    assert not list((tmp_path / "out").glob("*.safetensors*"))
    assert not list((tmp_path / "out").glob(".*.partial"))
    usage = shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StageError, match="1 are free"):
        convert(source, tmp_path / "other")


def same_files(one, other):
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("moment", ["_begin_copies", "_finish", "_copy_small_files"])
def test_two_conversions_do_not_write_into_one_folder(single, tmp_path, monkeypatch, moment):
    """The second would cut the first one's partial file short."""
    convert(single, tmp_path / "whole")
    there, go_on, out = threading.Event(), threading.Event(), tmp_path / "out"
    step = getattr(shards, moment)

    def waiting(*args):
        there.set()
        assert go_on.wait(60)
        return step(*args)

    with ThreadPoolExecutor() as pool, monkeypatch.context() as patch:
        patch.setattr(shards, moment, waiting)
        first = pool.submit(convert, single, out)
        try:
            assert there.wait(60)
            patch.setattr(shards, moment, step)
            before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
            with pytest.raises(StageError, match="another conversion is writing") as caught:
                convert(single, out, seed=43)
            assert caught.value.hint
            assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
        finally:
            go_on.set()
        first.result()
    same_files(out, tmp_path / "whole")
    convert(single, out, seed=43)  # the folder is free again
    assert not list(out.glob(".*"))


def test_a_folder_whose_conversion_failed_is_free_again(single, tmp_path, monkeypatch):
    def full(source, target, run):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "copy_run", full)
        with pytest.raises(StageError, match="no space left"):
            convert(single, tmp_path / "out")
    convert(single, tmp_path / "out")
    convert(single, tmp_path / "whole")
    same_files(tmp_path / "out", tmp_path / "whole")


def test_conversions_at_once_in_their_own_folders_are_like_one_alone(
    source, single, tmp_path, monkeypatch
):
    """Many small pieces, each source several times at once."""
    for name, folder in (("source", source), ("single", single)):
        convert(folder, tmp_path / name)
    monkeypatch.setattr(shards, "PIECE", 777)
    for turn in range(3):
        with ThreadPoolExecutor(4) as pool:
            runs = [
                pool.submit(convert, folder, tmp_path / f"{name}-{turn}-{number}")
                for number in range(2)
                for name, folder in (("source", source), ("single", single))
            ]
            for run in runs:
                run.result()
    for path in tmp_path.glob("*-*"):
        same_files(path, tmp_path / path.name.split("-")[0])


def test_a_piece_that_is_missing_is_noticed(single, tmp_path, monkeypatch):
    copy, size = shards.copy_run, (single / "model.safetensors").stat().st_size

    def lossy(source, target, run):
        return run.size if run.source + run.size == size else copy(source, target, run)

    monkeypatch.setattr(shards, "copy_run", lossy)
    monkeypatch.setattr(shards, "PIECE", 4096)
    with pytest.raises(StageError, match=r"it has .* bytes after .* were written"):
        convert(single, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*model.safetensors*"))


def test_a_model_is_not_converted_over_itself(single):
    before = (single / "model.safetensors").read_bytes()
    with pytest.raises(StageError, match="cannot replace its source"):
        convert(single, single)
    assert (single / "model.safetensors").read_bytes() == before


def test_another_model_is_not_overwritten(source, single, tmp_path):
    target = tmp_path / "precious"
    shutil.copytree(single, target)
    with pytest.raises(StageError, match="already contains another model, of type 'olmoe'"):
        convert(source, target)
    assert (target / "model.safetensors").read_bytes() == (
        single / "model.safetensors"
    ).read_bytes()


def break_type(folder):
    rewrite_json(folder / "config.json", model_type="llama")


def break_config(folder):
    (folder / "config.json").write_text("{")


def break_no_config(folder):
    (folder / "config.json").unlink()


def break_config_values(folder):
    rewrite_json(folder / "config.json", num_experts="many")


def break_index(folder):
    (folder / "model.safetensors.index.json").unlink()


def break_shard_missing(folder):
    min(folder.glob("*.safetensors")).unlink()


def break_truncated(folder):
    path = min(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])


def break_not_safetensors(folder):
    min(folder.glob("*.safetensors")).write_bytes(b"not a shard at all")


def change_gate(folder, change):
    for path in folder.glob("*.safetensors"):
        contents = load_file(path)
        for name in GATES & contents.keys():
            contents[name] = change(contents[name])
        save_file(contents, path, {"format": "pt"})


def break_gate_shape(folder):
    change_gate(folder, lambda gate: gate[:60].clone())


def break_gate_nan(folder):
    change_gate(folder, lambda gate: gate.index_fill(0, torch.tensor([5]), float("nan")))


def break_gate_dtype(folder):
    change_gate(folder, lambda gate: gate.to(torch.int8))


def break_tensor(folder):
    for path in folder.glob("*.safetensors"):
        contents = load_file(path)
        if contents.pop("model.layers.1.mlp.experts.7.up_proj.weight", None) is not None:
            save_file(contents, path, {"format": "pt"})


def break_tensor_and_index(folder):
    break_tensor(folder)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    del content["weight_map"]["model.layers.1.mlp.experts.7.up_proj.weight"]
    index.write_text(json.dumps(content))


def break_pickled(folder):
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def break_empty(folder):
    for path in folder.glob("*.safetensors*"):
        path.unlink()


BROKEN = [
    (break_type, "model_type is 'llama'"),
    (break_config, "not valid JSON"),
    (break_no_config, "not a model folder"),
    (break_config_values, "num_experts"),
    (break_index, "index.json is missing"),
    (break_shard_missing, "shard is missing"),
    (break_truncated, "damaged or incomplete"),
    (break_not_safetensors, "damaged"),
    (break_gate_shape, r"\(60, 32\)"),
    (break_gate_nan, "NaN"),
    (break_gate_dtype, "its dtype is I8"),
    (break_tensor, "experts.7.up_proj"),
    (break_tensor_and_index, "experts.7.up_proj"),
    (break_pickled, "pickled"),
    (break_empty, "no weights"),
]


@pytest.mark.parametrize(("break_it", "words"), BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_broken_checkpoints_are_named(source, tmp_path, break_it, words):
    folder = tmp_path / "broken"
    shutil.copytree(source, folder)
    break_it(folder)
    with pytest.raises(ModelError, match=words) as caught:
        convert(folder, tmp_path / "out")
    assert caught.value.hint
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_file_is_not_a_checkpoint(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match="is a file"):
        convert(tmp_path / "model.gguf", tmp_path / "out")
