"""Models: any reference, found without a network, and loaded whole or not at all."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging  # noqa: E402

from selectmoe_core.errors import ModelError  # noqa: E402
from selectmoe_core.models.models import (  # noqa: E402
    PARTIAL,
    PARTIAL_WEIGHTS,
    ModelRef,
    Models,
    TargetModel,
    save_partial,
)
from selectmoe_core.store import FileHashes  # noqa: E402

IDS = torch.tensor([[1, 2, 3, 4, 5]])
WEIGHTS = "model.safetensors"


def tiny(seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    tiny().save_pretrained(folder)
    backend = Tokenizer(models.BPE({"<e>": 0, "a": 1, "b": 2}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "llama")


@pytest.fixture
def loader():
    return Models()


def load(loader, place, **options):
    settings = {"dtype": "float32", "device": "cpu", **options}
    return loader.load(ModelRef(str(place)), **settings)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def rewrite(folder, change):
    """Change a checkpoint's tensors in place."""
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


# -------------------------------------------------------------------------------------- whole


def test_a_folder_loads_as_it_was_saved_and_in_evaluation_mode(loader, folder):
    model = load(loader, folder)
    assert not model.training
    assert torch.equal(logits(model), logits(tiny()))
    assert load(loader, folder, dtype="bfloat16").dtype is torch.bfloat16


def test_loading_prints_no_bars_and_leaves_the_setting_as_it_was(loader, folder, capfd):
    transformers_logging.enable_progress_bar()
    load(loader, folder)
    assert "Loading weights" not in capfd.readouterr().err
    assert transformers_logging.is_progress_bar_enabled()
    AutoModelForCausalLM.from_pretrained(folder)
    assert "Loading weights" in capfd.readouterr().err  # what the test looks for is there otherwise


def test_a_relative_folder_and_a_home_folder_are_found(loader, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert loader.local(ModelRef("llama")) == folder
    assert loader.local(ModelRef("./llama")) == folder
    assert loader.local(ModelRef("~/llama")) == folder


def test_the_tokenizer_comes_from_the_model_or_its_base(loader, folder, tmp_path):
    assert loader.tokenizer(ModelRef(str(folder))).eos_token == "<e>"
    partial = tmp_path / "partial"
    save_partial(partial, {}, ModelRef(str(folder)), loader)
    assert loader.tokenizer(ModelRef(str(partial))).eos_token == "<e>"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        loader.tokenizer(ModelRef(str(folder)))


def test_a_bundled_model_is_found_and_a_wrong_name_gets_a_suggestion(folder):
    bundle = Models(bundled={"nano-llama": folder})
    assert bundle.local(ModelRef("bundled:nano-llama")) == folder
    with pytest.raises(ModelError, match="no plugin ships a model 'nano-lama'") as caught:
        bundle.local(ModelRef("bundled:nano-lama"))
    assert caught.value.hint == "did you mean 'nano-llama'?"


# ------------------------------------------------------------------------------- not whole


def _drop(tensors):
    del tensors["model.layers.1.mlp.up_proj.weight"]


def _add(tensors):
    tensors["model.layers.7.mlp.up_proj.weight"] = torch.zeros(24, 16)


def _reshape(tensors):
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(24, 15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, r"1 missing \(model\.layers\.1\.mlp\.up_proj"),
        (_add, r"1 unexpected \(model\.layers\.7"),
        (_reshape, r"cannot be loaded|mismatched"),
    ],
)
def test_weights_that_do_not_fit_are_named(loader, folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ModelError, match=message) as caught:
        load(loader, folder)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_many_missing_weights_are_counted_and_some_named(loader, folder):
    rewrite(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "mlp" in name])
    with pytest.raises(ModelError, match=r"6 missing \(.*, \.\.\.\)"):
        load(loader, folder)


