"""The embedders read what a slow plain pass of transformers gives, example by example."""

import numpy as np
import pytest
import torch
from llama_models import llama, tokenizer
from olmoe_models import olmoe, save, select_moe
from transformers import AutoModelForCausalLM

from selectmoe_core import Example, Job, Message, ModelError, ModelRef, Shard
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.testing import check_embedder, check_plugin, generated_examples
from selectmoe_core.testing.pools import Bench
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_embed.plugin import selectmoe_embedders
from selectmoe_olmoe.fused.ops import TorchSteps

COMPONENTS = {component.name: component for component in selectmoe_embedders()}
HIDDEN, PROFILE = COMPONENTS["hidden-states"], COMPONENTS["router-profile"]
MODELS = Registry(load_plugins()).models
JOB = Job(seed=1, models=MODELS, chat=ChatFormat(ChatConfig(max_length=200)))
MOE = {
    "vocab_size": 260,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 512,
}


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=3)


def kept(model, folder):
    save(model, folder)
    tokenizer().save_pretrained(folder)
    return ModelRef(str(folder))


@pytest.fixture(scope="module")
def moe(tmp_path_factory):
    return kept(olmoe(**MOE), tmp_path_factory.mktemp("olmoe"))


@pytest.fixture(scope="module")
def selecting(tmp_path_factory):
    model = select_moe(num_trash_experts=2, **MOE)
    return kept(model, tmp_path_factory.mktemp("select"))


@pytest.fixture(params=["padded", "packed"])
def way(request, monkeypatch):
    if request.param == "packed":
        monkeypatch.setattr("selectmoe_olmoe.fused.scoring_pass.obstacle", lambda _: None)
        monkeypatch.setattr("selectmoe_olmoe.fused.scoring_pass.TritonSteps", TorchSteps)
    return request.param


def embedded(tmp_path, component, model, examples, **options):
    """The vectors as the stage would make them, and the tokens of each example."""
    config = component.config(**options)
    bench = Bench(tmp_path, examples)
    job = bench.job(component, config, JOB, model)

    shard = Shard(0, np.arange(len(examples)), examples)
    with component.build(config).open(job, "pool") as embedder:
        found = embedder.embed(shard)
    tokens = bench.job(HIDDEN, HIDDEN.config(), JOB, model).encoded(tokenizer())
    return found, [tokens[row].ids for row in range(len(examples))], tokens


@torch.no_grad()
def plain(model, ids):
    """All hidden states, and the router's logits, of one example alone."""
    loaded = AutoModelForCausalLM.from_pretrained(model.location).eval()
    routed = hasattr(loaded.config, "num_experts")
    more = {"output_router_logits": True} if routed else {}
    rows = [torch.as_tensor(np.array(row), dtype=torch.long)[None] for row in ids]
    return [loaded(row, output_hidden_states=True, **more) for row in rows]


def rds(states):
    """The weighted mean as the paper writes it: w_i = i / (1 + ... + L)."""
    length = len(states)
    total = sum(range(1, length + 1))
    return sum(states[i - 1] * (i / total) for i in range(1, length + 1))


@pytest.mark.parametrize("budget", [200, 5000])
@pytest.mark.parametrize(
    ("options", "layer", "mean"),
    [
        ({}, -1, rds),
        ({"pooling": "mean"}, -1, lambda states: states.mean(0)),
        ({"pooling": "last"}, -1, lambda states: states[-1]),
        ({"layer": 2}, 2, rds),
        ({"layer": 3}, -1, rds),
        ({"layer": 0, "pooling": "mean"}, 0, lambda states: states.mean(0)),
    ],
)
def test_hidden_states_are_the_plain_ones(tmp_path, dense, options, layer, mean, budget):
    examples = generated_examples(9)
    found, ids, _ = embedded(tmp_path, HIDDEN, dense, examples, batch_tokens=budget, **options)
    expected = [mean(one.hidden_states[layer][0]) for one in plain(dense, ids)]
    np.testing.assert_allclose(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [None, 0, 1])
