"""The evidence: what it fits on, what it resumes, its measures, and the base model it makes."""

import gzip
import json
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import evidence
import evidence_bench
import evidence_rivals
from evidence_arms import GROUPS, RATES, arms
from evidence_base import MasterWeights, upcycle
from evidence_bench import results
from evidence_data import Judged, apart, held_out, overlap, read_planted, read_rows
from evidence_measures import blended, by_kind
from evidence_rivals import answer_states
from evidence_table import table
from rows import Rows

from selectmoe_core import Damage, Example, Message, ModelRef
from selectmoe_core.data.examples import Part, content_id
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat, answer_ends
from selectmoe_olmoe.warmup.pairs import CopyMaker
from selectmoe_olmoe.warmup.parts import SelectMoeWarmup

ARMS = ("contrastive/1", "unwarmed/1")


def row_of(prompt, answer, source="s"):
    messages = Message("user", prompt), Message("assistant", answer)
    return Example(content_id(messages).hex(), source, messages)


def rows_of(count):
    return [
        row_of(f"What is {n} and {n}? " * (1 + n % 4), f"It is {2 * n}. " * n) for n in range(count)
    ]


@pytest.fixture(scope="module")
def llama():
    return Registry(load_plugins()).models.find(ModelRef("bundled:nano-llama"))


# --------------------------------------------------------------------------------- a whole run


@dataclass
class Seen:
    """What the parts of a run were given to learn from."""

    warmup: list = field(default_factory=list)
    copies: list = field(default_factory=list)
    healing: list = field(default_factory=list)
    regression: list = field(default_factory=list)


def spied(patch):
    seen = Seen()
    train, copies, make_base, held = (
        SelectMoeWarmup.train,
        CopyMaker.copies,
        evidence_bench.make_base,
        evidence_rivals.held_out,
    )

    def spy_train(self, model, examples, out, job):
        seen.warmup.append(list(examples))
        return train(self, model, examples, out, job)

    def spy_copies(self, examples, epoch):
        examples = list(examples)
        found = list(copies(self, examples, epoch))
        seen.copies += examples + [copy for copy, _ in found]
        return iter(found)

    def spy_base(llama, pool, *rest, **options):
        seen.healing += [tuple(one.ids.tolist()) for one in pool]
        return make_base(llama, pool, *rest, **options)

    def spy_held(rows, *rest, **options):
        found = held(rows, *rest, **options)
        seen.regression += [*rows, *found.examples]
        return found

    patch.setattr(SelectMoeWarmup, "train", spy_train)
    patch.setattr(CopyMaker, "copies", spy_copies)
    patch.setattr(evidence_bench, "make_base", spy_base)
    patch.setattr(evidence_rivals, "held_out", spy_held)
    return seen


def command(data, out, *more):
    return ["--tiny", "--data", str(data), "--out", str(out), "--only", *ARMS, *more]


