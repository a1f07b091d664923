"""How many tokens a pass of LoRA gradients works on: what memory allows, whatever the model."""

from selectmoe_core.cost import Shape, activation_bytes
from selectmoe_gradient.passes import ACTIVATIONS, LEAST, MOST, SHARE, default_tokens


def shape(layers, hidden, intermediate, heads, vocabulary):
    return Shape.of(
        {
            "num_hidden_layers": layers,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_attention_heads": heads,
            "vocab_size": vocabulary,
        }
    )


LLAMA = shape(32, 4096, 11008, 32, 32000)
SMOL = shape(30, 576, 1536, 9, 49152)
NANO = shape(2, 64, 128, 4, 2048)


def test_a_small_model_has_more_tokens_and_no_more_memory():
    large, small = (default_tokens(of, "bfloat16", None) for of in (LLAMA, SMOL))
    assert 4096 <= large < 4400  # what was measured, and fits 80 GB beside the weights
    assert 5 * large < small < MOST
    for of, tokens in ((LLAMA, large), (SMOL, small)):
        assert activation_bytes(of, tokens, "bfloat16", recompute=False) <= ACTIVATIONS
        assert activation_bytes(of, tokens + 1, "bfloat16", recompute=False) > ACTIVATIONS
    assert default_tokens(NANO, "bfloat16", None) == MOST


def test_no_pass_takes_more_than_its_share_of_what_is_free():
    for free in (4e9, 12e9, 20e9):
        tokens = default_tokens(SMOL, "bfloat16", free)
        assert activation_bytes(SMOL, tokens, "bfloat16", recompute=False) <= SHARE * free
    assert default_tokens(SMOL, "bfloat16", 1e12) == default_tokens(SMOL, "bfloat16", None)
    assert default_tokens(LLAMA, "bfloat16", 1e6) == LEAST


def test_an_unknown_architecture_has_the_tokens_of_a_large_one():
    assert default_tokens(None, "bfloat16", 80e9) == 4096
