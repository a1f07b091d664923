"""The router scorer: hand-made numbers, a slow loop, and the same score in any company."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedTokenizerFast,
)

from selectmoe_core import Example, Job, Message, ModelError, ModelRef, Shard
from selectmoe_core.cost import Workload
from selectmoe_core.data.examples import Part, content_id
from selectmoe_core.models.models import Models
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_core.testing import check_scorer, generated_examples
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import encode
from selectmoe_olmoe.model.modeling import SelectMoeConfig, SelectMoeForCausalLM, register
from selectmoe_router import measures, statistics
from selectmoe_router.config import RouterConfig, chosen_layers
from selectmoe_router.plugin import selectmoe_scorers
from selectmoe_router.scorer import NOTHING_COUNTS, RouterScorer, counted

LAYERS, EXPERTS, TRASH, TOP_K, EOS = 3, 16, 4, 4, 256
TINY = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_experts": EXPERTS,
    "num_experts_per_tok": TOP_K,
    "initializer_range": 0.2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 256,
}
TOKENS = ("response", "end", "all")
STATISTICS = ("trash_mass", "trash_slots", "topk_ratio", "logit_sum")


def _tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {"<eos>": 256}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def _save(model, folder: Path) -> ModelRef:
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return ModelRef(str(folder))


@pytest.fixture(scope="module")
def select_moe(tmp_path_factory) -> ModelRef:
    torch.manual_seed(3)
    model = SelectMoeForCausalLM(
        SelectMoeConfig(**TINY, num_trash_experts=TRASH, trash_can_init_std=0.3)
    )
    return _save(model, tmp_path_factory.mktemp("select_moe"))


@pytest.fixture(scope="module")
def olmoe(tmp_path_factory) -> ModelRef:
    torch.manual_seed(4)
    return _save(OlmoeForCausalLM(OlmoeConfig(**TINY)), tmp_path_factory.mktemp("olmoe"))


def _example(prompt: str, *answers: str) -> Example:
    turns = [Message("user", prompt)]
    for answer in answers:
        turns += [Message("assistant", answer), Message("user", "go on")]
    turns = tuple(turns[:-1]) if answers else tuple(turns)
    return Example(content_id(turns).hex(), "s", turns)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    random = np.random.default_rng(5)
    letters = list("abcdefgh ,.éß")

    def text() -> str:
        return "".join(random.choice(letters, size=int(random.integers(1, 60))))

    rows = [_example(text(), *(text() for _ in range(1 + number % 3))) for number in range(60)]
    rows[7] = _example("a prompt so long that the limit leaves nothing of its answer " * 5, "no")
    return rows


@pytest.fixture
def job(select_moe, examples, tmp_path) -> Job:
    return _job(select_moe, examples, tmp_path / "encoded")


def _job(ref: ModelRef, examples: list[Example], folder: Path, **chat: object) -> Job:
    chosen = ChatFormat(ChatConfig(max_length=200, **chat))
    return Job(
        seed=1,
        chat=chosen,
        inputs=Inputs(model=ref),
        models=Models(model_types={"select_moe": register}),
        encoded=lambda tokenizer: encode(examples, folder, chosen, tokenizer),
    )


def _score(job: Job, examples: list[Example], shards: int = 1, **options: object):
    """Score the examples in so many shards; the parts, in order."""
    with RouterScorer(RouterConfig(**options)).open(job) as scorer:
        return [
            scorer.score(Shard(number, rows, [examples[row] for row in rows]))
            for number, rows in enumerate(np.array_split(np.arange(len(examples)), shards))
        ]


def _counted(one, tokens: str) -> list[int]:
    """The places that count, found by what closes an answer and not by its neighbours."""
    places = range(len(one.ids))
    response = [place for place in places if one.parts[place] == Part.RESPONSE]
    if tokens == "all":
        return list(places)
    if tokens == "response":
        return response
    cut_inside = one.cut and places[-1] in response
    return [p for p in response if one.ids[p] == EOS or (cut_inside and p == places[-1])]


def _slow(job: Job, examples: list[Example], tokens: str = "response") -> dict[str, np.ndarray]:
    """Example by example, layer by layer, token by token, from the recorded router logits."""
    model = job.models.load(job.inputs.model, dtype="float32", device="cpu")
    tokenizer = job.models.tokenizer(job.inputs.model)
    width = getattr(model.config, "num_trash_experts", 0)
    rows = {name: [] for name in (*STATISTICS, "probs")}
    for one in job.chat.encode(examples, tokenizer):
        ids = torch.tensor([one.ids.tolist()])
        with torch.no_grad():
            recorded = model.model(ids, output_router_logits=True, use_cache=False).router_logits
        places = _counted(one, tokens)
        sums = {name: [] for name in rows}
        for logits in recorded:
            of_layer = {name: [] for name in rows}
            for token in places:
                row = [float(value) for value in logits[token]]
                top = max(row)
                weights = [math.exp(value - top) for value in row]
                probs = [weight / sum(weights) for weight in weights]
                regular = probs[: len(probs) - width]
                ranked = sorted(range(len(probs)), key=lambda output: (-probs[output], output))
                slots = sum(output < len(regular) for output in ranked[:TOP_K]) / TOP_K
                of_layer["trash_mass"].append(1 - sum(probs[len(regular) :]))
                of_layer["trash_slots"].append(slots)
                of_layer["topk_ratio"].append(sum(sorted(regular)[-TOP_K:]))
                of_layer["logit_sum"].append(sum(row[: len(regular)]))
                of_layer["probs"].append(probs)
            for name, values in of_layer.items():
                empty = np.full(len(recorded[0][0]) if name == "probs" else 1, np.nan).squeeze()
                sums[name].append(np.mean(values, axis=0) if values else empty)
        for name, of_layers in sums.items():
            rows[name].append(of_layers)
    return {name: np.array(values) for name, values in rows.items()}


# ------------------------------------------------------------------------------ measures


def test_measures_of_hand_made_numbers():
    probs = torch.tensor([[0.4, 0.1, 0.2, 0.05, 0.15, 0.1], [0.0, 0.0, 0.1, 0.0, 0.5, 0.4]])
    logits = torch.tensor([[1.0, -2.0, 3.0, 0.5, 9.0, 9.0], [0.0, 0.0, 0.0, 1.0, 7.0, 7.0]])
    assert statistics.trash_mass(logits, probs, 4, 3).tolist() == pytest.approx([0.75, 0.1])
    assert statistics.topk_ratio(logits, probs, 4, 2).tolist() == pytest.approx([0.6, 0.1])
    assert statistics.logit_sum(logits, probs, 4, 2).tolist() == pytest.approx([2.5, 1.0])
    # The three largest: .4, .2 and the can's .15; then .5, .4 and the expert's .1.
    assert statistics.trash_slots(logits, probs, 4, 3).tolist() == pytest.approx([2 / 3, 1 / 3])


def test_an_equal_trash_can_loses_its_slot_to_the_regular_expert():
    probs = torch.tensor([[0.2, 0.2, 0.1, 0.1, 0.2, 0.2]])
    assert statistics.trash_slots(probs, probs, 4, 2).tolist() == [1.0]
    assert statistics.trash_slots(probs, probs, 4, 3).tolist() == pytest.approx([2 / 3])
    assert statistics.trash_slots(probs, probs, 4, 4).tolist() == [0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_slots_are_those_that_the_router_fills(dtype):
    """Low precision ties often; the statistic must break ties as the model does."""
    from selectmoe_olmoe.model.router import SelectMoeTopKRouter

    torch.manual_seed(0)
    config = SelectMoeConfig(**TINY, num_trash_experts=TRASH)
    router = SelectMoeTopKRouter(config).to(dtype)
    with torch.no_grad():
        router.weight.copy_(torch.randn_like(router.weight) * 0.05)
        logits, _, outputs = router(torch.randn(3000, 32, dtype=dtype))
    found = statistics.trash_slots(logits, measures.probabilities(logits), EXPERTS, TOP_K)
    torch.testing.assert_close(found, (outputs < EXPERTS).float().mean(dim=-1))


def test_probabilities_are_taken_in_fp32():
    logits = torch.randn(5, 20).to(torch.bfloat16)
    expected = torch.softmax(logits.double(), dim=-1)
    torch.testing.assert_close(measures.probabilities(logits).double(), expected)


def test_what_the_mask_hides_never_reaches_the_mean():
    values = torch.tensor([[1.0, 2.0, math.nan], [math.inf, 5.0, 7.0]])
    mask = torch.tensor([[True, True, False], [False, True, True]])
    assert measures.mean_over_tokens(values, mask).tolist() == [1.5, 6.0]
    wide = torch.stack([values, 2 * values], dim=-1)
    assert measures.mean_over_tokens(wide, mask).tolist() == [[1.5, 3.0], [6.0, 12.0]]


# -------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("tokens", ["response", "end", "all"])
def test_scores_details_and_features_equal_the_slow_loop(job, examples, tokens):
    expected = _slow(job, examples, tokens)
    (part,) = _score(job, examples, tokens=tokens, features=True)
    for name in STATISTICS:
        of_examples = expected[name].mean(axis=1)
        np.testing.assert_allclose(part.details[name], of_examples, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(part.score, part.details["trash_mass"])
    np.testing.assert_allclose(part.details["layers"], expected["trash_mass"], atol=1e-5)
    vectors = expected["probs"].reshape(len(examples), LAYERS * (EXPERTS + TRASH))
    assert part.features.dtype == np.float16
    np.testing.assert_allclose(part.features, vectors, atol=1e-3)


def test_the_pool_has_answers_of_several_turns_and_answers_that_were_cut(job, examples):
    encoded = job.chat.encode(examples, job.models.tokenizer(job.inputs.model))
    ends = [_counted(one, "end") for one in encoded]
    assert {len(places) for places in ends} == {0, 1, 2, 3}
    assert any(
        places and one.ids[places[-1]] != EOS for one, places in zip(encoded, ends, strict=True)
    )
    for one, places in zip(encoded, ends, strict=True):
        mask = counted(one.parts, np.array([0, len(one.ids)]), "end", job.chat)
        assert mask.nonzero()[0].tolist() == places


def test_ends_of_examples_behind_one_another_stay_apart():
    """One ends within its answer, the next begins with one, as no template here does."""
    random, chat = np.random.default_rng(), ChatFormat(ChatConfig())
    for _ in range(50):
        each = [random.integers(0, 3, size=size).astype(np.uint8) for size in (5, 3, 0, 1, 7)]
        each[0][-1] = each[1][0] = each[1][-1] = each[3][0] = Part.RESPONSE
        starts = np.cumsum([0, *(len(one) for one in each)])
        for tokens in ("end", "response", "all"):
            alone = [counted(one, np.array([0, len(one)]), tokens, chat) for one in each]
            joined = counted(np.concatenate(each), starts, tokens, chat)
            assert joined.tolist() == np.concatenate(alone).tolist()
        ends = counted(np.concatenate(each), starts, "end", chat)
        assert ends[[4, 7, 8]].all()


@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_chosen_statistic_is_the_score(job, examples, statistic):
    expected = _slow(job, examples[:10])[statistic]
    (part,) = _score(job, examples[:10], statistic=statistic)
    np.testing.assert_allclose(part.details["layers"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(part.score, expected.mean(axis=1), rtol=1e-5, atol=1e-5)


def _all_columns(parts) -> dict[str, np.ndarray]:
    columns = {"score": np.concatenate([part.score for part in parts])}
    for name in parts[0].details:
        columns[name] = np.concatenate([part.details[name] for part in parts])
    return columns | {"features": np.concatenate([part.features for part in parts])}


@pytest.mark.parametrize("change", [{"batch_tokens": 1}, {"shards": 10}, {"batch_tokens": 777}])
def test_neither_batch_mates_nor_shards_change_a_score(job, examples, change):
    longest = 200
    together = _all_columns(_score(job, examples, features=True, batch_tokens=64 * longest))
    apart = _all_columns(_score(job, examples, **({"features": True} | change)))
    assert together.keys() == apart.keys()
    for name, column in together.items():
        tolerance = 1e-3 if name == "features" else 1e-5
        np.testing.assert_allclose(apart[name], column, rtol=1e-5, atol=tolerance, err_msg=name)


def test_longer_mates_pad_without_effect(select_moe, examples, tmp_path):
    short, long = (pick(examples, key=lambda one: len(one.response)) for pick in (min, max))
    alone = _score(_job(select_moe, [short], tmp_path / "one"), [short])[0]
    both = _score(_job(select_moe, [long, short], tmp_path / "two"), [long, short])[0]
    assert both.score[1] == pytest.approx(alone.score[0], abs=1e-6)


def test_an_example_without_a_response_token_is_skipped_with_a_reason(job, examples):
    (part,) = _score(job, examples, features=True)
    assert [row for row, reason in enumerate(part.skipped) if reason] == [7]
    assert part.skipped[7] == NOTHING_COUNTS
    assert np.isnan(part.score[7])
    assert np.isnan(part.features[7]).all()
    assert np.isfinite(np.delete(part.score, 7)).all()
    (everything,) = _score(job, examples, tokens="all")
    assert np.isfinite(everything.score[7])


def test_a_shard_of_skipped_examples_has_the_columns_of_the_others(job, examples):
    parts = _score(job, examples, shards=len(examples), features=True)
    assert parts[7].details.keys() == parts[8].details.keys()
    assert parts[7].features.shape == parts[8].features.shape


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [("first:1", [0]), ("last:2", [1, 2]), ([2, 0], [0, 2]), ([1], [1]), ("all", [0, 1, 2])],
)
def test_layers_are_the_ones_asked_for(job, examples, layers, chosen):
    some = examples[:6]
    whole = _score(job, some)[0].details["layers"]
    part = _score(job, some, layers=layers)[0]
    np.testing.assert_allclose(part.details["layers"], whole[:, chosen], atol=1e-6)
    np.testing.assert_allclose(part.score, whole[:, chosen].mean(axis=1), atol=1e-6)


def test_layers_behind_the_last_chosen_are_not_run(job, examples, monkeypatch):
    from transformers.models.olmoe.modeling_olmoe import OlmoeDecoderLayer

    calls = []
    forward = OlmoeDecoderLayer.forward
    monkeypatch.setattr(
        OlmoeDecoderLayer,
        "forward",
        lambda self, *args, **options: calls.append(1) or forward(self, *args, **options),
    )
    with RouterScorer(RouterConfig(layers="first:2")).open(job) as scorer:
        calls.clear()
        scorer.score(Shard(0, np.arange(3), examples[:3]))
    assert len(calls) == 2


def test_all_tokens_may_leave_out_the_formats_own(select_moe, examples, tmp_path):
    some = examples[:4]
    job = _job(select_moe, some, tmp_path / "masked", mask_format=True)
    masked = _score(job, some, tokens="all")[0].score
    plain = _score(_job(select_moe, some, tmp_path / "plain"), some, tokens="all")[0].score
    assert (np.abs(masked - plain) > 1e-6).all()


def test_a_skipped_row_counts_where_the_pool_is_a_slice_of_rows(job, examples):
    with RouterScorer(RouterConfig()).open(job) as scorer:
        rows = np.array([41, 3, 20])
        found = scorer.score(Shard(0, rows, [examples[row] for row in rows])).score
    np.testing.assert_allclose(found, _score(job, examples)[0].score[rows], atol=1e-5)


def test_the_same_twice(job, examples):
    one, other = (_score(job, examples)[0].score for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_it_passes_the_conformance_kit(select_moe, olmoe):
    (component,) = selectmoe_scorers()
    loader = Models(model_types={"select_moe": register})
    some = generated_examples(16)
    check_scorer(
        component,
        options={"features": True},
        examples=some,
        model=select_moe.location,
        models=loader,
    )
    check_scorer(
        component,
        options={"statistic": "logit_sum", "tokens": "all"},
        examples=some,
        model=olmoe.location,
        models=loader,
    )


# ---------------------------------------------------------------------------- other models


def test_a_model_without_trash_cans_has_the_two_other_statistics(olmoe, examples, tmp_path):
    job = _job(olmoe, examples, tmp_path / "encoded")
    expected = _slow(job, examples)
    for statistic in ("topk_ratio", "logit_sum"):
        part = _score(job, examples, statistic=statistic)[0]
        found = expected[statistic].mean(axis=1)
        np.testing.assert_allclose(part.score, found, rtol=1e-5, atol=1e-5)
        assert "trash_mass" not in part.details


@pytest.mark.parametrize("statistic", ["trash_mass", "trash_slots"])
def test_a_trash_statistic_without_trash_cans_is_an_error(olmoe, examples, tmp_path, statistic):
    job = _job(olmoe, examples, tmp_path / "encoded")
    with pytest.raises(ModelError, match="has no trash cans") as caught:
        RouterScorer(RouterConfig(statistic=statistic)).check(job)
    assert "topk_ratio" in caught.value.hint
    with pytest.raises(ModelError, match="has no trash cans"):
        _score(job, examples, statistic=statistic)


def test_a_model_without_a_router_is_an_error(tmp_path, examples):
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    job = _job(_save(LlamaForCausalLM(config), tmp_path / "m"), examples, tmp_path / "encoded")
    with pytest.raises(ModelError, match="has no router"):
        RouterScorer(RouterConfig(statistic="topk_ratio")).check(job)
    with pytest.raises(ModelError, match="has no router"):
        _score(job, examples, statistic="topk_ratio")


@pytest.mark.parametrize(("key", "value"), [("top_k", 2), ("trash_cans", 2), ("experts", 8)])
def test_selector_json_that_contradicts_the_model_is_an_error(
    select_moe, examples, tmp_path, key, value
):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(select_moe.location, folder)
    sizes = {"experts": EXPERTS, "trash_cans": TRASH, "top_k": TOP_K}
    (folder / "selector.json").write_text(json.dumps(sizes))
    job = _job(ModelRef(str(folder)), examples[:5], tmp_path / "encoded")
    RouterScorer(RouterConfig()).check(job)
    (folder / "selector.json").write_text(json.dumps(sizes | {key: value}))
    both = rf"selector\.json says {key} is {value}, but .*config\.json says {sizes[key]}"
    with pytest.raises(ModelError, match=both):
        RouterScorer(RouterConfig()).check(job)
    with pytest.raises(ModelError, match=both):
        _score(job, examples[:5])


@pytest.mark.parametrize("tokens", ["some", 3, None, ["end"]])
def test_selector_json_that_names_no_tokens_is_an_error(select_moe, examples, tmp_path, tokens):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(select_moe.location, folder)
    (folder / "selector.json").write_text(json.dumps({"tokens": tokens}))
    job = _job(ModelRef(str(folder)), examples[:5], tmp_path / "encoded")
    with pytest.raises(ModelError, match=r"selector\.json of .* says tokens =") as caught:
        _score(job, examples[:5])
    assert "response, end, all" in caught.value.hint
    assert len(_score(job, examples[:5], tokens="all")[0].score) == 5


def test_by_default_the_router_is_asked_where_warm_up_taught_it(select_moe, examples, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(select_moe.location, folder)
    job = _job(ModelRef(str(folder)), examples[:5], tmp_path / "encoded")
    chosen = {tokens: _score(job, examples[:5], tokens=tokens)[0].score for tokens in TOKENS}
    assert len({score.tobytes() for score in chosen.values()}) == len(TOKENS)
    said = {"experts": EXPERTS, "trash_cans": TRASH, "top_k": TOP_K}
    for taught in ({}, {"tokens": "end"}, {"tokens": "response"}):
        (folder / "selector.json").write_text(json.dumps(said | taught))
        found = _score(job, examples[:5])[0].score
        assert np.array_equal(found, chosen[taught.get("tokens", "response")])
        told = _score(job, examples[:5], tokens="all")[0].score
        assert np.array_equal(told, chosen["all"])


def test_check_names_a_layer_that_is_not_there(job):
    with pytest.raises(ModelError, match="layers names 3, but the model has 3 layers"):
        RouterScorer(RouterConfig(layers=[0, 3])).check(job)
    RouterScorer(RouterConfig(layers=[0, 2])).check(job)
    RouterScorer(RouterConfig(layers="last:9")).check(replace(job, inputs=Inputs()))


# ------------------------------------------------------------------------------- options


def test_chosen_layers():
    assert chosen_layers("all", 3) == (0, 1, 2)
    assert chosen_layers("first:2", 3) == (0, 1)
    assert chosen_layers("last:2", 3) == (1, 2)
    assert chosen_layers((2, 0), 3) == (0, 2)
    with pytest.raises(ValueError, match="has 3 layers"):
        chosen_layers("last:4", 3)


@pytest.mark.parametrize(
    "layers", ["some", "first:0", "first:", "last:-1", [], [-1], [1, 1], [True], 3, ["0"], None]
)
def test_layers_reject_nonsense(layers):
    with pytest.raises(ValidationError, match="must be"):
        RouterConfig(layers=layers)


def test_cost_follows_layers_and_knows_when_it_knows_nothing():
    (component,) = selectmoe_scorers()
    model = OlmoeConfig(**TINY).to_dict()
    load = Workload(1000, 50_000, estimated=False, model=model, dtype="float32")
    whole = component.cost(RouterConfig(), load)
    first = component.cost(RouterConfig(layers="first:1"), load)
    assert whole.flops == pytest.approx(LAYERS * first.flops)
    assert whole.memory > 0
    assert component.cost(RouterConfig(), replace(load, model=None)).flops is None


@pytest.mark.parametrize(
    ("statistic", "tokens"),
    [("trash_mass", "response"), ("topk_ratio", "all"), ("trash_slots", "end")],
)
def test_the_numbers_of_tokens_are_what_the_score_is_a_mean_of(job, examples, statistic, tokens):
    config = RouterConfig(statistic=statistic, tokens=tokens, batch_tokens=300)
    some = [examples[row] for row in (3, 8, 20, 41)]
    (scores,) = _score(job, examples, statistic=statistic, tokens=tokens)
    with RouterScorer(config).open(job) as scorer:
        details = scorer.tokens(some)
    encoded = job.chat.encode(some, _tokenizer())
    for detail, one, row in zip(details, encoded, (3, 8, 20, 41), strict=True):
        assert np.flatnonzero(detail.counts).tolist() == _counted(one, tokens)
        mean = detail.values[detail.counts].mean()
        shown = mean if statistic == "topk_ratio" else 1 - mean
        assert shown == pytest.approx(scores.score[row], abs=1e-5)
        answers = one.parts == Part.RESPONSE
        assert np.isfinite(detail.values[answers]).all()
        assert np.isfinite(detail.values).sum() == (
            len(one.ids) if tokens == "all" else answers.sum()
        )
        assert "".join(detail.texts) == _tokenizer().decode(one.ids)
    name = {"trash_mass": "mass on trash cans", "topk_ratio": "top-k mass of the regular experts"}
    assert details[0].name == name.get(statistic, "top-k slots that went to trash cans")


def test_the_report_gets_the_mass_on_trash_cans_by_that_name():
    (component,) = selectmoe_scorers()
    meanings = component.details(RouterConfig(statistic="trash_slots"))
    assert meanings["trash_mass"].title == "mass on trash cans"
    assert meanings["trash_mass"].complement
    assert not meanings["topk_ratio"].complement
    assert (meanings["layers"].title, meanings["layers"].each) == (
        "top-k slots that went to trash cans", "layer",
    )  # fmt: skip
