"""N programs hold a dense voice together and make the samples of L lanes, exchange by exchange.

Program j of a group holds U units of each half of the state, the rows of R that they need, and a
slice of the heads' hidden layer with its columns of O2 and O4; all of it lies in shared memory
before the first sample. `group_pack.py` says how a voice is cut. Equation 2, for all lanes at once:

    coarse gates of U units -> y_c        exchange 1: every program reads all of y_c
    O1 slice -> relu -> O2 columns        exchange 2: the logits are the sum over all programs
    every program draws c, fine gates     exchange 3, as 1; exchange 4, as 2; every program draws f

R's columns of y_c ride in the product of exchange 2, those of y_f in that of exchange 4, so that
R h waits for the next sample. With many lanes a program draws for S of them, and two exchanges more
hand the codes round. What enters a product is rounded to float16, by definition of the format; sums
are float32, and logits are summed as whole numbers, whose sum is the same in any order.

A program that waited in vain leaves a mark in `failed` and writes no state.

Launch: grid = groups x N programs of 8 warps, all on the device at once. Bound: the exchanges, each
a round trip through the second-level cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from wavernn.kernels.gpu.group_exchange import add, arrive, wait
from wavernn.kernels.gpu.group_step import draw, head, inputs, put, rows, split, write_logits
from wavernn.kernels.gpu.step import cell


@triton.jit(do_not_specialize=["lanes", "start", "T", "gate_rows", "patience"])
def group_kernel(
    # the fields of a Call
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
    # the voice, `group_pack.Slabs`
    weights_ptr,
    heads_ptr,
    bias_ptr,
    rest_ptr,
    past_c_ptr,
    past_f_ptr,
    now_ptr,
    # what a group exchanges: float16 [groups, 2, L, HP], int32 [groups, 2, L, Q], int32
    # [groups, 2, L], and the arrivals, int32 [groups, LINE], which are 0
    x_ptr,
    sums_ptr,
    drawn_ptr,
    arrived_ptr,
    failed_ptr,
    lanes,
    start,
    T,
    gate_rows,
    scale_c,
    scale_f,
    patience,
    N: tl.constexpr,
    L: tl.constexpr,
    S: tl.constexpr,
    HH: tl.constexpr,
    U: tl.constexpr,
    HP: tl.constexpr,
    LINE: tl.constexpr,
    SHARE: tl.constexpr,
    HOP: tl.constexpr,
    A: tl.constexpr,
    SCORE: tl.constexpr,
):
    """See the head of this file; HH is H / 2, HOP and A are of the voice, SCORE takes codes."""
    H: tl.constexpr = 2 * HH
    G: tl.constexpr = 3 * H
    M: tl.constexpr = 8 * U
    K: tl.constexpr = HP // 2
    # 16 is the least that a product sums over
    P: tl.constexpr = 2 * U if U >= 8 else 16
    Q: tl.constexpr = 256
    j, group, groups = tl.program_id(0) % N, tl.program_id(0) // N, tl.num_programs(0) // N
    arrived_ptr += group * LINE
    x_ptr += group * (2 * L * HP)
    sums_ptr += group * (2 * L * Q)
    drawn_ptr += group * (2 * L)
    past_c_ptr += j * (Q * 6 * U)
    past_f_ptr += j * (Q * 6 * U)
    now_ptr += j * (Q * 3 * U)
    l, u, m, k = tl.arange(0, L), tl.arange(0, U), tl.arange(0, M), tl.arange(0, K)
    p, q, half_q = tl.arange(0, P), tl.arange(0, Q), tl.arange(0, Q // 2)

    # weights, one after the other: each passes through registers
    o_ptr = heads_ptr + j * (2 * Q * P) + q[:, None] * P + p[None, :]
    O_c, O_f = tl.load(o_ptr), tl.load(o_ptr + Q * P)
    w_ptr = weights_ptr + j * (2 * M * HP) + m[:, None] * HP + k[None, :]
    tl.debug_barrier()
    W_c = tl.load(w_ptr)
    tl.debug_barrier()
    V_c = tl.load(w_ptr + K)
    tl.debug_barrier()
    W_f = tl.load(w_ptr + M * HP)
    tl.debug_barrier()
    V_f = tl.load(w_ptr + M * HP + K)
    tl.debug_barrier()
    b_ptr, none = bias_ptr + j * (2 * M) + m, tl.zeros([M, L], tl.float32)
    bias_c, bias_f = tl.load(b_ptr)[:, None] + none, tl.load(b_ptr + M)[:, None] + none
    is_head = m[:, None] >= 6 * U

    # the sums that this program puts back to O2's and O4's bias
    share = j * SHARE + tl.arange(0, SHARE)
    shared = share < L * Q
    rest_c, rest_f = tl.load(rest_ptr + share % Q), tl.load(rest_ptr + Q + share % Q)

    # lanes, dealt out to the groups in turn
    lane = l * groups + group
    stream = tl.load(stream_ptr + lane, mask=lane < lanes, other=0).to(tl.int64)
    steps = tl.load(steps_ptr + lane, mask=lane < lanes, other=0)
    longest = tl.max(steps, axis=0)
    phase = ((tl.load(sample_ptr + stream) - start) % HOP).to(tl.int32) + start
    c, f = tl.load(code_ptr + stream * 2), tl.load(code_ptr + stream * 2 + 1)
    memory = tl.load(memory_ptr + stream)
    at = stream * T + start
    both_ptr = codes_ptr.to(tl.pointer_type(tl.uint16))

    # those that this program draws for
    if S == L:
        drawn, drawn_stream, drawn_steps, drawn_at = l, stream, steps, at
    else:
        drawn = j * S + tl.arange(0, S)
        drawn_lane = drawn * groups + group
        mine = (drawn < L) & (drawn_lane < lanes)
        drawn_stream = tl.load(stream_ptr + drawn_lane, mask=mine, other=0).to(tl.int64)
        drawn_steps = tl.load(steps_ptr + drawn_lane, mask=mine, other=0)
        drawn_at = drawn_stream * T + start
    temperature = tl.load(temperature_ptr + drawn_stream)
    # infinity times 0 is no number
    sharp_c = tl.minimum(1.4426950408889634 / scale_c / temperature, 1e30)
    sharp_f = tl.minimum(1.4426950408889634 / scale_f / temperature, 1e30)
    low_ptr = sums_ptr + drawn[:, None] * Q + half_q[None, :]
    read = (drawn < L)[:, None]

    # units
    unit = j * U + u
    real = (unit < HH)[None, :] & (steps > 0)[:, None]
    state = stream[:, None] * H + unit[None, :]
    h_c = tl.load(h_ptr + state, mask=real, other=0.0)
    h_f = tl.load(h_ptr + state + HH, mask=real, other=0.0)
    y_ptr = x_ptr + l[:, None] * HP + unit[None, :]
    x_ptr += l[:, None] * HP + k[None, :]
    z_ptr = sums_ptr + l[None, :] * Q + q[:, None]
    gates_ptr += stream[:, None] * gate_rows * G + unit[None, :]

    # all before the first sample: of what is made at t = -1, R h alone is used
    nothing = tl.zeros([L, U], tl.float32)
    u_c, r_c, Re_c, e_c = nothing, nothing, nothing, nothing
    u_f, r_f, Re_f, e_f = nothing, nothing, nothing, nothing
    at -= 1
    drawn_at -= 1
    target = 0
    running = steps < 0
    for t in range(-1, longest):
        # no lane runs at -1
        now = tl.where(t < 0, longest, t)
        ran, running = running, now < steps

        # exchange 1
        past = f[:, None] * (6 * U) + u[None, :]
        row_u, row_r, row_e = rows(past_f_ptr, past, U)
        y = cell(h_c, u_c + row_u, r_c + row_r, Re_c, e_c + row_e)
        h_c = tl.where(running[:, None], y, h_c)
        tl.store(y_ptr, h_c.to(tl.float16))
        arrive(arrived_ptr)
        row_u, row_r, row_e = rows(past_f_ptr, past + 3 * U, U)
        u_f += row_u
        r_f += row_r
        e_f += row_e
        # the sample before, here where there is time
        memory = put(both_ptr + at - 1, audio_ptr + at - 1, c, f, memory, ran, j == 0, A)
        if not SCORE:
            drawing = now < drawn_steps
            uniform_c = tl.load(uniform_ptr + drawn_at * 2, mask=drawing, other=0.0)
            uniform_f = tl.load(uniform_ptr + drawn_at * 2 + 1, mask=drawing, other=0.0)
        target += N
        patience = wait(arrived_ptr, target, patience)

        # exchange 2; all have read the fine sums
        tl.store(sums_ptr + L * Q + share, rest_f, mask=shared)
        D, z = head(x_ptr, W_c, V_c, O_c, bias_c, bias_c, scale_c, L, U, K, P)
        add(z_ptr, z)
        arrive(arrived_ptr)
        target += N
        patience = wait(arrived_ptr, target, patience)
        low = tl.load(low_ptr, mask=read, other=0, cache_modifier=".cg")
        high = tl.load(low_ptr + Q // 2, mask=read, other=0, cache_modifier=".cg")
        if SCORE:
            to = logits_ptr + drawn_at[:, None] * (2 * Q) + half_q[None, :]
            write_logits(to, low, high, scale_c, (now < drawn_steps) & ((j == 0) | (S < L)))
            new = tl.load(known_ptr + at * 2, mask=running, other=0).to(tl.int32)
        else:
            new = draw(low, high, sharp_c, uniform_c)
            if S < L:
                tl.store(drawn_ptr + drawn, new, mask=drawn < L)
                arrive(arrived_ptr)
                target += N
                patience = wait(arrived_ptr, target, patience)
                new = tl.load(drawn_ptr + l, cache_modifier=".cg")
        c = tl.where(running, new, c)

        # exchange 3
        row_u, row_r, row_e = rows(now_ptr, c[:, None] * (3 * U) + u[None, :], U)
        y = cell(h_f, u_f + row_u, r_f + row_r, Re_f, e_f + row_e)
        h_f = tl.where(running[:, None], y, h_f)
        tl.store(y_ptr + L * HP, h_f.to(tl.float16))
        arrive(arrived_ptr)
        target += N
        patience = wait(arrived_ptr, target, patience)

        # exchange 4; all have read the coarse sums
        tl.store(sums_ptr + share, rest_c, mask=shared)
        D = tl.where(is_head, bias_f, D)
        D, z = head(x_ptr + L * HP, W_f, V_f, O_f, D, bias_f, scale_f, L, U, K, P)
        add(z_ptr + L * Q, z)
        arrive(arrived_ptr)
        u_c, r_c, Re_c, _, u_f, r_f, Re_f, _ = split(D, U, L)
        more = real & (t + 1 < steps)[:, None]
        row = gates_ptr + (((phase + t + 1) // HOP).to(tl.int64) * G)[:, None]
        past = c[:, None] * (6 * U) + u[None, :]
        u_c, r_c, e_c = inputs(u_c, r_c, past_c_ptr, past, row, more, U, H)
        u_f, r_f, e_f = inputs(u_f, r_f, past_c_ptr, past + 3 * U, row + HH, more, U, H)
        target += N
        patience = wait(arrived_ptr, target, patience)
        low = tl.load(low_ptr + L * Q, mask=read, other=0, cache_modifier=".cg")
        high = tl.load(low_ptr + L * Q + Q // 2, mask=read, other=0, cache_modifier=".cg")
        if SCORE:
            to = logits_ptr + drawn_at[:, None] * (2 * Q) + Q + half_q[None, :]
            write_logits(to, low, high, scale_f, (now < drawn_steps) & ((j == 0) | (S < L)))
            new = tl.load(known_ptr + at * 2 + 1, mask=running, other=0).to(tl.int32)
        else:
            new = draw(low, high, sharp_f, uniform_f)
            if S < L:
                tl.store(drawn_ptr + L + drawn, new, mask=drawn < L)
                arrive(arrived_ptr)
                target += N
                patience = wait(arrived_ptr, target, patience)
                new = tl.load(drawn_ptr + L + l, cache_modifier=".cg")
        f = tl.where(running, new, f)
        at += 1
        if S == L:
            drawn_at = at
        else:
            drawn_at += 1

    memory = put(both_ptr + at - 1, audio_ptr + at - 1, c, f, memory, running, j == 0, A)
    tl.store(failed_ptr, 1, mask=patience == 0)
    real = real & (patience > 0)
    tl.store(h_ptr + state, h_c, mask=real)
    tl.store(h_ptr + state + HH, h_f, mask=real)
    own = (steps > 0) & (j == 0) & (patience > 0)
    tl.store(code_ptr + stream * 2, c, mask=own)
    tl.store(code_ptr + stream * 2 + 1, f, mask=own)
    tl.store(sample_ptr + stream, tl.load(sample_ptr + stream) + steps, mask=own)
    tl.store(memory_ptr + stream, memory, mask=own)
