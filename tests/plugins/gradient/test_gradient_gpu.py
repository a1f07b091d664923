"""On a GPU: the same random numbers, compiled kernels, and vectors close to the CPU's."""

import numpy as np
import pytest
import torch
from less_reference import trainable
from llama_models import TINY
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cosine_similarity
from transformers import LlamaConfig, LlamaForCausalLM

from selectmoe_core.models import padded
from selectmoe_gradient.directions import Adam, Direction
from selectmoe_gradient.gradients import ProjectedGradients
from selectmoe_gradient.projection import Projector
from selectmoe_gradient.random_signs import signs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def test_signs_are_those_of_the_cpu():
    assert torch.equal(signs(5, 3, 70, 200, "cuda").cpu(), signs(5, 3, 70, 200, "cpu"))


@pytest.mark.parametrize("kind", ["count-sketch", "rademacher"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_projections_are_those_of_the_cpu_compiled_too(kind, dtype):
    generator = torch.Generator().manual_seed(4)
    gradients = torch.randn(5, 3000, generator=generator).to(dtype)
    first, second = torch.randn(3000, generator=generator), torch.rand(3000, generator=generator)
    found = {}
    for device, compiled in (("cpu", False), ("cuda", False), ("cuda", True)):
        made = Projector(kind, 256, 9, device, compiled=compiled).weights({"w": 3000})["w"]
        pair = (made.arranged(values.to(device)) for values in (first, second))
        chosen = Direction(*pair, Adam(7).factors("paper", device))
        for name, taken in (("adam", chosen), ("plain", None)):
            result = made.project(gradients.to(device), taken).cpu()
            expected = found.setdefault(name, result)
            torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 0.9999), (torch.bfloat16, 0.98)])
def test_vectors_are_close_to_those_of_the_cpu(dtype, least):
    torch.manual_seed(5)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=targets)
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**TINY)), lora).eval()
    with torch.no_grad():
        for weight in trainable(model).values():
            weight.normal_(0, 0.1)
    chosen = np.random.default_rng(4)
    ids = [chosen.integers(1, 260, length) for length in (40, 33, 20, 9)]
    masks = [np.arange(len(one)) > len(one) // 2 for one in ids]
    rows = np.arange(4)
    expected = ProjectedGradients(model, Projector("count-sketch", 512, 3, "cpu")).vectors(
        padded(rows, ids, masks, "cpu"), None
    )
    made = ProjectedGradients(
        model.to("cuda", dtype), Projector("count-sketch", 512, 3, "cuda", compiled=True)
    ).vectors(padded(rows, ids, masks, "cuda"), None)
    assert cosine_similarity(made.cpu(), expected).min() > least