def _truncate(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def _empty(folder):
    (folder / WEIGHTS).write_bytes(b"")


def _garbage(folder):
    (folder / WEIGHTS).write_bytes(b"\xff" * 100)


def _no_config(folder):
    (folder / "config.json").unlink()


def _broken_config(folder):
    (folder / "config.json").write_text("{")


def _list_config(folder):
    (folder / "config.json").write_text("[]")


def _unknown_type(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nothing_known"}))


def _wrong_config(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": "many"}))


def _pickled(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def _lost_shard(folder):
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    names = list(load_file(folder / "model-00001-of-00002.safetensors"))
    places = {name: f"model-0000{1 + number % 2}-of-00002.safetensors"
              for number, name in enumerate(names)}  # fmt: skip
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "cannot be loaded"),
        (_empty, "cannot be loaded"),
        (_garbage, "cannot be loaded"),
        (_no_config, "it has no config.json"),
        (_broken_config, "config.json"),
        (_list_config, "cannot be loaded|config"),
        (_unknown_type, "nothing_known"),
        (_wrong_config, "hidden_size|cannot be loaded"),
        (_pickled, r"has no \*\.safetensors"),
        (_lost_shard, "model-00002-of-00002"),
    ],
)
def test_a_damaged_folder_is_an_error_of_the_model(loader, folder, damage, message):
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load(loader, folder)
    assert str(folder) in str(caught.value)


def test_pickled_weights_are_never_unpickled_and_the_hint_says_what_to_do(loader, folder):
    _pickled(folder)
    with pytest.raises(ModelError) as caught:
        load(loader, folder)
    assert "convert pickled weights" in caught.value.hint


@pytest.mark.parametrize("place", ["./nothing", "/nothing/here", "~/nothing", "a/b/c"])
def test_a_path_that_is_not_there_is_no_hub_name(loader, place):
    with pytest.raises(ModelError, match="there is no model at") as caught:
        loader.local(ModelRef(place))
    assert "path" in caught.value.hint


def test_a_single_file_is_no_model(loader, folder):
    with pytest.raises(ModelError, match="is a file, not a model folder"):
        load(loader, folder / WEIGHTS)


# ---------------------------------------------------------------------------------------- hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    from huggingface_hub import constants

    place = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(place))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place))
    return place


def in_cache(cache, folder, commit="a" * 40, name="org--model"):
    """Lay a model out as the hub's client does."""
    home = cache / f"models--{name}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots").mkdir(exist_ok=True)
    return shutil.copytree(folder, home / "snapshots" / commit)


def test_a_hub_name_offline_says_which_switches_to_look_at(loader, cache):
    with pytest.raises(ModelError, match="org/model is neither a folder nor available") as caught:
        load(loader, "org/model")
    assert all(name in caught.value.hint for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "login"))


def test_a_cached_hub_model_is_found_without_a_network(loader, cache, folder):
    place = in_cache(cache, folder)
    assert loader.local(ModelRef("org/model")) == place
    assert torch.equal(logits(load(loader, "org/model")), logits(tiny()))
    assert loader.local(ModelRef("org/model", "a" * 40)) == place
    assert loader.local(ModelRef("org/model", "b" * 40)) is None
    assert loader.config(ModelRef("org/model"))["model_type"] == "llama"


def test_a_hub_model_counts_by_its_commit(loader, cache, folder):
    hashes = FileHashes(None)
    assert loader.digest(ModelRef("org/model"), hashes) == "hub:org/model@main"
    in_cache(cache, folder)
    assert loader.digest(ModelRef("org/model"), hashes) == f"hub:org/model@{'a' * 40}"
    assert loader.digest(ModelRef("org/model", "c" * 40), hashes) == f"hub:org/model@{'c' * 40}"


@pytest.fixture
def fetched(monkeypatch):
    from selectmoe_core.models import hub

    calls = []
    monkeypatch.setattr(hub, "download", lambda *what: calls.append(what) or "fetched")
    return calls


def test_a_half_fetched_model_is_fetched_again(loader, cache, folder, fetched):
    place = in_cache(cache, folder)
    assert loader.find(ModelRef("org/model")) == place
    _lost_shard(place)
    assert loader.find(ModelRef("org/model")) == "fetched"
    (place / "model.safetensors.index.json").unlink()
    (place / "model-00001-of-00002.safetensors").unlink()
    assert loader.find(ModelRef("org/model")) == "fetched"
    assert fetched == [("org/model", None)] * 2


def test_only_a_model_whose_name_leaves_its_commit_open_is_fetched_to_settle_it(
    loader, cache, fetched
):
    loader.settle(ModelRef("org/model", "a" * 40))
    assert fetched == []
    loader.settle(ModelRef("org/model", "main"))
    loader.settle(ModelRef("org/model"))
    assert fetched == [("org/model", "main"), ("org/model", None)]


# ------------------------------------------------------------------------------------ adapters


@pytest.fixture
def adapter(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    wanted = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    base = LlamaForCausalLM.from_pretrained(folder)
    model = get_peft_model(base, wanted).eval()
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", logits(model)


def test_an_adapter_is_applied_to_its_base(loader, folder, adapter):
    place, expected = adapter
    assert torch.equal(logits(load(loader, place)), expected)
    target = TargetModel(ModelRef(str(folder)), place)
    assert torch.equal(logits(loader.load_target(target, dtype="float32", device="cpu")), expected)
    assert loader.config(ModelRef(str(place)))["model_type"] == "llama"


@pytest.mark.parametrize("base", [None, "", 3])
def test_an_adapter_without_a_base_is_told(loader, adapter, base):
    path = adapter[0] / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base}))
    with pytest.raises(ModelError, match="names no base model"):
        load(loader, adapter[0])


