"""config.json, the index and selector.json of models that nobody vouches for."""

import json
import os

import pytest

from selectmoe_core import ModelError, ModelRef
from selectmoe_core.models import Models, read_config, read_index

NAMES = ("num_hidden_layers", "num_experts", "num_experts_per_tok", "hidden_size", "vocab_size")


def write(folder, name, value):
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [10**9, -1, 10**400, 2.0, "8", True, [8], {}])
def test_sizes_that_no_model_has_are_refused(tmp_path, name, value):
    write(tmp_path, "config.json", {"model_type": "olmoe", name: value})
    with pytest.raises(ModelError, match=rf"config\.json: {name} is .* whole number") as caught:
        read_config(tmp_path)
    assert len(str(caught.value)) < 400
    with pytest.raises(ModelError, match=name):
        Models().config(ModelRef(str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=name):
        Models().load(ModelRef(str(tmp_path)), dtype="float32", device="cpu")


def test_a_sound_configuration_is_read(tmp_path):
    config = {"model_type": "x", "num_hidden_layers": 3, "num_experts": None, "head_dim": 64}
    assert read_config(write(tmp_path, "config.json", config)) == config


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"x"', "\xff", "[" * 100_000])
def test_what_is_no_object_is_refused(tmp_path, text):
    with pytest.raises(ModelError, match=r"config\.json"):
        read_config(write(tmp_path, "config.json", text))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "selector.json"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    write(tmp_path, "config.json", {"num_experts": 8})
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match=f"{name}: not a regular file"):
        Models().load(ModelRef(str(tmp_path)), dtype="float32", device="cpu")


@pytest.mark.parametrize(
    "shard",
    ["/etc/x.safetensors", "../x.safetensors", "a/x.safetensors", "..", "", "config.json", "x.bin",
     "a\nb.safetensors", 3, None, ["x.safetensors"], {}],
)  # fmt: skip
def test_an_index_names_shards_of_its_folder_by_plain_names(tmp_path, shard):
    index = {"weight_map": {"a.weight": "x.safetensors", "b.weight": shard}}
    write(tmp_path, "config.json", {"model_type": "llama"})
    write(tmp_path, "model.safetensors.index.json", index)
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"index\.json: the entry of 'b\.weight'") as caught:
        read_index(tmp_path)
    assert caught.value.hint
    with pytest.raises(ModelError, match=r"b\.weight"):
        Models().load(ModelRef(str(tmp_path)), dtype="float32", device="cpu")


@pytest.mark.parametrize(
    "index",
    [{}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": "x"},
     {"weight_map": {"a": "x.safetensors"}, "metadata": 3},
     {"weight_map": {"a": "x.safetensors"}, "metadata": {"total_size": "9"}},
     {"weight_map": {"a": "x.safetensors"}, "metadata": {"total_parameters": True}}],
    ids=str,
)  # fmt: skip
def test_a_damaged_index_is_refused(tmp_path, index):
    with pytest.raises(ModelError, match=r"index\.json"):
        read_index(write(tmp_path, "model.safetensors.index.json", index))


def test_a_sound_index_is_read(tmp_path):
    assert read_index(tmp_path) is None
    index = {"weight_map": {"a": "x.safetensors"}, "metadata": {"total_size": 9.0, "more": "x"}}
    assert read_index(write(tmp_path, "model.safetensors.index.json", index)) == index


CONFIG = {"num_experts": 8, "num_experts_per_tok": 2, "num_trash_experts": 3}
SELECTOR = {"experts": 8, "top_k": 2, "trash_cans": 3, "converter": "x", "tokens": "end"}


def test_selector_json_that_agrees_is_read(tmp_path):
    assert Models().selector(ModelRef(str(write(tmp_path, "config.json", CONFIG)))) == {}
    write(tmp_path, "selector.json", SELECTOR)
    assert Models().selector(ModelRef(str(tmp_path))) == SELECTOR


@pytest.mark.parametrize("value", [1, 4, "2", 2.0, True, [2]])
@pytest.mark.parametrize("key", ["experts", "top_k", "trash_cans"])
def test_selector_json_that_contradicts_config_json_names_both(tmp_path, key, value):
    write(tmp_path, "config.json", CONFIG)
    write(tmp_path, "selector.json", SELECTOR | {key: value})
    ref = ModelRef(str(tmp_path))
    both = rf"selector\.json says {key} is .*config\.json says {SELECTOR[key]}"
    for look in (Models().selector, lambda ref: Models().load(ref, dtype="float32", device="cpu")):
        with pytest.raises(ModelError, match=both) as caught:
            look(ref)
        assert "config.json" in caught.value.hint


def test_a_partial_checkpoints_selector_json_must_agree_with_its_base(tmp_path):
    base, partial = tmp_path / "base", tmp_path / "partial"
    for folder in (base, partial):
        folder.mkdir()
    write(base, "config.json", CONFIG)
    write(partial, "partial.json", {"base": {"location": str(base)}})
    write(partial, "selector.json", SELECTOR)
    assert Models().selector(ModelRef(str(partial))) == SELECTOR
    write(partial, "selector.json", SELECTOR | {"top_k": 3})
    with pytest.raises(ModelError, match="top_k is 3") as caught:
        Models().selector(ModelRef(str(partial)))
    assert str(base) in str(caught.value)
