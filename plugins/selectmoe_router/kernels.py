"""Triton kernels that turn a layer's router logits into means over the tokens of each example.

They compute what ``statistics`` and ``measures`` define, in fp32. Each statistic of the table has
an argument here, its upper-case name: the column that it is written to, negative where the router
does not have it. Triton is imported here at the top, so import this module only if Triton is
installed.
"""

# ruff: noqa: ANN001, ANN201, D103, N803
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def largest(probs, eligible, column, experts, ROWS: tl.constexpr, TOP_K: tl.constexpr):
    """Take the largest eligible probabilities; return their sum and how many are regular."""
    rest = tl.where(eligible, probs, -1.0)
    mass = tl.zeros((ROWS,), dtype=tl.float32)
    regular = tl.zeros((ROWS,), dtype=tl.float32)
    for _ in tl.static_range(TOP_K):
        # Ties go to the lowest column: a regular expert comes before a trash can.
        best = tl.argmax(rest, axis=1)
        mass += tl.max(rest, axis=1)
        regular += (best < experts).to(tl.float32)
        rest = tl.where(column[None, :] == best[:, None], -1.0, rest)
    return mass, regular


@triton.jit(do_not_specialize=["tokens"])
def of_tokens(
    logits,
    counted,
    out,
    tokens,
    experts,
    outputs,
    TRASH_MASS: tl.constexpr,
    TRASH_SLOTS: tl.constexpr,
    TOPK_RATIO: tl.constexpr,
    LOGIT_SUM: tl.constexpr,
    FEATURES: tl.constexpr,
    TOP_K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    real = row < tokens
    known = (column < outputs)[None, :]
    regular = (column < experts)[None, :]
    row = row.to(tl.int64)
    values = tl.load(
        logits + row[:, None] * outputs + column[None, :],
        mask=real[:, None] & known,
        other=float("-inf"),
    ).to(tl.float32)
    # Tokens that do not count are zero from here on, so a mean needs only sums.
    keep = tl.load(counted + row, mask=real, other=0) != 0
    values = tl.where(real[:, None], values, 0.0)
    values = tl.where(known, values, float("-inf"))
    exponents = tl.exp(values - tl.max(values, axis=1)[:, None])
    probs = exponents / tl.sum(exponents, axis=1)[:, None]
    base = out + row * WIDTH
    if TRASH_MASS >= 0:
        mass = 1.0 - tl.sum(tl.where(regular, 0.0, probs), axis=1)
        tl.store(base + TRASH_MASS, tl.where(keep, mass, 0.0), mask=real)
    if TRASH_SLOTS >= 0:
        _, slots = largest(probs, known, column, experts, ROWS, TOP_K)
        tl.store(base + TRASH_SLOTS, tl.where(keep, slots / TOP_K, 0.0), mask=real)
    if TOPK_RATIO >= 0:
        ratio, _ = largest(probs, regular, column, experts, ROWS, TOP_K)
        tl.store(base + TOPK_RATIO, tl.where(keep, ratio, 0.0), mask=real)
    if LOGIT_SUM >= 0:
        total = tl.sum(tl.where(regular, values, 0.0), axis=1)
        tl.store(base + LOGIT_SUM, tl.where(keep, total, 0.0), mask=real)
    if FEATURES >= 0:
        tl.store(
            base[:, None] + FEATURES + column[None, :],
            tl.where(keep[:, None], probs, 0.0),
            mask=real[:, None] & known,
        )


@triton.jit
def of_examples(
    values,
    starts,
    counts,
    out,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    example = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (column < WIDTH)[None, :]
    start = tl.load(starts + example)
    stop = tl.load(starts + example + 1)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    row = start + tl.arange(0, ROWS)
    while start < stop:
        at = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
        total += tl.load(values + at, mask=(row < stop)[:, None] & inside, other=0.0)
        row += ROWS
        start += ROWS
    mean = tl.sum(total, axis=0) / tl.load(counts + example)
    tl.store(out + example * WIDTH + column, mean, mask=column < WIDTH)
