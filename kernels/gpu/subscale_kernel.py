"""N programs make an utterance of a subscale voice, tick by tick: its sub-tensors are L lanes.

`group_kernel` with what a lane sees of earlier ones (`wavernn.context`) before its gates. Of a
column only this waits for the tick before: the sample of the lane before, the taps of the present
column, one layer after the other, and X. Every program computes that for all lanes: it's small,
and to share it out would take an exchange for each layer. The rest is known a tick ahead and is
shared out, and the exchanges that there are anyway bring it round:

    e, the layers' inputs, codes          into rings before exchange 1, by one program each
    a program's share of the earlier taps and samples of the next column, after it has arrived at
    exchange 2; all read them, and e of the present column, after they have arrived at exchange 4

Rows of u and r of X y are summed with R h; those of e, which the reset gate isn't on, take the
place of the head's rows. What enters a product is rounded to float16; e, the residual sums and
what is read ahead are float32.

A launch begins with a tick that is none, as `group_kernel` does: R h, and what is read ahead.
Launch: grid = N programs of 8 warps, all on the device at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from wavernn.kernels.gpu.group_exchange import add, arrive, wait
from wavernn.kernels.gpu.group_step import head, inputs, product, rows, split
from wavernn.kernels.gpu.step import cell, tanh
from wavernn.kernels.gpu.subscale_step import (
    before,
    earlier_samples,
    earlier_taps,
    elements,
    held,
    level,
    present_column,
)


@triton.jit(do_not_specialize=["tick", "ticks", "at", "window", "phase", "patience"])
def subscale_kernel(
    # the utterance: float32 [L, H]; codes of MADE ticks [MADE, L], c 256 + f or -1; float32
    # [F + 1, L, C], e; float16 [2^J - 1, L, C], inputs of the layers
    h_ptr,
    made_ptr,
    e_ptr,
    columns_ptr,
    # a window of samples: gate input from the row of the first of them, draws or known codes, and
    # codes; logits of all samples
    gates_ptr,
    uniform_ptr,
    known_ptr,
    logits_ptr,
    codes_ptr,
    # the voice, `subscale_group.Voice`
    weights_ptr,
    heads_ptr,
    bias_ptr,
    rest_ptr,
    past_c_ptr,
    past_f_ptr,
    now_ptr,
    X_ptr,
    present_ptr,
    earlier_ptr,
    taps_bias_ptr,
    coarse_ptr,
    fine_ptr,
    lanes_ptr,
    # what programs exchange: float16 [2, L, HP], int32 [2, L, Q], float32 [J + 1, L, C], the
    # arrivals, which are 0
    x_ptr,
    sums_ptr,
    ahead_ptr,
    arrived_ptr,
    failed_ptr,
    # the first tick and their number, where its sample of lane 0 lies in the window, the samples
    # of the window, its first sample modulo HOP
    tick,
    ticks,
    at,
    window,
    phase,
    temperature,
    scale_c,
    scale_f,
    patience,
    N: tl.constexpr,
    FACTOR: tl.constexpr,
    F: tl.constexpr,
    MADE: tl.constexpr,
    L: tl.constexpr,
    C: tl.constexpr,
    J: tl.constexpr,
    TILE: tl.constexpr,
    E: tl.constexpr,
    D: tl.constexpr,
    HH: tl.constexpr,
    U: tl.constexpr,
    HP: tl.constexpr,
    SHARE: tl.constexpr,
    HOP: tl.constexpr,
    SCORE: tl.constexpr,
):
    """See the head of this file; HH is H / 2, U units of each half are a program's."""
    H: tl.constexpr = 2 * HH
    G: tl.constexpr = 3 * H
    M: tl.constexpr = 8 * U
    K: tl.constexpr = HP // 2
    # 16 is the least that a product sums over
    P: tl.constexpr = 2 * U if U >= 8 else 16
    Q: tl.constexpr = 256
    # tiles of the earlier taps, and those of a program
    TILES: tl.constexpr = J * C // TILE
    TURNS: tl.constexpr = (TILES + N - 1) // N
    j = tl.program_id(0)
    past_c_ptr += j * (Q * 6 * U)
    past_f_ptr += j * (Q * 6 * U)
    now_ptr += j * (Q * 3 * U)
    l, u, m, k = tl.arange(0, L), tl.arange(0, U), tl.arange(0, M), tl.arange(0, K)
    p, q, ch, tap = tl.arange(0, P), tl.arange(0, Q), tl.arange(0, C), tl.arange(0, D)

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
    X = tl.load(X_ptr + j * (M * C) + m[:, None] * C + ch[None, :])
    present: tl.tuple = ()
    earlier: tl.tuple = ()
    for layer in tl.static_range(J):
        present += (held(present_ptr, layer, C, C),)
    for turn in tl.static_range(TURNS):
        earlier += (held(earlier_ptr, tl.minimum(j + turn * N, TILES - 1), TILE, C),)
    b_ptr, none = bias_ptr + j * (2 * M) + m, tl.zeros([M, L], tl.float32)
    bias_c, bias_f = tl.load(b_ptr)[:, None] + none, tl.load(b_ptr + M)[:, None] + none
    is_head = m[:, None] >= 6 * U

    # the sums that this program puts back to O2's and O4's bias
    share = j * SHARE + tl.arange(0, SHARE)
    shared = share < L * Q
    rest_c, rest_f = tl.load(rest_ptr + share % Q), tl.load(rest_ptr + Q + share % Q)

    # its elements of e
    own = elements(lanes_ptr, fine_ptr, j, tap, E, L, C, FACTOR)
    fine = tl.load(fine_ptr + ch)[None, :]
    lc = l[:, None] * C + ch[None, :]

    # what the tick before made, and where this one's samples lie
    code = tl.load(made_ptr + ((tick - 1) & (MADE - 1)) * L + l)
    made = code >= 0
    c, f = tl.where(made, code >> 8, 128), tl.where(made, code & 255, 0)
    step = tick - 1 - l * (F + 1)
    at = at + l * (1 - FACTOR * (F + 1)) - FACTOR
    both_ptr = codes_ptr.to(tl.pointer_type(tl.uint16))
    # infinity times 0 is no number
    cold = 1.4426950408889634 / (temperature + tl.zeros([L], tl.float32))
    sharp_c, sharp_f = tl.minimum(cold / scale_c, 1e30), tl.minimum(cold / scale_f, 1e30)
    # units
    unit = j * U + u
    real = (unit < HH)[None, :] & (l < FACTOR)[:, None]
    state = l[:, None] * H + unit[None, :]
    h_c = tl.load(h_ptr + state, mask=real, other=0.0)
    h_f = tl.load(h_ptr + state + HH, mask=real, other=0.0)
    y_ptr = x_ptr + l[:, None] * HP + unit[None, :]
    x_ptr += l[:, None] * HP + k[None, :]
    z_ptr = sums_ptr + l[None, :] * Q + q[:, None]
    low_ptr = sums_ptr + l[:, None] * Q + tl.arange(0, Q // 2)[None, :]
    gates_ptr += unit[None, :]

    # all before the first tick: of what is made at t = -1 these alone are used
    zero = tl.zeros([L, U], tl.float32)
    in_u_c, in_r_c, in_e_c = zero, zero, zero
    in_u_f, in_r_f, in_e_f = zero, zero, zero
    e_far = tl.zeros([L, C], tl.float32)
    e_near, e_present = e_far, e_far
    ahead: tl.tuple = ()
    for _ in tl.static_range(J):
        ahead += (e_far,)
    W_h, sees, target = none, l < 0, 0
    for t in range(-1, ticks):
        # no lane runs at -1, and nothing is kept
        running = (tl.where(t < 0, -1, step) >= 0) & (at < window) & (l < FACTOR)
        kept = tl.where(t < 0, -1, lc) >= 0
        at_tick = tick + t

        # the context
        seen_f = tl.where(sees, before(f, l), 0).to(tl.float32)
        e = e_far + e_near + seen_f[:, None] * fine
        place = (at_tick + F + 1) % (F + 1) * (L * C) + lc
        tl.store(e_ptr + place, e, mask=kept & (j == J % N))
        x = present_column(e, present, ahead, columns_ptr, at_tick, kept, j, lc, N, L, C, J)
        if F == 0:
            e_present = e
        y_16 = tanh(x + e_present).to(tl.float16)
        sums = product(X, y_16, tl.where(is_head, 0.0, W_h), L)
        u_c, r_c, Re_c, e_c, u_f, r_f, Re_f, e_f = split(sums, U, L)

        # exchange 1
        past = f[:, None] * (6 * U) + u[None, :]
        row_u, row_r, row_e = rows(past_f_ptr, past, U)
        new_h = cell(h_c, u_c + in_u_c + row_u, r_c + in_r_c + row_r, Re_c, e_c + in_e_c + row_e)
        h_c = tl.where(running[:, None], new_h, h_c)
        tl.store(y_ptr, h_c.to(tl.float16))
        arrive(arrived_ptr)
        row_u, row_r, row_e = rows(past_f_ptr, past + 3 * U, U)
        u_f += in_u_f + row_u
        r_f += in_r_f + row_r
        e_f += in_e_f + row_e
        uniform_c, uniform_f = 0.0, 0.0
        if not SCORE:
            uniform_c = tl.load(uniform_ptr + at * 2, mask=running, other=0.0)
            uniform_f = tl.load(uniform_ptr + at * 2 + 1, mask=running, other=0.0)
        target += N
        patience = wait(arrived_ptr, target, patience)

        # exchange 2; all have read the fine sums
        tl.store(sums_ptr + L * Q + share, rest_f, mask=shared)
        W_h, z = head(x_ptr, W_c, V_c, O_c, bias_c, bias_c, scale_c, L, U, K, P)
        add(z_ptr, z)
        arrive(arrived_ptr)
        # its share of the next column
        for turn in tl.static_range(TURNS):
            earlier_taps(
                *(earlier[turn], columns_ptr, taps_bias_ptr, ahead_ptr),
                *(at_tick + 1, j + turn * N, L, C, TILE, TILES),
            )
        earlier_samples(
            *(own, made_ptr, coarse_ptr, ahead_ptr + J * L * C, at_tick + 1, tap),
            *(F, L, C, FACTOR, MADE),
        )
        target += N
        patience = wait(arrived_ptr, target, patience)
        new = level(
            *(low_ptr, logits_ptr, known_ptr, at, running, j == 0),
            *(scale_c, sharp_c, uniform_c, 0, SCORE),
        )
        c = tl.where(running, new, c)
        # what was made before a launch is seen at its first tick
        made = tl.where(t < 0, made.to(tl.int32), running.to(tl.int32)) > 0

        # exchange 3
        row_u, row_r, row_e = rows(now_ptr, c[:, None] * (3 * U) + u[None, :], U)
        new_h = cell(h_f, u_f + row_u, r_f + row_r, Re_f, e_f + row_e)
        h_f = tl.where(running[:, None], new_h, h_f)
        tl.store(y_ptr + L * HP, h_f.to(tl.float16))
        arrive(arrived_ptr)
        target += N
        patience = wait(arrived_ptr, target, patience)

        # exchange 4; all have read the coarse sums
        tl.store(sums_ptr + share, rest_c, mask=shared)
        W_h = tl.where(is_head, bias_f, W_h)
        W_h, z = head(x_ptr + L * HP, W_f, V_f, O_f, W_h, bias_f, scale_f, L, U, K, P)
        add(z_ptr + L * Q, z)
        arrive(arrived_ptr)
        following = at + FACTOR
        more = (step + 1 >= 0) & (following < window) & (l < FACTOR) & (t + 1 < ticks)
        row = gates_ptr + (((phase + following) // HOP).to(tl.int64) * G)[:, None]
        due, past = real & more[:, None], c[:, None] * (6 * U) + u[None, :]
        in_u_c, in_r_c, in_e_c = inputs(zero, zero, past_c_ptr, past, row, due, U, H)
        in_u_f, in_r_f, in_e_f = inputs(zero, zero, past_c_ptr, past + 3 * U, row + HH, due, U, H)
        # what is known of the next column; all have written their share
        seen_c = before(tl.where(made, c, -1), l)
        sees = (seen_c >= 0) & (l > 0)
        near_ptr = coarse_ptr + seen_c[:, None] * C + ch[None, :]
        e_near = tl.load(near_ptr, mask=sees[:, None], other=0.0)
        e_far = tl.load(ahead_ptr + J * L * C + lc, cache_modifier=".cg")
        if F > 0:
            place = (at_tick + 2) % (F + 1) * (L * C) + lc
            e_present = tl.load(e_ptr + place, cache_modifier=".cg")
        ahead = ()
        for layer in tl.static_range(J):
            ahead += (tl.load(ahead_ptr + layer * L * C + lc, cache_modifier=".cg"),)
        target += N
        patience = wait(arrived_ptr, target, patience)
        new = level(
            *(low_ptr + L * Q, logits_ptr, known_ptr, at, running, j == 0),
            *(scale_f, sharp_f, uniform_f, 1, SCORE),
        )
        f = tl.where(running, new, f)
        # both codes are one number of 16 bits
        tl.store(both_ptr + at, (c + f * 256).to(tl.uint16), mask=running & (j == 0))
        code_ptr = made_ptr + (at_tick & (MADE - 1)) * L + l
        mask = (tl.where(t < 0, -1, l) >= 0) & (j == 0)
        tl.store(code_ptr, tl.where(running, c * 256 + f, -1), mask=mask)
        at += FACTOR
        step += 1

    tl.store(failed_ptr, 1, mask=patience == 0)
    tl.store(h_ptr + state, h_c, mask=real)
    tl.store(h_ptr + state + HH, h_f, mask=real)
