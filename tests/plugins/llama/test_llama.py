import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from llama_models import (
    ADAPTER,
    Examples,
    conversations,
    example,
    job,
    llama,
    options,
    tokenizer,
    train,
)
from peft import AutoPeftModelForCausalLM, PeftModel
from ports import held_port
from safetensors.torch import load_file, save_file
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM

from selectmoe_core.errors import ModelError, StageError
from selectmoe_core.models.models import ModelRef, Models
from selectmoe_llama.adapter import load_with_lora
from selectmoe_llama.attention import GROUPED, PADDED, Attention, attention_for
from selectmoe_llama.batches import Collator, Place, TrainingRows
from selectmoe_llama.card import write_card
from selectmoe_llama.config import LoraTrainingConfig
from selectmoe_llama.packed_model import PackedModel
from selectmoe_llama.trainer import LlamaLora, build_trainer


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> ModelRef:
    return llama(tmp_path_factory.mktemp("llama"))


def plain_loss(model, rows, per_example):
    """Every example alone, position by position."""
    sums, counts = [], []
    for number in range(len(rows)):
        encoded = rows.encoded[int(rows.rows[number])]
        ids = torch.from_numpy(encoded.ids.astype(np.int64))
        logs = log_softmax(model(input_ids=ids[None], use_cache=False).logits[0].float(), dim=-1)
        counted = rows.encoded.chat.counts(encoded.parts)
        terms = [-logs[t - 1, ids[t]] for t in range(1, len(ids)) if counted[t]]
        sums.append(torch.stack(terms).sum())
        counts.append(len(terms))
    if per_example:
        return sum(total / count for total, count in zip(sums, counts, strict=True)) / len(sums)
    return sum(sums) / sum(counts)


@pytest.mark.parametrize("average", ["token", "example"])
@pytest.mark.parametrize(
    ("packing", "tokens", "count", "passes"),
    [(True, 2048, 5, 1), (True, 120, 7, None), (True, 1, 3, 3), (False, 2048, 4, 1)],
)
def test_packed_loss_and_gradient_equal_those_of_separate_examples(
    base, tmp_path, average, packing, tokens, count, passes
):
    made = job(tmp_path, base, chat={"average": average, "loss_on": "everything"})
    source = Examples(conversations(count, seed=count), tmp_path / "encoded", made.chat)
    config = options(lora_dropout=0.0, packing=packing, pass_tokens=tokens, batch_size=count)
    model = load_with_lora(base, config, made)
    speaking(model)
    rows = TrainingRows(source.encoded(tokenizer()))
    expected = plain_loss(model, rows, average == "example")
    expected.backward()
    wanted = {n: w.grad.clone() for n, w in model.named_parameters() if w.requires_grad}
    model.zero_grad()

    trainer = build_trainer(config, model, rows, made)
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, "cpu")
    found = len(batches[0]["passes"])
    loss = trainer.training_step(trainer.model, batches[0])

    assert found == passes or (passes is None and found > 1)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(weight.grad, wanted[name], atol=2e-5, rtol=1e-4)
            assert weight.grad.abs().max() > 0


