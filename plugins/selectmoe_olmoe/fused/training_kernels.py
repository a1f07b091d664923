"""Triton kernels of packed training: what the forward pass of scoring lacks, and all gradients.

``training_launches`` holds the functions that call them and says what they compute. Triton is
imported here at the top, so import this module only if Triton is installed. Row numbers
are 64-bit: a batch's pairs times the hidden size exceed 32 bits.
"""

# ruff: noqa: ANN001, ANN201, D103, N803
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def norm_backward(
    total,
    weight,
    grad,
    behind,
    out,
    gains,
    rows,
    width,
    eps,
    PER: tl.constexpr,
    BEHIND: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < width
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    sums = tl.zeros((BLOCK,), dtype=tl.float32)
    for number in range(PER):
        row = (program * PER + number).to(tl.int64)
        real = column < tl.where(row < rows, width, 0)
        at = row * width + column
        x = tl.load(total + at, mask=real, other=0.0).to(tl.float32)
        g = tl.load(grad + at, mask=real, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(x * x, axis=0) / width + eps)
        unit = x * scale
        inner = g * gain
        mean = tl.sum(unit * inner, axis=0) / width
        value = (inner - unit * mean) * scale
        if BEHIND:
            value += tl.load(behind + at, mask=real, other=0.0).to(tl.float32)
        tl.store(out + at, value.to(out.dtype.element_ty), mask=real)
        if WEIGHTED:
            sums += g * unit
    if WEIGHTED:
        tl.store(gains + program * width + column, sums, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def norm_rotary_backward(
    x,
    stride,
    weight,
    cosines,
    sines,
    positions,
    grad,
    out,
    gains,
    rows,
    eps,
    heads,
    PER: tl.constexpr,
    WEIGHTED: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    program = tl.program_id(0)
    head = tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (column < HALF)
    at = head * (2 * HALF) + column
    width = heads * 2 * HALF
    gain_left = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    gain_right = tl.load(weight + at + HALF, mask=inside, other=0.0).to(tl.float32)
    sums_left = tl.zeros((HEADS, HALF), dtype=tl.float32)
    sums_right = tl.zeros((HEADS, HALF), dtype=tl.float32)
    for number in range(PER):
        row = (program * PER + number).to(tl.int64)
        known = row < rows
        real = head + tl.zeros((1, HALF), dtype=tl.int32) < tl.where(known, heads, 0)
        angle = tl.load(positions + tl.where(known, row, 0)).to(tl.int64) * HALF + column
        cosine = tl.load(cosines + angle)
        sine = tl.load(sines + angle)
        base = grad + row * width
        turned_left = tl.load(base + at, mask=real, other=0.0).to(tl.float32)
        turned_right = tl.load(base + at + HALF, mask=real, other=0.0).to(tl.float32)
        grad_left = turned_left * cosine + turned_right * sine
        grad_right = turned_right * cosine - turned_left * sine
        left = tl.load(x + row * stride + at, mask=real, other=0.0).to(tl.float32)
        right = tl.load(x + row * stride + at + HALF, mask=real, other=0.0).to(tl.float32)
        square = tl.sum(tl.sum(left * left + right * right, axis=1), axis=0)
        scale = tl.rsqrt(square / width + eps)
        left *= scale
        right *= scale
        inner_left = grad_left * gain_left
        inner_right = grad_right * gain_right
        mean = tl.sum(tl.sum(left * inner_left + right * inner_right, axis=1), axis=0) / width
        kind = out.dtype.element_ty
        to = out + row * width + at
        tl.store(to, ((inner_left - left * mean) * scale).to(kind), mask=real)
        tl.store(to + HALF, ((inner_right - right * mean) * scale).to(kind), mask=real)
        if WEIGHTED:
            sums_left += grad_left * left
            sums_right += grad_right * right
    if WEIGHTED:
        tl.store(gains + program * width + at, sums_left, mask=inside)
        tl.store(gains + program * width + at + HALF, sums_right, mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def route_backward(
    logits,
    index,
    scores,
    of_scores,
    of_logits,
    out,
    tokens,
    outputs,
    SCORES: tl.constexpr,
    LOGITS: tl.constexpr,
    NORMED: tl.constexpr,
    TOP_K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.arange(0, COLUMNS)[None, :]
    real = row < tokens
    inside = real[:, None] & (column < outputs)
    at = row[:, None] * outputs + column
    value = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    if LOGITS:
        value += tl.load(of_logits + at, mask=inside, other=0.0)
    if SCORES:
        inner = tl.zeros((ROWS,), dtype=tl.float32)
        picked = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        share = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        for slot in tl.static_range(TOP_K):
            where = row * TOP_K + slot
            place = tl.load(index + where, mask=real, other=0)
            score = tl.load(scores + where, mask=real, other=0.0)
            grad = tl.load(of_scores + where, mask=real, other=0.0)
            inner += score * grad
            hit = column == place[:, None]
            picked += tl.where(hit, grad[:, None], 0.0)
            share += tl.where(hit, score[:, None], 0.0)
        if not NORMED:
            left = tl.load(logits + at, mask=inside, other=float("-inf"))
            left = tl.where(real[:, None], left, 0.0)
            mass = tl.exp(left - tl.max(left, axis=1)[:, None])
            share = mass / tl.sum(mass, axis=1)[:, None]
        value += share * (picked - inner[:, None])
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def silu_times_backward(
    both,
    grad,
    position,
    scores,
    out,
    of_scores,
    scaled,
    width,
    WEIGHTED: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    kind = out.dtype.element_ty
    for slot in tl.static_range(TOP_K):
        source = tl.load(position + row * TOP_K + slot).to(tl.int64)
        share = tl.load(scores + row * TOP_K + slot)
        inside = (column < width) & (source >= 0)
        at = source * (2 * width) + column
        gates = tl.load(both + at, mask=inside, other=0.0).to(tl.float32)
        ups = tl.load(both + at + width, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(grad + source * width + column, mask=inside, other=0.0).to(tl.float32)
        gain = 1.0 / (1.0 + tl.exp(-gates))
        acted = gates * gain * ups
        tl.store(of_scores + row * TOP_K + slot, tl.sum(g * acted, axis=0))
        g *= share
        tl.store(out + at, (g * ups * gain * (1.0 + gates * (1.0 - gain))).to(kind), mask=inside)
        tl.store(out + at + width, (g * gates * gain).to(kind), mask=inside)
        if WEIGHTED:
            tl.store(scaled + source * width + column, (acted * share).to(kind), mask=inside)


@triton.jit
def cross_entropy(
    logits,
    labels,
    weights,
    losses,
    VOCABULARY: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    base = logits + row * VOCABULARY
    label = tl.load(labels + row)
    weight = tl.load(weights + row)
    lanes = tl.arange(0, BLOCK)
    largest = tl.zeros((BLOCK,), dtype=tl.float32) - float("inf")
    mass = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, VOCABULARY, BLOCK):
        column = start + lanes
        value = tl.load(base + column, mask=column < VOCABULARY, other=0.0).to(tl.float32)
        value = tl.where(column < VOCABULARY, value, -1e30)
        above = tl.maximum(largest, value)
        mass = mass * tl.exp(largest - above) + tl.exp(value - above)
        largest = above
    most = tl.max(largest, axis=0)
    total = tl.log(tl.sum(mass * tl.exp(largest - most), axis=0)) + most
    own = tl.load(base + label).to(tl.float32)
    tl.store(losses + row, (total - own) * weight)
    if GRADIENT:
        tl.debug_barrier()  # the label's logit is read before it is overwritten
        for start in range(0, VOCABULARY, BLOCK):
            column = start + lanes
            inside = column < VOCABULARY
            value = tl.load(base + column, mask=inside, other=0.0).to(tl.float32)
            value = tl.exp(value - total) - tl.where(column == label, 1.0, 0.0)
            tl.store(base + column, (value * weight).to(logits.dtype.element_ty), mask=inside)
