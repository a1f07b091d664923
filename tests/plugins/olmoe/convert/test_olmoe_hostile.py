"""Checkpoints that nobody vouches for: nothing outside the output folder is touched."""

import json
import os
import shutil

import pytest
from conftest import tree
from olmoe_models import olmoe, rewrite_json, save

from selectmoe_core.errors import ModelError, StageError
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.protocols import Job
from selectmoe_olmoe.config import TrashcanConfig
from selectmoe_olmoe.convert.converter import TrashcanConverter

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return save(olmoe(), tmp_path_factory.mktemp("sound"), "150KB")


@pytest.fixture
def world(sound, tmp_path):
    """A folder with a victim's model, a checkpoint to convert, and a place for the result."""
    shutil.copytree(sound, tmp_path / "victim")
    shutil.copytree(sound, tmp_path / "deep" / "source")
    (tmp_path / "deep" / "results").mkdir()
    return tmp_path


def convert(world):
    model = ModelRef(str(world / "deep" / "source"))
    return TrashcanConverter(TrashcanConfig()).convert(
        model, world / "deep" / "results" / "out", Job(42)
    )


def first_shard(world):
    return sorted((world / "victim").glob("*.safetensors"))[0].name


@pytest.mark.parametrize("how", ["absolute", "relative", "two up", "sub folder"])
def test_an_index_cannot_lead_out_of_its_folder(world, cli, how):
    name = first_shard(world)
    target = {
        "absolute": str(world / "victim" / name),
        "relative": f"../../victim/{name}",
        "two up": f"../{name}",
        "sub folder": f"sub/{name}",
    }[how]
    source = world / "deep" / "source"
    for place in (source.parent, source / "sub"):
        place.mkdir(exist_ok=True)
        shutil.copy(world / "victim" / name, place / name)
    index = json.loads((source / INDEX).read_text())
    places = index["weight_map"]
    moved = next(tensor for tensor, shard in places.items() if shard == name)
    index["weight_map"] = {t: target if s == name else s for t, s in places.items()}
    (source / INDEX).write_text(json.dumps(index))
    before = tree(world)
    with pytest.raises(ModelError) as caught:
        convert(world)
    assert moved in str(caught.value)
    assert target[:40] in str(caught.value)
    said = cli("convert", source, world / "deep" / "results" / "out")
    assert (said.code, said.out) == (2, "")
    assert "Traceback" not in said.err
    assert tree(world) == before


@pytest.mark.parametrize("link", ["shard", "partial", "config.json", "selector.json", ".state"])
def test_links_in_the_output_are_not_followed(world, link):
    name = first_shard(world)
    out = world / "deep" / "results" / "out"
    out.mkdir()
    victim = world / "victim" / name
    place = {
        "shard": name,
        "partial": f".{name}.partial",
        ".state": ".converting.json",
    }.get(link, link)
    (out / place).symlink_to(victim)
    before = victim.read_bytes()
    with pytest.raises(StageError, match="is a link") as caught:
        convert(world)
    assert place in str(caught.value)
    assert victim.read_bytes() == before


def test_what_a_link_beside_the_model_points_to_is_not_copied(world):
    (world / "secret.txt").write_text("a password")
    (world / "deep" / "source" / "notes.txt").symlink_to(world / "secret.txt")
    with pytest.raises(ModelError, match=r"notes\.txt: .* leads out") as caught:
        convert(world)
    assert "remove the link" in caught.value.hint
    assert not (world / "deep" / "results" / "out").exists()


def test_links_within_the_model_and_of_the_hubs_cache_are_followed(world):
    source = world / "deep" / "source"
    (source / "again.json").symlink_to(source / "tokenizer_config.json")
    convert(world)
    blobs, snapshot = world / "models--a--b" / "blobs", world / "models--a--b" / "snapshots" / "c0"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in source.iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    TrashcanConverter(TrashcanConfig()).convert(ModelRef(str(snapshot)), world / "hub", Job(42))
    assert tree(world / "hub") == tree(world / "deep" / "results" / "out")
    assert not [path for path in (world / "hub").iterdir() if path.is_symlink()]


def changed(name, value):
    return lambda folder: rewrite_json(folder / "config.json", **{name: value})


def piped(name):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def index_of(value):
    def change(folder):
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"][next(iter(index["weight_map"]))] = value
        (folder / INDEX).write_text(json.dumps(index))

    return change


def shard_piped(folder):
    piped(sorted(folder.glob("*.safetensors"))[0].name)(folder)


ABSURD = {
    "more slots than experts": (changed("num_experts_per_tok", 65), "num_experts_per_tok is 65"),
    "many layers": (changed("num_hidden_layers", 10**9), "num_hidden_layers is 1000000000"),
    "many experts": (changed("num_experts", 10**9), "num_experts is 1000000000"),
    "too many to list": (changed("num_experts", 99_999), "missing tensors: .* and more"),
    "no layers": (changed("num_hidden_layers", 0), "num_hidden_layers is 0"),
    "text": (changed("num_experts", "64"), "num_experts is '64'"),
    "list": (changed("hidden_size", [32]), "hidden_size is"),
    "null": (changed("num_experts_per_tok", None), "num_experts_per_tok is None"),
    "number for a truth value": (changed("attention_bias", 1), "attention_bias is 1"),
    "list for a type": (changed("model_type", ["olmoe"]), "model_type is"),
    "config is a pipe": (piped("config.json"), r"config\.json: not a regular file"),
    "index is a pipe": (piped(INDEX), r"index\.json: not a regular file"),
    "shard is a pipe": (shard_piped, "not a regular file"),
    "index entry is a number": (index_of(7), "cannot be a name"),
    "index entry is a list": (index_of(["x"]), "cannot be a name"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_checkpoints_are_wrong_input_and_refused_at_once(world, cli, name):
    change, words = ABSURD[name]
    change(world / "deep" / "source")
    with pytest.raises(ModelError, match=words):
        convert(world)
    out = world / "deep" / "results" / "out"
    said = cli("convert", world / "deep" / "source", out)
    assert said.code == 2
    assert said.err.startswith("Error: ")
    assert "Traceback" not in said.err
    assert not out.exists()


def test_absurd_numbers_of_trash_cans_are_refused(world, cli):
    out = world / "deep" / "results" / "out"
    said = cli("convert", world / "deep" / "source", out, "num_trash_experts=1000000000")
    assert said.code == 2
    assert "num_trash_experts" in said.err
    assert not out.exists()
