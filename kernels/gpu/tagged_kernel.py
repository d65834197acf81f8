"""One stream in the least time: a group of N CTAs holds the dense weights in registers.

A sample is four exchanges through global memory, in which no CTA waits for a barrier of all:

    h_c = cell(...), own U units                              -> gather of h_c
    relu(O1 h_c), own V rows; O2's columns of these rows      -> sum of the logits; all draw c
    h_f = cell(..., c), own U units                           -> gather of h_f
    relu(O3 h_f), O4 likewise                                 -> sum of the logits; all draw f

R[:, coarse] h_c and R[:, fine] h_f are computed while the logits are on their way. A gathered word
is `epoch << 32 | float32`; a sum is one int64 a logit, whose upper bits count contributions (see
`tagged_exchange`). One word a value is enough: what a CTA writes to it next follows from exchanges
to which the others came after they had read it. The host clears all words before a launch, so that
a launch depends on no other, be it one that gave up.

Launch: lanes * N programs of WARPS warps, all on the device at once; group i runs lane i, and
groups never meet. `tagged_pack` says how the weights lie. A row of a matrix belongs to a warp and
its columns to the lanes of it, so that a product is summed by shuffles and the gates are where it
ends; every warp has all logits, so that drawing needs no barrier.
"""

from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from wavernn.kernels.gpu import step
from wavernn.kernels.gpu.tagged_exchange import LOST, agree, contribute, gather, publish
from wavernn.kernels.gpu.tagged_step import (
    conditioned,
    draw,
    matrices,
    partial_logits,
    products,
    spread,
    three,
)

LOG2_E = tl.constexpr(1.4426950408889634)