def test_hidden_states_of_a_select_moe_model(tmp_path, selecting, way, layer):
    examples = generated_examples(8)
    options = {"layer": layer, "batch_tokens": 300}
    found, ids, _ = embedded(tmp_path, HIDDEN, selecting, examples, **options)
    place = -1 if layer is None else layer
    expected = [rds(one.hidden_states[place][0]) for one in plain(selecting, ids)]
    np.testing.assert_allclose(found, torch.stack(expected), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layer", [None, 1])
def test_the_router_weighs_tokens(tmp_path, selecting, way, layer):
    examples = generated_examples(8)
    options = {"pooling": "router", "layer": layer, "batch_tokens": 300}
    found, ids, _ = embedded(tmp_path, HIDDEN, selecting, examples, **options)
    for row, one in enumerate(plain(selecting, ids)):
        layers = one.router_logits[:layer]
        masses = torch.stack([logits.softmax(-1)[:, 8:].sum(-1) for logits in layers])
        weights = 1 - masses.mean(0)
        states = one.hidden_states[-1 if layer is None else layer][0]
        expected = (states * weights[:, None]).sum(0) / weights.sum()
        np.testing.assert_allclose(found[row], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("first", [None, 1])
@pytest.mark.parametrize("tokens", ["all", "response"])
@pytest.mark.parametrize("name", ["moe", "selecting"])
def test_a_profile_is_the_mean_of_the_probabilities(tmp_path, request, way, name, tokens, first):
    model = request.getfixturevalue(name)
    examples = generated_examples(8)
    options = {"tokens": tokens, "first_layers": first, "batch_tokens": 300}
    found, ids, encoded = embedded(tmp_path, PROFILE, model, examples, **options)
    for row, one in enumerate(plain(model, ids)):
        counted = np.array(encoded[row].parts) == 2 if tokens == "response" else slice(None)
        layers = one.router_logits[:first]
        expected = torch.cat([logits.softmax(-1)[counted].mean(0) for logits in layers])
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


def test_an_example_without_counted_tokens_gets_zeros(tmp_path, moe, way):

    long = Example("0" * 32, "s", (Message("user", "why " * 200), Message("assistant", "yes")))
    examples = [*generated_examples(3), long]
    found, _, _ = embedded(tmp_path, PROFILE, moe, examples, tokens="response")
    assert not found[3].any()
    assert found[:3].any(axis=1).all()


@pytest.mark.parametrize("options", [{}, {"pooling": "last", "layer": 1}])
def test_hidden_states_keep_the_contract(dense, options):
    check_embedder(HIDDEN, options=options, model=dense.location, models=MODELS, job=JOB)


def test_profiles_keep_the_contract(selecting):
    check_embedder(PROFILE, model=selecting.location, models=MODELS, job=JOB)


def test_the_plugin_is_light():
    check_plugin("selectmoe_embed.plugin")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layer": 4}, "layer = 4, but .* has 3 layers"),
        ({"pooling": "router"}, "has no trash cans"),
    ],
)
def test_mistakes_are_found_before_the_first_stage(tmp_path, dense, options, says):
    config = HIDDEN.config(**options)
    job = Bench(tmp_path, generated_examples(3)).job(HIDDEN, config, JOB, dense)
    with pytest.raises(ModelError, match=says):
        HIDDEN.build(config).check(job)
    with pytest.raises(ModelError, match=says), HIDDEN.build(config).open(job, "pool"):
        pass


def test_a_model_without_a_router_has_no_profile(tmp_path, dense, moe):
    examples = generated_examples(3)
    with pytest.raises(ModelError, match="has no router whose logits can be read"):
        embedded(tmp_path / "dense", PROFILE, dense, examples)
    with pytest.raises(ModelError, match=r"first_layers = 3, but .* has 2 layers with a router"):
        embedded(tmp_path / "moe", PROFILE, moe, examples, first_layers=3)


def test_sentence_transformers_is_an_extra():
    component = COMPONENTS["sentence-transformers"]
    assert component.requires == ("sentence_transformers:selectmoe[sentences]",)
    assert Kind.EMBEDDER.hook == "selectmoe_embedders"
