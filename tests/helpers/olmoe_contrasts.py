"""The contrast the slow way: pair by pair, layer by layer, token by token, in doubles."""

import math

import torch

from selectmoe_core.data.examples import Example, Message, Part, content_id

EOS = 1
"""Closes every answer of the byte tokenizer's; no prompt holds it."""
LETTERS = list("abcdefgh ,.1234")


def conversations(random, count):
    """Draw conversations of one to three turns; most of three are longer than 150 tokens."""
    return [_conversation(random, 1 + number % 3) for number in range(count)]


def _conversation(random, turns):
    messages = []
    for _ in range(turns):
        for role in ("user", "assistant"):
            size = int(random.integers(4, 40))
            messages.append(Message(role, "w" + "".join(random.choice(LETTERS, size=size)) + "x"))
    return Example(content_id(messages).hex(), "test", tuple(messages))


def contrasted_places(encoded, tokens):
    """Return the places that the contrast looks at, found without looking at neighbours' parts."""
    places = range(len(encoded.ids))
    if tokens == "response":
        return [place for place in places if encoded.parts[place] == Part.RESPONSE]
    ends = [place for place in places if encoded.ids[place] == EOS]
    last = places[-1]
    inside = encoded.parts[last] == Part.RESPONSE and encoded.ids[last] != EOS
    return [*ends, last] if inside else ends


def slow_logit(probs, experts):
    """Return ``log(m / (1 - m))`` of the mean mass of some tokens' ``[tokens, outputs]``."""
    masses = [sum(token[experts:].tolist()) for token in probs]
    mean = sum(masses) / len(masses)
    return math.log(mean / (1 - mean))


def slow_joint(logits, weights, alike):
    """Return the joint logit of one row's logits, a list with one for each layer."""
    return sum(
        len(logits) * weight * (logit - alike)
        for logit, weight in zip(logits, weights, strict=True)
    )


def softplus(x):
    """Return ``log(1 + exp(x))``."""
    return math.log1p(math.exp(x)) if x < 30 else x


def slow_contrast(network, pairs, items, options):
    """Return the means over the pairs among ``items`` of cross-entropy and margin.

    Each example is read by itself, without padding. ``options`` are the warm-up's.
    """
    config, layers = network.config, network.config.num_hidden_layers
    given = options.get("layer_weights") or [1] * layers
    weights = [weight / sum(given) for weight in given]
    alike = math.log(config.num_trash_experts / config.num_experts)
    bce = margin = count = 0
    for item in items:
        if not pairs.kinds[item]:
            continue
        halves = []
        for encoded in (pairs.rows.encoded[int(pairs.rows.rows[item])], pairs.copies[item]):
            ids = torch.tensor([encoded.ids.tolist()])
            with torch.no_grad():
                routed = network(ids, output_router_logits=True, use_cache=False).router_logits
            at = contrasted_places(encoded, options["contrast_tokens"])
            probs = [layer.double().softmax(-1)[at] for layer in routed]
            logits = [slow_logit(one, config.num_experts) for one in probs]
            if options["contrast_layers"] == "together":
                logits = [slow_joint(logits, weights, alike)]
            halves.append(logits)
        of = [1.0] if options["contrast_layers"] == "together" else weights
        for clean, corrupted, weight in zip(*halves, of, strict=True):
            bce += weight * (softplus(clean) + softplus(-corrupted)) / 2
            margin += weight * softplus(clean - corrupted)
        count += 1
    return bce / count, margin / count
