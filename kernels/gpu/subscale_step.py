"""What a program of `subscale_kernel` computes of the context, for L lanes at once.

Values are [L, C]; rings keep what later ticks see, a slot a tick.
"""

from __future__ import annotations

import triton
import triton.language as tl

from wavernn.kernels.gpu.group_step import draw, product, write_logits


@triton.jit
def narrow(x):
    """X as a product takes it: float16, the largest for what is beyond."""
    return tl.minimum(tl.maximum(x, -65504.0), 65504.0).to(tl.float16)


@triton.jit
def taps(W, x, start, L: tl.constexpr):
    """W x + start for each lane: [L, R], of W [R, C] and x [L, C]."""
    return tl.trans(product(W, x, tl.trans(start), L))


@triton.jit
def held(W_ptr, number, R: tl.constexpr, C: tl.constexpr):
    """One of several matrices [R, C]."""
    # weights pass through registers, one after the other
    tl.debug_barrier()
    row = number * R + tl.arange(0, R)
    return tl.load(W_ptr + row[:, None] * C + tl.arange(0, C)[None, :])


@triton.jit
def present_column(
    x,
    present,
    ahead,
    columns_ptr,
    tick,
    kept,
    program,
    place,
    N: tl.constexpr,
    L: tl.constexpr,
    C: tl.constexpr,
    J: tl.constexpr,
):
    """The layers of a column: x_J of x_0, `ahead` being what earlier columns add within each.

    Their inputs go into the rings at `place` in a slot, each from another program.
    """
    for layer in tl.static_range(J):
        slot = (1 << layer) - 1 + (tick & ((1 << layer) - 1))
        x_16 = narrow(x)
        tl.store(columns_ptr + slot * (L * C) + place, x_16, mask=kept & (program == layer % N))
        x += tl.maximum(taps(present[layer], x_16, ahead[layer], L), 0.0)
    return x


@triton.jit
def earlier_taps(
    W,
    columns_ptr,
    bias_ptr,
    ahead_ptr,
    tick,
    number,
    L: tl.constexpr,
    C: tl.constexpr,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
):
    """Writes what earlier columns add at `tick`, of a tile of the rows of all layers."""
    real = number < TILES
    number = tl.minimum(number, TILES - 1)
    layer = number // (C // TILE)
    lane, row = tl.arange(0, L)[:, None], number * TILE + tl.arange(0, TILE)
    slot = (1 << layer) - 1 + (tick & ((1 << layer) - 1))
    place = slot * (L * C) + lane * C + tl.arange(0, C)[None, :]
    column = tl.load(columns_ptr + place, cache_modifier=".cg")
    start = tl.load(bias_ptr + row)[None, :] + tl.zeros([L, TILE], tl.float32)
    part = taps(W, column, start, L)
    place = layer * (L * C) + lane * C + row[None, :] - layer * C
    tl.store(ahead_ptr + place, part, mask=real & (lane >= 0))


@triton.jit
def before(x, lane):
    """For each lane what x has of the one before it; lane 0 has its own."""
    return tl.gather(x, tl.maximum(lane - 1, 0), 0)


@triton.jit
def elements(
    lanes_ptr,
    fine_ptr,
    program,
    tap,
    E: tl.constexpr,
    L: tl.constexpr,
    C: tl.constexpr,
    U: tl.constexpr,
):
    """The elements of e that a program sums, and what they are without samples: [E], [E, D]."""
    element = program * E + tl.arange(0, E)
    real = element < L * C
    element = tl.minimum(element, L * C - 1)
    lane, channel = element // C, element % C
    seen = (tap < U - 2)[None, :] & real[:, None]
    fine = tl.load(fine_ptr + (tap[None, :] + 1) * C + channel[:, None], mask=seen, other=0.0)
    return element, real, lane, channel, tl.load(lanes_ptr + element), fine


@triton.jit
def earlier_samples(
    own,
    made_ptr,
    coarse_ptr,
    ahead_ptr,
    tick,
    tap,
    F: tl.constexpr,
    L: tl.constexpr,
    C: tl.constexpr,
    U: tl.constexpr,
    MADE: tl.constexpr,
):
    """Writes what the samples d = 2 .. U - 1 before add at `tick`, of a program's `elements`.

    `tap` [D] counts d from 2.
    """
    element, real, lane, channel, e, fine = own
    # the lane d before made it (d - 1) (F + 1) + 1 ticks before; a tick may be below 0
    slot = (tick - 1 - (tap + 1) * (F + 1)) & (MADE - 1)
    seen = (lane[:, None] >= tap[None, :] + 2) & (tap < U - 2)[None, :]
    place = slot[None, :] * L + lane[:, None] - tap[None, :] - 2
    code = tl.load(made_ptr + place, mask=seen, other=-1, cache_modifier=".cg")
    row = ((tap[None, :] + 1) * 256 + (code >> 8)) * C + channel[:, None]
    added = tl.load(coarse_ptr + row, mask=code >= 0, other=0.0)
    added += tl.where(code >= 0, code & 255, 0).to(tl.float32) * fine
    tl.store(ahead_ptr + element, e + tl.sum(added, axis=1), mask=real)


@triton.jit
def level(
    low_ptr,
    logits_ptr,
    known_ptr,
    sample,
    running,
    first,
    scale,
    sharpness,
    uniform,
    HALF: tl.constexpr,
    SCORE: tl.constexpr,
):
    """Each lane's level of a half: from its logits, or one that is known, and logits written."""
    low = tl.load(low_ptr, cache_modifier=".cg")
    high = tl.load(low_ptr + 128, cache_modifier=".cg")
    if SCORE:
        to = logits_ptr + sample[:, None] * 512 + HALF * 256 + tl.arange(0, 128)[None, :]
        write_logits(to, low, high, scale, running & first)
        new = tl.load(known_ptr + sample * 2 + HALF, mask=running, other=0).to(tl.int32)
    else:
        new = draw(low, high, sharpness, uniform)
    return new