def test_an_adapter_whose_base_is_gone_is_told(loader, adapter, folder):
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match="there is no model at"):
        load(loader, adapter[0])


def _adapter_change(change):
    def damage(folder):
        path = folder / "adapter_model.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)

    return damage


def _truncate_adapter(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_adapter_change(lambda t: t.pop(next(iter(t)))), "1 missing"),
        (_adapter_change(lambda t: t.update(x=torch.zeros(1))), "1 unexpected"),
        (
            _adapter_change(lambda t: t.update({next(iter(t)): torch.zeros(3, 3)})),
            "cannot be loaded",
        ),
        (_truncate_adapter, "cannot be loaded"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "has no adapter_model"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "not valid JSON"),
    ],
)
def test_an_adapter_loads_whole_or_not_at_all(loader, adapter, damage, message):
    damage(adapter[0])
    with pytest.raises(ModelError, match=message):
        load(loader, adapter[0])


# -------------------------------------------------------------------------- partial checkpoints

NORM = "model.norm.weight"


@pytest.fixture
def partial(loader, folder, tmp_path):
    place = tmp_path / "deep" / "partial"
    save_partial(place, {NORM: torch.full((16,), 2.0)}, ModelRef(str(folder)), loader)
    return place


def test_a_partial_checkpoint_is_laid_over_its_base(loader, partial):
    model = tiny()
    with torch.no_grad():
        model.get_parameter(NORM).fill_(2.0)
    assert torch.equal(logits(load(loader, partial)), logits(model))


def test_a_partial_checkpoint_has_the_permissions_of_any_new_file(narrow_umask, partial):
    assert {path.stat().st_mode & 0o777 for path in partial.iterdir()} == {narrow_umask}


def test_a_partial_checkpoint_and_its_base_move_together(loader, partial, tmp_path):
    moved = shutil.move(tmp_path, tmp_path.with_name(f"{tmp_path.name}-moved"))
    place = partial.relative_to(tmp_path)
    assert load(loader, f"{moved}/{place}").get_parameter(NORM)[0] == 2.0


def test_a_partial_checkpoint_of_another_base_is_refused(loader, partial, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    with pytest.raises(ModelError, match="trained on another base"):
        load(loader, partial)


def test_the_digest_of_a_partial_checkpoint_covers_its_base(loader, partial, folder):
    before = loader.digest(ModelRef(str(partial)), FileHashes(None))
    rewrite(folder, lambda tensors: tensors[NORM].add_(1.0))
    assert loader.digest(ModelRef(str(partial)), FileHashes(None)) != before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / PARTIAL).write_text("{"), "not valid JSON"),
        (lambda f: (f / PARTIAL).write_text("[]"), "expected a JSON object"),
        (lambda f: (f / PARTIAL).write_text("{}"), "names no base"),
        (lambda f: (f / PARTIAL).write_text('{"base": {"location": 3}}'), "names no base"),
        (lambda f: (f / PARTIAL_WEIGHTS).unlink(), "cannot be read"),
        (lambda f: (f / PARTIAL_WEIGHTS).write_bytes(b"x" * 50), "cannot be read"),
        (
            lambda f: save_file({NORM: torch.zeros(15)}, f / PARTIAL_WEIGHTS),
            f"'{NORM}' does not fit",
        ),
        (lambda f: save_file({"no": torch.zeros(16)}, f / PARTIAL_WEIGHTS), "'no' does not fit"),
    ],
)
def test_a_damaged_partial_checkpoint_is_told(loader, partial, damage, message):
    damage(partial)
    with pytest.raises(ModelError, match=message):
        load(loader, partial)


# --------------------------------------------------------------------------------------- gguf


def as_gguf(model, path):
    """Write a Llama as llama.cpp keeps it: other names, and rotary halves interleaved."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        for kind, count in heads.items():
            if f"{kind}.weight" in name:
                halves = array.reshape(count, 2, -1, array.shape[1])
                array = halves.swapaxes(1, 2).reshape(array.shape)
        stem = names.get_name(name.removesuffix(".weight"))
        writer.add_tensor(f"{stem}.weight", array.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_gguf_file_loads_with_every_weight(loader, tmp_path, whole_folder):
    path = tmp_path / "model.gguf"
    as_gguf(tiny(), path)
    model = load(loader, tmp_path if whole_folder else path)
    assert torch.allclose(logits(model), logits(tiny()), atol=1e-5)
    for name, tensor in tiny().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_a_gguf_file_is_found_beside_nothing_else(loader, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert loader.local(ModelRef(str(tmp_path))) == tmp_path
    assert loader.config(ModelRef(str(tmp_path))) is None
    with pytest.raises(ModelError, match=r"model\.gguf"):
        load(loader, tmp_path / "model.gguf")