@pytest.fixture(scope="module")
def ran(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("evidence")
    with pytest.MonkeyPatch.context() as patch:
        seen = spied(patch)
        assert evidence.main(command(data, out)) == 0
    return out, seen


@pytest.mark.slow
def test_a_run_leaves_a_line_for_each_part(ran):
    out, _ = ran
    lines = results(out)
    assert [line["name"] for line in lines] == ["start", "base", "rivals", *ARMS]
    start, _, rivals, main, unwarmed = lines
    assert start["planted_rows_in_pool"] == 0
    assert rivals["experts"] == "grouped_mm"
    assert set(rivals["each_seconds"]) >= {"length", "ifd, llama", "ifd, base"}
    for line in (main, unwarmed):
        for kinds in line["auroc"].values():
            assert 0 <= kinds["main"]["all"] <= 1
            assert {"main", "min with ifd", "trash_mass, all"} <= kinds.keys()
    assert main["facts"]["steps"] > 0
    assert "spearman_length" in main["pool"]
    assert "pool" not in unwarmed
    assert main["auroc"]["planted"]["main"] != unwarmed["auroc"]["planted"]["main"]
    assert not (out / "work" / "arm").exists()


@pytest.mark.slow
def test_nothing_is_fitted_on_the_rows_to_judge_by(ran, data):
    out, seen = ran
    bench = evidence.prepare(evidence.options(command(data, out)))
    planted = read_planted(data / "planted_dev.jsonl")
    assert len(planted.examples) > 1000
    judged = {row.id for row in planted.examples} | set(bench.rows.ids)
    (taught,) = seen.warmup
    for given in (taught, seen.copies, seen.regression):
        assert len(given) >= 100
        # Ids derive from content: so no copy repeats a planted row either.
        assert not judged & {row.id for row in given}
    assert {row.id for row in taught} == set(bench.pool.ids)
    tokenizer = AutoTokenizer.from_pretrained(bench.chosen.llama)
    # Token by token the pool: cut to 128 tokens, judged rows of the same task can look like it.
    pool = bench.chat.encode(bench.pool.examples, tokenizer)
    assert seen.healing == [tuple(one.ids.tolist()) for one in pool]
    assert not {row.messages[0] for row in taught} & {row.messages[0] for row in planted.examples}


@pytest.mark.slow
def test_the_same_command_does_nothing_again(ran, data, monkeypatch, capsys):
    out, _ = ran

    def never(*_, **__):
        raise AssertionError("made again")

    for name in ("run_arm", "run_rivals"):
        monkeypatch.setattr(evidence, name, never)
    monkeypatch.setattr(evidence_bench, "make_base", never)
    before = [line["name"] for line in results(out) if line["name"] != "start"]
    assert evidence.main(command(data, out)) == 0
    assert [line["name"] for line in results(out) if line["name"] != "start"] == before
    said = capsys.readouterr().out
    assert "contrastive/1 is there" in said
    assert "unwarmed, 0 epochs [main]" in said


@pytest.mark.slow
def test_other_options_begin_anew(ran, data, monkeypatch):
    out, _ = ran
    made = []
    monkeypatch.setattr(evidence, "run_arm", lambda bench, arm: made.append(arm.label))
    monkeypatch.setattr(evidence, "run_rivals", lambda bench: made.append("rivals"))
    assert evidence.main(command(data, out, "--epochs", "2")) == 0
    assert made == ["contrastive/1"]  # what no epoch changes is there, and so are the rivals


@pytest.mark.slow
def test_another_pool_is_scored_once_and_blended_by_ranks(ran, data, tmp_path):
    out = tmp_path / "evidence"
    shutil.copytree(ran[0], out)
    rows = rows_of(41)[1:]  # the first one has no answer
    pool = tmp_path / "other.jsonl"
    told = [{"dataset": row.source, "messages": [*map(asdict, row.messages)]} for row in rows]
    pool.write_text("".join(json.dumps(row) + "\n" for row in told))
    given = command(data, out, "--score-pool", str(pool))
    assert evidence.main(given) == 0
    folder = out / "pool-scores-other"
    found = {}
    for path in folder.iterdir():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["id"] for line in lines] == [row.id for row in rows]
        found[path.stem] = [line["score"] for line in lines]
    assert sorted(found) == ["blend", "blend3", "contrastive", "ifd"]
    router, ifd = rankdata(found["contrastive"]), rankdata(found["ifd"])
    assert found["blend"] == pytest.approx(np.minimum(router, ifd) / 40)
    assert found["blend3"] == pytest.approx((3 * router + ifd) / 160)
    before = results(out)
    assert evidence.main(given) == 0
    assert [line["name"] for line in results(out)[len(before) :]] == ["start"]


@pytest.mark.slow
def test_no_arm_begins_after_the_limit(ran, data, monkeypatch, capsys):
    out, _ = ran
    monkeypatch.setattr(evidence, "run_arm", lambda bench, arm: pytest.fail("begun"))
    assert evidence.main(command(data, out, "--epochs", "3", "--limit", "0")) == 0
    assert "not begun: contrastive/1" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value", "base"),
    [("heal", 2.0, True), ("tokens", 512, True), ("documents", 3, True), ("rows", 100, True)],
)
def test_keys_depend_on_what_makes_a_result(ran, data, option, value, base):
    out, _ = ran
    arm = arms(1)[0]
    one, other = (evidence.options(command(data, out)) for _ in range(2))
    setattr(other, option, value)
    first, second = evidence.prepare(one), evidence.prepare(other)
    assert first.key(arm) == evidence.prepare(one).key(arm)
    assert (first.base_key != second.base_key) == base
    assert first.key(arm) != second.key(arm)
    assert len({first.key(one) for one in arms(3)}) == len(arms(3))


def test_a_planted_row_in_the_pool_stops_the_run(data, tmp_path):
    shutil.copytree(data / "less", tmp_path / "less", copy_function=shutil.copyfile)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    for name in ("planted_dev.jsonl", "text"):
        (tmp_path / name).symlink_to((data / name).resolve())
    chosen = evidence.options(command(tmp_path, tmp_path / "out"))
    evidence.prepare(chosen)
    row = json.loads((data / "planted_dev.jsonl").read_text().splitlines()[0])
    row["messages"][0]["content"] = row["messages"][0]["content"].upper() + " !"
    with next(tmp_path.glob("less/train/processed/*/*.jsonl")).open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(SystemExit, match="1 planted rows are in the pool"):
        evidence.prepare(chosen)


