"""Attention within examples laid end to end, beside one that looks at every pair of tokens."""

import pytest
import torch
from llama_models import DIALECTS, attended
from torch import nn

from selectmoe_llama import attention as ways
from selectmoe_llama.attention import SPREAD, grouped, groups, varlen

LENGTHS = (17, 9, 8, 5, 1)
STARTS = torch.tensor([0, 17, 26, 34, 39, 40], dtype=torch.int32)


def inputs(heads=4, key_heads=2, size=8):
    made = torch.Generator().manual_seed(heads + key_heads)
    of = (heads, key_heads, key_heads)
    return [torch.randn(1, count, sum(LENGTHS), size, generator=made) for count in of]


def through_varlen(q, k, v, **options):
    return varlen(None, q, k, v, None, cu_seq_lens_q=STARTS, max_length_q=17, **options)[0]


def through_groups(q, k, v, **options):
    rows, back = groups(LENGTHS)
    return grouped(None, q, k, v, None, group_rows=rows, group_back=back, **options)[0]


@pytest.fixture(params=DIALECTS, ids=lambda known: "+".join(sorted(known)))
def dialect(request, monkeypatch):
    """Torch's function as a release has it, which refuses what that release does not know."""

    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, **options):
        assert options.keys() <= request.param
        assert torch.equal(cu_seq_q, STARTS)
        assert torch.equal(cu_seq_k, STARTS)
        assert max_q == max_k == 17
        times = query.shape[1] // key.shape[1]
        assert times == 1 or options.get("enable_gqa"), "fewer keys than queries"
        causal = options.get("is_causal") or options.get("window_size", (-1, -1))[1] == 0
        assert causal, "a token would see those behind it"
        left = options.get("window_size", (-1, 0))[0]
        return attended(
            *(x.transpose(0, 1) for x in (query, key, value)),
            STARTS.tolist(),
            scale=options.get("scale", query.shape[-1] ** -0.5),
            window=None if left < 0 else left + 1,
        )

    monkeypatch.setattr(ways, "varlen_attn", varlen_attn)
    monkeypatch.setattr(ways, "KNOWN", request.param)
    return request.param


@pytest.mark.parametrize("scaling", [None, 8**-0.5, 0.9])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_varlen_says_to_torch_what_transformers_asks_for(dialect, scaling, key_heads):
    q, k, v = inputs(key_heads=key_heads)
    scale = scaling or 8**-0.5
    # A release that knows no window is given no model that has one: see _fits_varlen.
    for window in (None, 1, 3, 9) if "window_size" in dialect else (None,):
        found = through_varlen(q, k, v, scaling=scaling, sliding_window=window)
        wanted = attended(q[0], k[0], v[0], STARTS.tolist(), scale=scale, window=window)
        assert found.shape == (1, 40, 4, 8)
        torch.testing.assert_close(found[0], wanted)


def test_varlen_computes_in_the_dtype_of_the_values(dialect):
    q, k, v = inputs(key_heads=4)
    assert through_varlen(q, k, v.to(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("scaling", [None, 0.9])
@pytest.mark.parametrize("window", [None, 1, 3, 9, 17])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_groups_attend_like_examples_alone(scaling, window, key_heads):
    q, k, v = (x.requires_grad_() for x in inputs(key_heads=key_heads))
    found = through_groups(q, k, v, scaling=scaling, sliding_window=window)[0]
    wanted = attended(q[0], k[0], v[0], STARTS.tolist(), scale=scaling or 8**-0.5, window=window)
    torch.testing.assert_close(found, wanted)
    chosen = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    own = torch.autograd.grad((found * chosen).sum(), (q, k, v))
    theirs = torch.autograd.grad((wanted * chosen).sum(), (q, k, v))
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_groups_hold_examples_of_like_length_and_every_token_once():
    rows, back = groups(LENGTHS)
    assert [tuple(row.shape) for row in rows] == [(2, 17), (2, 8), (1, 1)]
    assert all(SPREAD * min(len(set(one.tolist())) for one in row) >= row.shape[1] for row in rows)
    assert torch.equal(torch.cat([row.flatten() for row in rows])[back], torch.arange(40))


def test_a_window_needs_a_varlen_that_knows_it(monkeypatch):
    config = type("Config", (), {"hidden_size": 64, "num_attention_heads": 4, "sliding_window": 8})
    assert ways._fits_varlen(config)
    monkeypatch.setattr(ways, "KNOWN", frozenset({"is_causal"}))
    assert not ways._fits_varlen(config)
    config.sliding_window = None
    assert ways._fits_varlen(config)
    config.num_attention_heads = 16  # heads of 4 numbers
    assert not ways._fits_varlen(config)


def test_varlen_is_traced_whole_and_without_a_word(monkeypatch, recwarn):
    """Compiled layers call it: one graph, and nothing that Dynamo would have to guess about."""
    seen = nn.Linear(8, 8)
    monkeypatch.setattr(ways, "varlen_attn", lambda q, k, v, *_, **__: q + k.repeat(1, 2, 1))
    monkeypatch.setattr(ways, "KNOWN", DIALECTS[0])

    def layer(q, k, v, starts, longest):
        out, _ = varlen(
            None, seen(q), k, v, None, cu_seq_lens_q=starts, max_length_q=longest, scaling=0.3
        )
        return out

    torch.compiler.reset()
    compiled = torch.compile(layer, dynamic=True, backend="eager", fullgraph=True)
    q, k, v = inputs()
    torch.testing.assert_close(compiled(q, k, v, STARTS, 17), layer(q, k, v, STARTS, 17))
    assert not [str(one.message) for one in recwarn if "Dynamo" in str(one.message)]
