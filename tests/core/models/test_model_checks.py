"""What shows before any weight is loaded: one message that names the model, no traceback."""

import json
import os
import shutil

import pytest

torch = pytest.importorskip("torch")

from peft import LoraConfig, get_peft_model  # noqa: E402
from test_models import folder, loader, original, tiny  # noqa: E402, F401

from selectmoe_core.errors import ModelError  # noqa: E402
from selectmoe_core.models.models import ModelRef  # noqa: E402


def reconfigured(file="config.json", **changes):
    def damage(place):
        path = place / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def fifo(name):
    def damage(place):
        (place / name).unlink(missing_ok=True)
        os.mkfifo(place / name)

    return damage


def written(name, text):
    return lambda place: (place / name).write_text(text)


def device(place):
    (place / "config.json").unlink()
    (place / "config.json").symlink_to("/dev/zero")


def sparse(place):
    with (place / "tokenizer.json").open("r+b") as file:
        file.truncate(300 << 20)


def quantised(method, **more):
    return reconfigured(quantization_config={"quant_method": method, **more})


NATIVE = {"auto_map": {"AutoConfig": "code.Own"}, "model_type": "own"}
DAMAGE = {
    "bitsandbytes": (quantised("bitsandbytes", load_in_4bit=True), r"quantised \(bitsandbytes\)"),
    "gptq": (quantised("gptq", bits=4), r"quantised \(gptq\)"),
    "awq": (quantised("awq", bits=4), r"quantised \(awq\)"),
    "unknown method": (reconfigured(quantization_config=[1]), "quantised .*unknown"),
    "fifo": (fifo("config.json"), "not a regular file"),
    "device": (device, "not a regular file"),
    "fifo of a tokenizer": (fifo("tokenizer_config.json"), "not a regular file"),
    "huge": (sparse, "314,572,800 bytes"),
    "template": (written("chat_template.jinja", "x" * ((1 << 20) + 1)), "1,048,577 bytes"),
    "deep": (written("config.json", "[" * 100000), "not valid JSON"),
    "digits": (written("config.json", '{"a": ' + "1" * 5000 + "}"), "not valid JSON"),
    "list": (written("config.json", "[]"), "expected a JSON object"),
    "layers": (reconfigured(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "more layers than tensors": (reconfigured(num_hidden_layers=4000), "4,000.* 21 tensors"),
    "experts": (reconfigured(num_experts=10**9), "num_experts"),
    "text": (reconfigured(hidden_size="16"), "hidden_size is '16'"),
    "truth": (reconfigured(vocab_size=True), "vocab_size is True"),
    "negative": (reconfigured(num_attention_heads=-2), "num_attention_heads"),
    "fraction": (reconfigured(intermediate_size=1.5), "intermediate_size"),
    "type": (reconfigured(model_type=["llama"]), "model_type"),
    "rope": (reconfigured(rope_parameters="fast"), "configuration of .* cannot be loaded"),
    "epsilon": (reconfigured(rms_norm_eps="small"), "configuration of .* cannot be loaded"),
    "own code": (reconfigured(**NATIVE), "it contains Python code"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_folder_that_will_not_load_is_known_before(loader, folder, kind):  # noqa: F811
    damage, says = DAMAGE[kind]
    damage(folder)
    with pytest.raises(ModelError, match=says) as caught:
        loader.check(ModelRef(str(folder)))
    assert str(folder) in str(caught.value)
    assert caught.value.hint
    assert len(str(caught.value)) < 700


def test_a_whole_model_passes(loader, folder):  # noqa: F811
    loader.check(ModelRef(str(folder)))
    loader.check_place(ModelRef(str(folder)))


def test_code_of_a_checkpoint_asks_for_trust(loader, folder):  # noqa: F811
    reconfigured(**NATIVE)(folder)
    marker = folder / "ran"
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')")
    for ask in (loader.check, lambda ref: loader.load(ref, dtype="float32", device="cpu")):
        with pytest.raises(ModelError) as caught:
            ask(ModelRef(str(folder)))
        assert "trust_remote_code = true" in caught.value.hint
    assert not marker.exists()


@pytest.mark.parametrize("manifest", [True, False])
def test_the_folder_around_a_model_says_where_it_is(loader, folder, tmp_path, manifest):  # noqa: F811
    outer = tmp_path / "train-0123"
    shutil.copytree(folder, outer / "model")
    if manifest:
        (outer / "artifact.json").write_text("{}")
    for ask in (loader.check_place, loader.check, loader.tokenizer):
        with pytest.raises(ModelError, match=r"it has no config\.json") as caught:
            ask(ModelRef(str(outer)))
        assert str(outer / "model") in caught.value.hint


def test_a_file_and_any_folder_are_no_model(loader, folder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelError, match="is a file"):
        loader.check_place(ModelRef(str(folder / "model.safetensors")))
    with pytest.raises(ModelError, match="is not a model"):
        loader.check_place(ModelRef("~"))


def test_a_home_that_nobody_has_is_a_path_that_is_not_there(loader):  # noqa: F811
    with pytest.raises(ModelError, match="there is no model at ~nobody-here/model"):
        loader.check_place(ModelRef("~nobody-here/model"))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"model": 3}'),
        ("tokenizer_config.json", "[1]"),
        ("tokenizer_config.json", '{"tokenizer_class": 7}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": 1}}'),
    ],
)
def test_a_mistyped_tokenizer_is_an_error_of_the_model(loader, folder, file, text):  # noqa: F811
    (folder / file).write_text(text)
    with pytest.raises(ModelError, match="tokenizer"):
        loader.tokenizer(ModelRef(str(folder)))


# ------------------------------------------------------------------------------------- adapters


@pytest.fixture
def adapter(folder, tmp_path):  # noqa: F811
    model = get_peft_model(tiny(), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    model.peft_config["default"].base_model_name_or_path = str(folder)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def of_adapter(**changes):
    return reconfigured("adapter_config.json", **changes)


def test_an_adapter_is_checked_with_its_base(loader, adapter, folder):  # noqa: F811
    loader.check(ModelRef(str(adapter)))
    quantised("gptq")(folder)
    with pytest.raises(ModelError, match="gptq"):
        loader.check(ModelRef(str(adapter)))


def test_adapters_that_name_one_another_are_refused(loader, adapter, tmp_path):  # noqa: F811
    other = shutil.copytree(adapter, tmp_path / "other")
    for first, second in ((adapter, adapter), (adapter, other), (other, adapter)):
        of_adapter(base_model_name_or_path=str(second))(first)
    for ask in (loader.check, loader.config, loader.tokenizer):
        with pytest.raises(ModelError, match="names itself as its base"):
            ask(ModelRef(str(adapter)))


def test_an_adapter_whose_base_is_elsewhere_says_so(loader, adapter):  # noqa: F811
    of_adapter(base_model_name_or_path="/elsewhere/base")(adapter)
    with pytest.raises(
        ModelError, match=r"the base of .*adapter is missing: .*elsewhere"
    ) as caught:
        loader.check(ModelRef(str(adapter)))
    assert "base_model_name_or_path" in caught.value.hint


@pytest.mark.parametrize(
    "changes",
    [{"r": "many"}, {"target_modules": 5}, {"peft_type": "NONE"}, {"lora_alpha": None}],
    ids=str,
)
def test_a_mistyped_adapter_is_an_error_of_the_model(loader, adapter, changes):  # noqa: F811
    of_adapter(**changes)(adapter)
    with pytest.raises(ModelError, match="adapter"):
        loader.load(ModelRef(str(adapter)), dtype="float32", device="cpu")


def test_a_mistyped_revision_is_named(loader, adapter):  # noqa: F811
    of_adapter(revision=3)(adapter)
    with pytest.raises(ModelError, match="revision must be text"):
        loader.check(ModelRef(str(adapter)))
