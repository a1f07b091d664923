"""Triton kernels of the packed decoder: each joins memory-bound steps into one pass.

``launches`` holds the functions that call them and says what they compute. Triton is imported
here at the top, so import this module only if Triton is installed. Row numbers are
64-bit: a batch's pairs times the hidden size exceed 32 bits.
"""

# ruff: noqa: ANN001, ANN201, D103, N803, SIM108
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def add_norm(x, delta, weight, total, normed, width, eps, ADD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    at = row * width + columns
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(delta + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(total + at, value.to(total.dtype.element_ty), mask=inside)
    scale = tl.rsqrt(tl.sum(value * value, axis=0) / width + eps)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + at, (value * scale * gain).to(normed.dtype.element_ty), mask=inside)


@triton.jit
def norm_rotary(
    x,
    stride,
    weight,
    cosines,
    sines,
    positions,
    out,
    out_stride,
    eps,
    heads,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (column < HALF)
    at = head * (2 * HALF) + column
    base = x + row * stride
    left = tl.load(base + at, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(base + at + HALF, mask=inside, other=0.0).to(tl.float32)
    square = tl.sum(tl.sum(left * left + right * right, axis=1), axis=0)
    scale = tl.rsqrt(square / (heads * 2 * HALF) + eps)
    left *= scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    right *= scale * tl.load(weight + at + HALF, mask=inside, other=0.0).to(tl.float32)
    angle = tl.load(positions + row).to(tl.int64) * HALF + column
    cosine = tl.load(cosines + angle)
    sine = tl.load(sines + angle)
    kind = out.dtype.element_ty
    to = out + row * out_stride + at
    tl.store(to, (left * cosine - right * sine).to(kind), mask=inside)
    tl.store(to + HALF, (right * cosine + left * sine).to(kind), mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def gate(
    hidden,
    weight,
    logits,
    index,
    scores,
    tokens,
    outputs,
    WIDTH: tl.constexpr,
    EXACT: tl.constexpr,
    NORMED: tl.constexpr,
    TOP_K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    real = row < tokens
    row64 = row.to(tl.int64)
    known = column < outputs
    product = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, WIDTH, STEP):
        at = start + tl.arange(0, STEP)
        a = tl.load(
            hidden + row64[:, None] * WIDTH + at[None, :],
            mask=real[:, None] & (at < WIDTH)[None, :],
            other=0.0,
        )
        b = tl.load(
            weight + column[None, :] * WIDTH + at[:, None],
            mask=known[None, :] & (at < WIDTH)[:, None],
            other=0.0,
        )
        if EXACT:
            product = tl.dot(a, b, product, input_precision="ieee")
        else:
            product = tl.dot(a, b, product)
    both = real[:, None] & known[None, :]
    tl.store(logits + row64[:, None] * outputs + column[None, :], product, mask=both)
    left = tl.where(known[None, :], product, float("-inf"))
    largest = tl.max(left, axis=1)
    mass = tl.sum(tl.exp(left - largest[:, None]), axis=1)
    chosen = tl.zeros((ROWS,), dtype=tl.float32) + 1.0
    if NORMED:
        rest = left
        chosen = tl.zeros((ROWS,), dtype=tl.float32)
        for _ in tl.static_range(TOP_K):
            best = tl.max(rest, axis=1)
            place = tl.argmax(rest, axis=1)
            chosen += tl.exp(best - largest) / mass
            rest = tl.where(column[None, :] == place[:, None], float("-inf"), rest)
    for slot in tl.static_range(TOP_K):
        best = tl.max(left, axis=1)
        # Ties go to the lowest column: regular experts come before the trash cans.
        place = tl.argmax(left, axis=1)
        tl.store(index + row64 * TOP_K + slot, place.to(tl.int32), mask=real)
        share = tl.exp(best - largest) / mass / chosen
        tl.store(scores + row64 * TOP_K + slot, share, mask=real)
        left = tl.where(column[None, :] == place[:, None], float("-inf"), left)


@triton.jit(do_not_specialize=["pairs", "blocks"])
def count(index, counts, pairs, blocks, BLOCK: tl.constexpr, EXPERTS: tl.constexpr, experts):
    block = tl.program_id(0)
    pair = block * BLOCK + tl.arange(0, BLOCK)
    expert = tl.arange(0, EXPERTS)
    own = tl.load(index + pair, mask=pair < pairs, other=EXPERTS)
    hits = (own[:, None] == expert[None, :]).to(tl.int32)
    tl.store(counts + expert * blocks + block, tl.sum(hits, axis=0), mask=expert < experts)


@triton.jit(do_not_specialize=["pairs", "blocks"])
def place(
    index,
    counts,
    running,
    position,
    pairs,
    blocks,
    BLOCK: tl.constexpr,
    EXPERTS: tl.constexpr,
    experts,
):
    block = tl.program_id(0)
    pair = block * BLOCK + tl.arange(0, BLOCK)
    expert = tl.arange(0, EXPERTS)
    known = expert < experts
    own = tl.load(index + pair, mask=pair < pairs, other=EXPERTS)
    hits = (own[:, None] == expert[None, :]).to(tl.int32)
    at = expert * blocks + block
    first = tl.load(running + at, mask=known, other=0) - tl.load(counts + at, mask=known, other=0)
    # A hit's rank within the block is the number of hits of its expert up to it.
    where = hits * (tl.cumsum(hits, axis=0) + first[None, :])
    found = tl.sum(where, axis=1) - 1
    found = tl.where(own < experts, found, -1)
    tl.store(position + pair, found, mask=pair < pairs)


@triton.jit
def spread(hidden, position, out, width, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(hidden + row * width + column, mask=inside)
    for slot in tl.static_range(TOP_K):
        target = tl.load(position + row * TOP_K + slot).to(tl.int64)
        # A trash can's slot has no row, so all its columns are masked.
        end = tl.where(target >= 0, width, 0)
        tl.store(out + target * width + column, value, mask=column < end)


@triton.jit
def silu_times(both, total, out, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    first = tl.program_id(0) * ROWS
    rows = tl.load(total)
    if first < rows:
        row = (first + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        column = tl.arange(0, BLOCK)[None, :]
        inside = (row < rows) & (column < width)
        base = both + row * (2 * width) + column
        gates = tl.load(base, mask=inside, other=0.0).to(tl.float32)
        ups = tl.load(base + width, mask=inside, other=0.0).to(tl.float32)
        value = gates / (1.0 + tl.exp(-gates)) * ups
        tl.store(out + row * width + column, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def combine(
    x,
    pairs,
    position,
    scores,
    weight,
    total,
    normed,
    width,
    eps,
    ADD: tl.constexpr,
    NORM: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    value = tl.zeros((BLOCK,), dtype=tl.float32)
    for slot in tl.static_range(TOP_K):
        source = tl.load(position + row * TOP_K + slot).to(tl.int64)
        share = tl.load(scores + row * TOP_K + slot)
        # A trash can's slot is never read: its memory was never written.
        end = tl.where(source >= 0, width, 0)
        part = tl.load(pairs + source * width + column, mask=column < end, other=0.0)
        value += share * part.to(tl.float32)
    at = row * width + column
    if ADD:
        value += tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(total + at, value.to(total.dtype.element_ty), mask=inside)
    if NORM:
        scale = tl.rsqrt(tl.sum(value * value, axis=0) / width + eps)
        gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(normed + at, (value * scale * gain).to(normed.dtype.element_ty), mask=inside)