def speaking(model):
    """LoRA weights change nothing at first: give them something to say."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)


def one_pass_of(rows, count, attention):
    return Collator(attention)([rows[Place(n)] for n in range(count)])["passes"][0]


def test_packing_really_separates(base, tmp_path):
    """The same pass as one long document gives another loss."""
    made = job(tmp_path, base)
    source = Examples(conversations(4), tmp_path / "encoded", made.chat)
    rows = TrainingRows(source.encoded(tokenizer()))
    attention = attention_for({}, "cpu", "float32", packing=True)
    assert attention.name == GROUPED
    apart = one_pass_of(rows, 4, attention)
    together = {n: apart[n] for n in ("input_ids", "predicting", "targets", "weights")}
    network = load_with_lora(base, options(lora_dropout=0.0), made)
    with torch.no_grad():
        kept = PackedModel(network, attention)(**apart)
        mixed = PackedModel(network, Attention(PADDED, packed=False))(**together)
    assert abs(kept - mixed) > 0.1


@pytest.fixture(scope="module")
def one_pass(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    _, out = train(base, conversations(19), folder, options(lora_dropout=0.0, per_device_batch=8))
    return load_file(out / ADAPTER)


@pytest.mark.parametrize(("batch", "packing"), [(1, True), (3, True), (4, False)])
def test_accumulation_equals_one_large_batch(base, tmp_path, one_pass, batch, packing):
    config = options(lora_dropout=0.0, per_device_batch=batch, packing=packing)
    _, out = train(base, conversations(19), tmp_path, config)
    found = load_file(out / ADAPTER)
    assert found.keys() == one_pass.keys()
    for name, weight in found.items():
        torch.testing.assert_close(weight, one_pass[name], atol=2e-4, rtol=1e-3)


def test_activation_checkpointing_changes_nothing(base, tmp_path, one_pass):
    config = options(lora_dropout=0.0, per_device_batch=8, activation_checkpointing=True)
    _, out = train(base, conversations(19), tmp_path, config)
    for name, weight in load_file(out / ADAPTER).items():
        torch.testing.assert_close(weight, one_pass[name], atol=2e-4, rtol=1e-3)


def counted_text(rows, item):
    row = rows[Place(item)]
    return tokenizer().decode([int(i) for i, w in zip(row.ids, row.weights, strict=True) if w])


def test_only_answers_are_targets(base, tmp_path):
    made = job(tmp_path, base)
    examples = [example("what?", "this", "and?", "that one")]
    rows = TrainingRows(Examples(examples, tmp_path / "encoded", made.chat).encoded(tokenizer()))
    assert counted_text(rows, 0) == "this<eos>that one<eos>"
    row = rows[Place(0)]
    collated = Collator(Attention(GROUPED, grouped=True))([row, row])
    (one,) = collated["passes"]
    assert collated["totals"].tolist() == [2 * len(row.ids), 2 * row.weights.sum()]
    assert one["targets"].tolist() == 2 * row.ids[row.weights > 0].tolist()
    assert one["input_ids"][0, one["predicting"] + 1].tolist() == one["targets"].tolist()


def test_the_prompt_is_no_target(base, tmp_path):
    """With all attention off the prompt, its tokens could be any: their loss is not in the sum."""
    made = job(tmp_path, base)
    rows = TrainingRows(
        Examples(conversations(3), tmp_path / "encoded", made.chat).encoded(tokenizer())
    )
    model = made.models.load(base, dtype="float32", device="cpu")
    (batch,) = Collator(Attention(PADDED, packed=False))([rows[Place(n)] for n in range(3)])[
        "passes"
    ]
    logs = log_softmax(model(input_ids=batch["input_ids"]).logits.float(), dim=-1)[:, :-1]
    every = -logs.gather(2, batch["input_ids"][:, 1:, None]).squeeze(2)
    weights = torch.zeros(batch["input_ids"].shape).flatten()
    weights[batch["predicting"] + 1] = batch["weights"]
    weights = weights.view_as(batch["input_ids"])
    expected = plain_loss(model, rows, per_example=False)
    found = (every * weights[:, 1:]).sum() / weights.sum()
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    assert every.mean().item() != pytest.approx(expected.item(), abs=1e-3)


def test_examples_in_which_nothing_counts_are_left_out_and_counted(base, tmp_path):
    examples = [*conversations(5), example("x" * 200, "never reached")]
    facts, _ = train(base, examples, tmp_path, options(max_steps=1), chat={"max_length": 150})
    assert (facts["examples"], facts["examples_without_a_counted_token"]) == (5, 1)


def test_nothing_to_learn_is_an_error(base, tmp_path):
    with pytest.raises(StageError, match="no token of the 2 examples counts") as caught:
        train(base, [example("x" * 99, "y"), example("z" * 99, "y")], tmp_path, options(),
              chat={"max_length": 50})  # fmt: skip
    assert "max_length" in caught.value.hint


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    facts, out = train(base, conversations(19), folder, options(merge=True))
    return facts, out


def test_the_adapter_loads_everywhere_and_merges(base, trained, tmp_path):
    _, out = trained
    ids = torch.randint(1, 257, (2, 40), generator=torch.Generator().manual_seed(1))
    models = job(tmp_path).models
    plain = AutoModelForCausalLM.from_pretrained(base.location)
    untouched = plain(ids).logits
    peft = PeftModel.from_pretrained(plain, out).eval()(ids).logits
    ours = models.load(ModelRef(str(out)), dtype="float32", device="cpu")(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(out.parent / "merged")
    assert merged.config.use_cache
    assert torch.equal(peft, ours)
    torch.testing.assert_close(merged(ids).logits, peft, atol=2e-4, rtol=1e-4)
    assert (peft - untouched).abs().max() > 0.05
    assert models.tokenizer(ModelRef(str(out))).eos_token == "<eos>"
    assert models.tokenizer(ModelRef(str(out.parent / "merged"))).eos_token == "<eos>"


def test_the_adapter_names_its_base_and_can_be_read(base, trained):
    facts, out = trained
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == base.location
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 16.0, 0.1)
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    weights = load_file(out / ADAPTER)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert sum(weight.numel() for weight in weights.values()) == facts["trainable_parameters"]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in out.iterdir())


def test_the_adapter_has_a_card_that_says_how_to_load_it(base, trained):
    facts, out = trained
    card = (out / "README.md").read_text()
    assert f"Base model: `{base.location}`" in card
    head = ModelCard.load(out / "README.md").data
    assert (head.library_name, head.pipeline_tag) == ("peft", "text-generation")
    assert head.tags == ["lora", "selectmoe"]
    assert head.base_model is None  # a folder's name is none of the hub's
    assert "| lora_alpha | 16.0 |" in card
    assert f"| steps | {facts['steps']} |" in card
    code = card.partition("```python\n")[2].partition("```")[0]
    names: dict = {}
    exec(code.replace("path/of/this/folder", str(out)), names)
    assert names["model"].peft_config["default"].r == 4
    assert names["tokenizer"].eos_token == "<eos>"


@pytest.mark.parametrize("name", ["meta-llama/Llama-2-7b-hf", "gpt2", "org/no"])
def test_the_card_of_an_adapter_names_a_model_of_the_hub(tmp_path, name):
    where = tmp_path / "snapshots" / "0123"
    made = job(tmp_path, ModelRef(name), models=SimpleNamespace(local=lambda _: where))
    facts = {"steps": 3, "examples": 4, "tokens": 5}
    write_card(tmp_path, ModelRef(name), LoraTrainingConfig(), facts, made)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == name
    assert "| examples | 4 |" in card.text


def test_an_adapter_of_a_bundled_model_loads_without_selectmoe(base, tmp_path):
    bundle = Models(bundled={"tiny": Path(base.location)})
    named = ModelRef("bundled:tiny")
    _, out = train(named, conversations(4), tmp_path, options(max_steps=1), models=bundle)
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == base.location
    AutoPeftModelForCausalLM.from_pretrained(out)


@pytest.mark.parametrize("targets", [("lm_head",), ("q_proj", "lm_head")])
@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_shares_its_weights_is_merged_as_it_was_trained(tmp_path, targets, tied):
    model = llama(tmp_path / "tied", tie_word_embeddings=tied)
    config = options(merge=True, target_modules=targets, learning_rate=0.05)
    _, out = train(model, conversations(19), tmp_path, config)
    ids = torch.randint(1, 257, (2, 40), generator=torch.Generator().manual_seed(1))
    plain = AutoModelForCausalLM.from_pretrained(model.location)
    untouched = plain(ids).logits
    adapted = PeftModel.from_pretrained(plain, out).eval()(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(out.parent / "merged")
    assert (adapted - untouched).abs().max() > 0.05
    torch.testing.assert_close(merged(ids).logits, adapted, atol=2e-4, rtol=1e-4)
    again = job(tmp_path).models.load(
        ModelRef(str(out.parent / "merged")), dtype="float32", device="cpu"
    )
    assert torch.equal(again(ids).logits, merged(ids).logits)


def test_facts_and_curve(base, tmp_path):
    curve = {}
    config = options(epochs=3, max_steps=None, learning_rate=0.02)
    facts, _ = train(base, conversations(19), tmp_path, config, metrics=curve.__setitem__)
    assert facts["steps"] == 9 == len(curve)  # 19 examples make 3 steps of 8 an epoch
    assert facts["epochs"] == 3
    assert facts["final_loss"] == curve[9]["loss"] < facts["first_loss"]
    assert {"loss", "learning_rate", "grad_norm"} <= curve[1].keys()
    assert curve[1]["learning_rate"] == 0.02
    assert facts["tokens_per_second"] * facts["seconds"] == pytest.approx(
        3 * facts["tokens"], rel=0.02
    )


def test_bf16_keeps_the_lora_weights_in_fp32(base, tmp_path):
    _, out = train(base, conversations(4), tmp_path, options(max_steps=2), dtype="bfloat16")
    assert {weight.dtype for weight in load_file(out / ADAPTER).values()} == {torch.float32}


def test_stdout_stays_empty(base, tmp_path, capsys):
    train(base, conversations(4), tmp_path, options(max_steps=2))
    assert capsys.readouterr().out == ""


def test_another_architecture_is_named(base, tmp_path):
    folder = tmp_path / "gpt2"
    shutil.copytree(base.location, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    made = job(tmp_path, ModelRef(str(folder)))
    with pytest.raises(ModelError, match="of type 'gpt2', which llama-lora cannot train") as caught:
        LlamaLora(options()).check(made)
    assert "llama" in caught.value.hint
    LlamaLora(options()).check(job(tmp_path, base))


def test_a_loss_that_is_not_finite_stops(base, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(base.location, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match="not finite at step 1"):
        train(ModelRef(str(folder)), conversations(4), tmp_path, options(max_steps=2))


def test_float16_is_refused(base, tmp_path):
    with pytest.raises(StageError, match="float16"):
        train(base, conversations(4), tmp_path, options(), dtype="float16")


TWO = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from llama_models import Examples, conversations, job, options
from selectmoe_core.runtime.distributed import current_world
from selectmoe_core.models.models import ModelRef, Models
from selectmoe_llama import trainer
from selectmoe_llama.trainer import LlamaLora
build = trainer.build_trainer
def watched(*arguments):
    made = build(*arguments)
    steps = list(made.sampler)
    assert min(place.passes for place in steps) > 1
    assert max(sum(p.number == n for p in steps[:4]) for n in range(4)) > 1
    return made
trainer.build_trainer = watched
base, folder, world = ModelRef(sys.argv[2]), Path(sys.argv[3]), current_world()
made = job(folder, base, world=world)
source = Examples(conversations(19), folder / f"encoded{world.rank}", made.chat)
config = options(lora_dropout=0.0, pass_tokens=100, checkpoint_minutes=1e-9)
LlamaLora(config).train(base, source, folder / "model", made)
"""


@pytest.mark.slow
def test_two_processes_of_several_passes_equal_one_pass(base, tmp_path, one_pass):
    (tmp_path / "two.py").write_text(TWO)
    tests = str(Path(__file__).parents[2] / "helpers")
    common = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, tmp_path / "two.py", tests, base.location, tmp_path]
    with held_port() as port:
        runs = [
            subprocess.Popen(
                command,
                env=common | {"MASTER_PORT": port, "RANK": str(r), "LOCAL_RANK": str(r)},
            )
            for r in range(2)
        ]
        assert [run.wait(timeout=600) for run in runs] == [0, 0]
    for name, weight in load_file(tmp_path / "model" / ADAPTER).items():
        torch.testing.assert_close(weight, one_pass[name], atol=2e-4, rtol=1e-3)
