"""Whoever has the class can load a converted model: nothing has to be registered by hand."""

import json
import subprocess
import sys

from olmoe_models import olmoe, save

from selectmoe_core import Job, ModelRef
from selectmoe_olmoe.config import TrashcanConfig
from selectmoe_olmoe.convert.converter import TrashcanConverter

LOAD = """
import json, sys
import torch
from selectmoe_olmoe.model.modeling import SelectMoeForCausalLM

ids = torch.arange(2, 12)[None]
logits = []
for _ in "ab":
    model, info = SelectMoeForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
    logits.append(model.eval()(ids).logits.detach())
model.save_pretrained(sys.argv[2])
from transformers import AutoModelForCausalLM
again = AutoModelForCausalLM.from_pretrained(sys.argv[2]).eval()(ids).logits
with model.trash_disabled():
    without = model(ids).logits
print(json.dumps({
    "keys": {name: sorted(map(str, found)) for name, found in info.items()},
    "equal": torch.equal(*logits), "again": torch.equal(logits[0], again),
    "trash": not torch.equal(logits[0], without), "logits": without.tolist(),
}))
"""


def test_importing_the_class_is_enough(tmp_path):
    import torch

    source = save(olmoe(), tmp_path / "source")
    TrashcanConverter(TrashcanConfig()).convert(ModelRef(str(source)), tmp_path / "out", Job(42))
    command = [sys.executable, "-c", LOAD, str(tmp_path / "out"), str(tmp_path / "saved")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().rpartition("\n")[2])
    assert found["keys"]
    assert not any(found["keys"].values()), found["keys"]
    assert found["equal"]
    assert found["again"]
    assert found["trash"]
    plain = type(olmoe()).from_pretrained(source).eval()
    expected = plain(torch.arange(2, 12)[None]).logits
    assert torch.equal(torch.tensor(found["logits"]), expected)