@gluon.jit(do_not_specialize=["start", "rows", "samples", "limit"])
def tagged_kernel(
    R_ptr,
    O1_ptr,
    O2_ptr,
    b1_ptr,
    b2_ptr,
    past_c_ptr,
    past_f_ptr,
    now_ptr,
    words_ptr,
    sums_ptr,
    failed_ptr,
    h_ptr,
    code_ptr,
    sample_ptr,
    memory_ptr,
    stream_ptr,
    steps_ptr,
    gates_ptr,
    temperature_ptr,
    codes_ptr,
    audio_ptr,
    uniform_ptr,
    known_ptr,
    logits_ptr,
    start,
    rows,
    samples,
    limit,
    HALF: tl.constexpr,
    N: tl.constexpr,
    U: tl.constexpr,
    V: tl.constexpr,
    HP: tl.constexpr,
    HOP: tl.constexpr,
    A: tl.constexpr,
    KNOWN: tl.constexpr,
    WARPS: tl.constexpr,
    E: tl.constexpr,
):
    """Makes the next samples of each lane; `Call` says of what."""
    K: tl.constexpr = HP // 2
    ROWS: tl.constexpr = gl.BlockedLayout([1, 4], [1, 32], [WARPS, 1], [1, 0])
    LEVEL_ROWS: tl.constexpr = gl.BlockedLayout([1, V // 2], [32, 1], [WARPS, 1], [1, 0])
    COLUMN: tl.constexpr = gl.SliceLayout(0, ROWS)
    # `product` leaves its sums where pairs side by side put them
    PAIRS: tl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [WARPS, 1], [1, 0])
    LEVEL_PAIRS: tl.constexpr = gl.BlockedLayout([1, V], [32, 1], [WARPS, 1], [1, 0])
    UNIT: tl.constexpr = gl.SliceLayout(1, PAIRS)
    LEVEL: tl.constexpr = gl.SliceLayout(1, LEVEL_PAIRS)
    WORDS: tl.constexpr = gl.BlockedLayout([E], [32], [WARPS], [0])
    SUM_E: tl.constexpr = 8 // WARPS
    SUMS: tl.constexpr = gl.BlockedLayout([SUM_E], [32], [WARPS], [0])
    # all levels in every warp
    LEVELS: tl.constexpr = gl.BlockedLayout([8], [32], [WARPS], [0])
    PLAIN: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])

    lane = gl.program_id(0) // N
    cta = gl.program_id(0) % N
    b = gl.load(stream_ptr + lane).to(gl.int64)
    steps = gl.load(steps_ptr + lane)
    unit = cta * U + gl.arange(0, U, layout=UNIT)
    # what lies beyond is padding; a lane without steps has no row of gate input either
    real = (unit < HALF) & (steps > 0)

    # the weights stay in registers for the whole launch
    ur_cc, rr_cc, er_cc = matrices(R_ptr + (cta * 4 + 0) * 3 * U * K, (U, K), ROWS)
    ur_cf, rr_cf, er_cf = matrices(R_ptr + (cta * 4 + 1) * 3 * U * K, (U, K), ROWS)
    ur_fc, rr_fc, er_fc = matrices(R_ptr + (cta * 4 + 2) * 3 * U * K, (U, K), ROWS)
    ur_ff, rr_ff, er_ff = matrices(R_ptr + (cta * 4 + 3) * 3 * U * K, (U, K), ROWS)
    row = gl.arange(0, V, layout=gl.SliceLayout(1, ROWS))
    at = row[:, None] * K + gl.arange(0, K, layout=COLUMN)[None, :]
    O1 = gl.load(O1_ptr + cta * 2 * V * K + at)
    O3 = gl.load(O1_ptr + (cta * 2 + 1) * V * K + at)
    row = gl.arange(0, V, layout=UNIT)
    b1 = gl.load(b1_ptr + cta * 2 * V + row)
    b3 = gl.load(b1_ptr + (cta * 2 + 1) * V + row)
    level = gl.arange(0, 256, layout=gl.SliceLayout(1, LEVEL_ROWS))
    column = gl.arange(0, V // 2, layout=gl.SliceLayout(0, LEVEL_ROWS))
    at = level[:, None] * (V // 2) + column[None, :]
    O2 = gl.load(O2_ptr + cta * 256 * V + at)
    O4 = gl.load(O2_ptr + cta * 256 * V + 128 * V + at)
    level = gl.arange(0, 256, layout=LEVEL)
    # a bias is added by one CTA of the group
    first = level * 0 + cta == 0
    b2 = gl.load(b2_ptr + level, mask=first, other=0.0)
    b4 = gl.load(b2_ptr + 256 + level, mask=first, other=0.0)

    # where this CTA writes and reads; words beyond the last unit that anyone writes meet weights
    # of zero, and stand for others
    word = gl.arange(0, HP, layout=WORDS)
    word_ptr = words_ptr + lane * 2 * HP + word % (N * U)
    unit_ptr = words_ptr + lane * 2 * HP + unit
    sum_ptr = sums_ptr + lane * 512 + gl.arange(0, 256, layout=SUMS)
    part_ptr = sums_ptr + lane * 512 + level
    before_c = gl.full([256], 0, gl.int64, layout=SUMS)
    before_f = gl.full([256], 0, gl.int64, layout=SUMS)
    shared_h = gl.allocate_shared_memory(gl.float32, [HP], PLAIN)
    shared_y = gl.allocate_shared_memory(gl.float32, [V], PLAIN)
    shared_logits = gl.allocate_shared_memory(gl.float32, [256], PLAIN)

    past_c_ptr += cta * 512 * U + gl.arange(0, U, layout=UNIT)
    past_f_ptr += cta * 512 * U + gl.arange(0, U, layout=UNIT)
    now_ptr += cta * 256 * U + gl.arange(0, U, layout=UNIT)
    gates_ptr += b * rows * 6 * HALF + unit
    phase = ((gl.load(sample_ptr + b) - start) % HOP).to(gl.int32)
    scale = LOG2_E / gl.load(temperature_ptr + b)
    c = gl.load(code_ptr + b * 2)
    f = gl.load(code_ptr + b * 2 + 1)
    x = gl.load(memory_ptr + b)
    at_0 = b * samples + start
    u_0 = 0.0
    u_1 = 0.0

    # what the first sample adds to: R h_{t-1}, the gate input and the rows of c_{t-1}
    h_c = gl.load(h_ptr + b * 2 * HALF + unit, mask=real, other=0.0)
    h_f = gl.load(h_ptr + b * 2 * HALF + HALF + unit, mask=real, other=0.0)
    all_ptr = h_ptr + b * 2 * HALF + word
    low, high = spread(shared_h, gl.load(all_ptr, mask=word < HALF, other=0.0), HP, COLUMN)
    Ru_c, Rr_c, Re_c = products(ur_cc, rr_cc, er_cc, low, high)
    Ru_f, Rr_f, Re_f = products(ur_fc, rr_fc, er_fc, low, high)
    low, high = spread(shared_h, gl.load(all_ptr + HALF, mask=word < HALF, other=0.0), HP, COLUMN)
    u, r, e = products(ur_cf, rr_cf, er_cf, low, high)
    Ru_c, Rr_c, Re_c = Ru_c + u, Rr_c + r, Re_c + e
    u, r, e = products(ur_ff, rr_ff, er_ff, low, high)
    Ru_f, Rr_f, Re_f = Ru_f + u, Rr_f + r, Re_f + e
    row_ptr = gates_ptr + ((phase + start) // HOP).to(gl.int64) * (6 * HALF)
    past = past_c_ptr + c * 2 * U
    Iu_c, Ir_c, Ie_c = conditioned(row_ptr, gl.load(past), real, HALF)
    Iu_f, Ir_f, Ie_f = conditioned(row_ptr + HALF, gl.load(past + U), real, HALF)

    # else each sample would wait for the reads above
    tl.debug_barrier()
    t = 0
    while t < steps:
        epoch = t + 1
        past = past_f_ptr + f * 2 * U
        past_f_c, past_f_f = gl.load(past), gl.load(past + U)
        if not KNOWN:
            u_0 = gl.load(uniform_ptr + (at_0 + t) * 2)
            u_1 = gl.load(uniform_ptr + (at_0 + t) * 2 + 1)

        # coarse half, equation 2
        u, r, e = three(past_f_c)
        h_c = step.cell(h_c, Ru_c + Iu_c + u, Rr_c + Ir_c + r, Re_c, Ie_c + e)
        publish(unit_ptr, h_c, epoch)
        u, r, e = three(past_f_f)
        Iu_f, Ir_f, Ie_f = Iu_f + u, Ir_f + r, Ie_f + e
        value = gather(word_ptr, epoch, limit, failed_ptr, E)
        low, high = spread(shared_h, value, HP, COLUMN)
        part = partial_logits(shared_y, O1, b1, O2, b2, low, high, V, gl.SliceLayout(0, LEVEL_ROWS))
        contribute(part_ptr, part)
        Nu_c, Nr_c, Ne_c = products(ur_cc, rr_cc, er_cc, low, high)
        Nu_f, Nr_f, Ne_f = products(ur_fc, rr_fc, er_fc, low, high)
        value, before_c = agree(sum_ptr, before_c, N, limit, failed_ptr, SUM_E)
        shared_logits.store(value)
        logits = shared_logits.load(LEVELS)
        c, peak_c = draw(logits, u_0, scale)
        if KNOWN:
            c = gl.load(known_ptr + (at_0 + t) * 2).to(gl.int32)
            levels = gl.arange(0, 256, layout=LEVELS)
            gl.store(logits_ptr + (at_0 + t) * 512 + levels, logits, mask=levels * 0 + cta == 0)

        # fine half
        past = past_c_ptr + c * 2 * U
        past_c_c, past_c_f = gl.load(past), gl.load(past + U)
        u, r, e = three(gl.load(now_ptr + c * U))
        h_f = step.cell(h_f, Ru_f + Iu_f + u, Rr_f + Ir_f + r, Re_f, Ie_f + e)
        publish(unit_ptr + HP, h_f, epoch)
        value = gather(word_ptr + HP, epoch, limit, failed_ptr, E)
        low, high = spread(shared_h, value, HP, COLUMN)
        part = partial_logits(shared_y, O3, b3, O4, b4, low, high, V, gl.SliceLayout(0, LEVEL_ROWS))
        contribute(part_ptr + 256, part)
        held = gl.minimum((phase + start + epoch) // HOP, rows - 1)
        row_ptr = gates_ptr + held.to(gl.int64) * (6 * HALF)
        Iu_c, Ir_c, Ie_c = conditioned(row_ptr, past_c_c, real, HALF)
        Iu_f, Ir_f, Ie_f = conditioned(row_ptr + HALF, past_c_f, real, HALF)
        u, r, e = products(ur_cf, rr_cf, er_cf, low, high)
        Ru_c, Rr_c, Re_c = Nu_c + u, Nr_c + r, Ne_c + e
        u, r, e = products(ur_ff, rr_ff, er_ff, low, high)
        Ru_f, Rr_f, Re_f = Nu_f + u, Nr_f + r, Ne_f + e
        value, before_f = agree(sum_ptr + 256, before_f, N, limit, failed_ptr, SUM_E)
        shared_logits.store(value)
        logits = shared_logits.load(LEVELS)
        f, peak_f = draw(logits, u_1, scale)
        if KNOWN:
            f = gl.load(known_ptr + (at_0 + t) * 2 + 1).to(gl.int32)
            levels = gl.arange(0, 256, layout=LEVELS) + 256
            gl.store(logits_ptr + (at_0 + t) * 512 + levels, logits, mask=levels * 0 + cta == 0)

        # step.de_emphasis
        y = (c * 256 + f - 32768).to(gl.float64) * 2**-15
        x = y + step.product(x, gl.full([], A, gl.float64))
        gl.store(codes_ptr + (at_0 + t) * 2, c.to(gl.uint8), mask=cta == 0)
        gl.store(codes_ptr + (at_0 + t) * 2 + 1, f.to(gl.uint8), mask=cta == 0)
        gl.store(audio_ptr + at_0 + t, step.clipped(x), mask=cta == 0)
        # every thread of the CTA finds the same where a wait gave up
        t = gl.where(gl.maximum(peak_c, peak_f) < LOST, epoch, steps)

    gl.store(h_ptr + b * 2 * HALF + unit, h_c, mask=real)
    gl.store(h_ptr + b * 2 * HALF + HALF + unit, h_f, mask=real)
    writes = (cta == 0) & (steps > 0)
    gl.store(code_ptr + b * 2, c, mask=writes)
    gl.store(code_ptr + b * 2 + 1, f, mask=writes)
    gl.store(sample_ptr + b, gl.load(sample_ptr + b) + steps, mask=writes)
    gl.store(memory_ptr + b, x, mask=writes)