def test_an_arm_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="no arm begins so"):
        evidence.main(["--tiny", "--out", str(tmp_path), "--only", "contrastiv3"])


# ---------------------------------------------------------------------------------------- arms


def test_the_arms_come_in_the_order_of_their_importance(capsys):
    labels = [arm.label for arm in arms(3)]
    left_out = [f"contrastive without {group}/1" for group in GROUPS]
    assert labels[:2] == ["contrastive/1", "contrastive, gates at 0.008/1"]
    assert labels[2:5] == left_out
    assert labels[5:8] == ["contrastive/2", "contrastive/3", "unwarmed/1"]
    assert evidence.main(["--list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.rpartition("epochs  ")[2] for line in shown[:-1]] == labels


def test_more_seeds_of_the_gates_and_the_kinds_left_out_change_no_other_arm():
    fewer, more = arms(3), arms(3, other_seeds=2)
    assert [arm for arm in more if arm in fewer] == fewer
    assert [arm.label for arm in more if arm not in fewer] == [
        "contrastive, gates at 0.008/2",
        *(f"contrastive without {group}/2" for group in GROUPS),
    ]


def test_each_kind_is_left_out_once_and_never_taught_there():
    drawn = [kind for kind, rate in RATES.items() if rate > 0]
    assert sorted(kind for kinds in GROUPS.values() for kind in kinds) == sorted(drawn)
    found = [arm for arm in arms(1) if arm.left_out]
    assert len(found) == len(GROUPS)
    for arm in found:
        assert set(arm.warmup["damages"]) == set(RATES) - set(arm.left_out)
    assert set(RATES) <= set(Registry(load_plugins()).damages)


# ---------------------------------------------------------------------------------------- data


def test_overlap_looks_past_case_and_punctuation():
    pool = [row_of("One plus one?", "Two."), row_of("And then?", "Three."), row_of("Else?", "No.")]
    planted = [
        row_of("ONE, plus one", "two"),
        row_of("and then", "Spoilt"),
        row_of("New?", "three"),
    ]
    found = overlap(pool, planted)
    assert (found.whole, found.prompts, found.answers) == (1, 2, 2)
    assert found.touched == {pool[0].id, pool[1].id}


def test_rows_that_open_like_a_held_one_are_left_out():
    rows = [row_of("one plus one", "2"), row_of("Other", "3")]
    assert apart(rows, [row_of("One plus ONE?", "else")]) == rows[1:]


def test_half_of_the_held_rows_are_damaged():
    def spoilt(example, other, random):
        return example.messages[0], Message("assistant", "spoilt")

    found = held_out(rows_of(20), {"spoilt": Damage("spoilt", "", spoilt)}, 1)
    assert list(found.kinds) == ["spoilt"] * 10 + [""] * 10
    assert found.clean.sum() == 10
    assert [row.messages[-1].content == "spoilt" for row in found.examples] == list(~found.clean)


def test_planted_rows_are_read_with_their_kinds(tmp_path):
    lines = [
        {
            "dataset": "d",
            "planted": kind,
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": f"a{kind}"},
            ],
        }
        for kind in (None, "answer_swap")
    ]
    path = tmp_path / "planted.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [kind for _, kind in read_rows(path)] == ["", "answer_swap"]
    assert list(read_planted(path).clean) == [True, False]


# ------------------------------------------------------------------------------------ measures


def test_auroc_by_kind_is_the_share_of_pairs_in_order():
    random = np.random.default_rng()
    kinds = random.choice(["", "", "swap", "cut"], 80)
    score = random.integers(0, 9, 80).astype(float)
    score[random.integers(0, 80, 6)] = np.nan
    found = by_kind(score, Judged("set", rows_of(80), kinds))
    filled = np.where(np.isnan(score), -1.0, score)
    for kind, which in (("all", kinds != ""), ("swap", kinds == "swap"), ("cut", kinds == "cut")):
        pairs = [
            1.0 if clean > bad else 0.5 if clean == bad else 0.0
            for clean in filled[kinds == ""]
            for bad in filled[which]
        ]
        assert found[kind] == pytest.approx(np.mean(pairs), abs=1e-4)


def test_blends_are_of_ranks():
    found = blended(np.array([1.0, 3.0, 2.0, np.nan]), np.array([5.0, 1.0, 9.0, 7.0]))
    np.testing.assert_allclose(found["min"], [0.5, 0.25, 0.75, 0.25])
    np.testing.assert_allclose(found["sum 1:1"], [0.5, 0.625, 0.875, 0.5])
    np.testing.assert_allclose(found["sum 3:1"], [0.5, 0.8125, 0.8125, 0.375])


def line_of(name, key, value, setting="one", **more):
    auroc = {"planted": {"main": {"all": value, "answer_swap": value}}}
    return {"name": name, "key": key, "setting": setting, "epochs": 1.0, "auroc": auroc} | more


def test_the_table_keeps_settings_apart_and_joins_seeds():
    lines = [
        {"name": "start", "key": "", "setting": "one", "pool": 3},
        line_of("contrastive/1", "a", 0.1),
        line_of("contrastive/1", "a", 0.8),
        line_of("contrastive/2", "b", 0.6),
        line_of("contrastive/1", "c", 0.4, "two"),
        line_of("contrastive/1", "d", 0.3, epochs=2.0),
        {"name": "scored pool", "key": "e", "setting": "one", "rows": 9},
    ]
    text = table(lines)
    (both,) = [line for line in text.splitlines() if "x2" in line]
    assert both.split()[-2:] == ["±0.141", "0.700"]
    assert "contrastive, 2 epochs [main]" in text
    assert "0.400" in text
    assert "0.100" not in text
    assert "scored pool" not in text
    assert "0.400" not in table(lines, "one")
    assert "nothing is there yet" in table([], "one")


@torch.inference_mode()
def test_batched_answer_states_are_those_of_each_row_alone(llama, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    chat = ChatFormat(ChatConfig(template="tulu", max_length=64))
    tokenizer = AutoTokenizer.from_pretrained(llama)
    encoded = Rows(rows_of(17), chat, tmp_path).encoded(tokenizer)
    found = answer_states(model, encoded, 150)
    width = model.config.hidden_size
    assert len(set(encoded.lengths)) > 3
    for number, one in enumerate(encoded):
        ids = torch.from_numpy(one.ids.astype(np.int64))[None]
        states = model.model(input_ids=ids).last_hidden_state[0].numpy()
        for half, of in ((0, one.parts == Part.RESPONSE), (1, answer_ends(one.parts))):
            wanted = states[of].mean(axis=0) if of.any() else np.zeros(width)
            got = found[number, half * width : (half + 1) * width]
            np.testing.assert_allclose(got, wanted, atol=1e-5)


# ------------------------------------------------------------------------------ the base model


class Unchanged(nn.Module):
    def forward(self, states):
        return states


@torch.inference_mode()
def test_an_upcycled_model_without_norms_of_queries_and_keys_is_the_dense_one(llama):
    dense = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    probe = [np.arange(5, 40, dtype=np.int32)]
    model = upcycle(llama, probe, 8, 2, "cpu").eval()
    normed = model(input_ids=torch.from_numpy(probe[0].astype(np.int64))[None]).logits
    for layer in model.model.layers:
        layer.self_attn.q_norm = layer.self_attn.k_norm = Unchanged()
        layer.mlp.gate.weight.zero_()  # every slot then gives exactly an eighth
    ids = torch.randint(3, dense.config.vocab_size, (2, 31))
    torch.testing.assert_close(
        model(input_ids=ids).logits, dense(input_ids=ids).logits, rtol=1e-3, atol=1e-3
    )
    ids = torch.from_numpy(probe[0].astype(np.int64))[None]
    assert not torch.allclose(normed, dense(input_ids=ids).logits, rtol=1e-3, atol=1e-3)


def test_master_weights_keep_steps_that_bf16_cannot_hold():
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    masters = MasterWeights(layer)
    assert {weight.dtype for weight in layer.parameters()} == {torch.bfloat16}
    optimizer = torch.optim.SGD(masters.named.values(), lr=1e-3)
    for step in range(20):
        layer(torch.ones(1, 4, dtype=torch.bfloat16)).sum().backward()
        masters.take_gradients()
        assert layer.weight.grad is None
        optimizer.step()
        masters.give_back()
        if step == 0:
            assert (layer.weight == 1.0).all()  # 0.999 is nearer to 1 than to 0.996
    assert masters.named["weight"].dtype == torch.float32
    torch.testing.assert_close(masters.named["weight"].detach(), torch.full((4, 4), 0.98))
    torch.testing.assert_close(layer.weight.float(), torch.full((4, 4), 0.98), atol=4e-3, rtol=0)


def test_plain_text_is_cut_into_rows(llama, tmp_path):
    from evidence_base import plain_text

    with pytest.raises(FileNotFoundError, match="holds no"):
        plain_text(tmp_path, None, 1, 8)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        for number in range(5):
            file.write(json.dumps({"text": f"word {number} " * 30}) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(llama)
    found = plain_text(tmp_path, tokenizer, 3, 8)
    assert found.shape[1] == 8
    assert (found == tokenizer.eos_token_id).sum() in (2, 3)
