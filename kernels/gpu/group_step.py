"""What a program of `group_kernel` computes between its exchanges, for L lanes at once."""

from __future__ import annotations

import triton
import triton.language as tl

from wavernn.kernels.gpu.step import clipped, de_emphasis, exp2


@triton.jit
def product(W, x, start, L: tl.constexpr):
    """W x^T + start, [M, L], of W [M, K] and x [L, K]."""
    # 16 and 32 lanes are rows of the small tensor-core instruction, 8 its columns, 64 rows of wgmma
    if L == 16 or L == 32:
        return tl.trans(tl.dot(x, tl.trans(W), acc=tl.trans(start)))
    else:
        return tl.dot(W, tl.trans(x), acc=start)


@triton.jit
def head(
    x_ptr,
    W,
    V,
    O,
    start,
    bias,
    scale,
    L: tl.constexpr,
    U: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
):
    """A program's product with a half, [M, L], and its part of the logits, whole [Q, L]."""
    x = tl.load(x_ptr, cache_modifier=".cg")
    y = tl.load(x_ptr + K, cache_modifier=".cg")
    # two sums side by side take half the time of one; `bias` is halved for it
    D = product(W, x, start, L) + product(V, y, bias, L)
    hidden = tl.minimum(tl.maximum(D, 0.0), 65504.0)
    last = 8 * U - P + tl.arange(0, P)[:, None] + tl.zeros([P, L], tl.int32)
    z = tl.dot(O, tl.gather(hidden, last, 0).to(tl.float16))
    return D, tl.floor(z * scale + 0.5).to(tl.int32)


@triton.jit
def draw(low, high, sharpness, uniform):
    """Draws a level from each lane's logits, whole numbers [S, Q / 2] twice: int32 [S]."""
    most = tl.max(tl.maximum(low, high), axis=1)[:, None]
    a = exp2((low - most).to(tl.float32) * sharpness[:, None] - 1)
    b = exp2((high - most).to(tl.float32) * sharpness[:, None] - 1)
    # a mass of up to 1/2 as a whole number: the mantissa of 1 more
    a = (a + 1).to(tl.int32, bitcast=True) - 0x3F800000
    b = (b + 1).to(tl.int32, bitcast=True) - 0x3F800000
    half = tl.sum(a, axis=1)
    total = half + tl.sum(b, axis=1)
    # exact, so that a level without mass is never drawn
    edge = (((uniform * 16777216.0).to(tl.int64) * total.to(tl.int64)) >> 24).to(tl.int32)
    # -1 for each sum of masses beyond the edge, by its sign: as truth values they are packed first
    beyond = (edge[:, None] - tl.cumsum(a, axis=1)) >> 31
    beyond += ((edge - half)[:, None] - tl.cumsum(b, axis=1)) >> 31
    below = 256 + tl.sum(beyond, axis=1)
    # beyond the last only where a wait was given up
    return tl.minimum(below, 255)


@triton.jit
def write_logits(logits_ptr, low, high, scale, mask):
    """Writes the logits of a half, [S, Q / 2] twice."""
    tl.store(logits_ptr, low.to(tl.float32) / scale, mask=mask[:, None])
    tl.store(logits_ptr + 128, high.to(tl.float32) / scale, mask=mask[:, None])


@triton.jit
def rows(table_ptr, offset, U: tl.constexpr):
    """What a code adds to u, r and e of U units: [L, U] each."""
    u = tl.load(table_ptr + offset).to(tl.float32)
    r = tl.load(table_ptr + offset + U).to(tl.float32)
    e = tl.load(table_ptr + offset + 2 * U).to(tl.float32)
    return u, r, e


@triton.jit
def inputs(u, r, table_ptr, offset, gates_ptr, mask, U: tl.constexpr, H: tl.constexpr):
    """Adds what a half's gates get from c_{t-1} and the conditioner: u, r and the rest of e."""
    row_u, row_r, row_e = rows(table_ptr, offset, U)
    u += row_u + tl.load(gates_ptr, mask=mask, other=0.0)
    r += row_r + tl.load(gates_ptr + H, mask=mask, other=0.0)
    return u, r, row_e + tl.load(gates_ptr + 2 * H, mask=mask, other=0.0)


@triton.jit
def split(D, U: tl.constexpr, L: tl.constexpr):
    """R h of each gate and half from a product [M, L], and the head's rows: [L, U] each."""
    D = tl.permute(tl.reshape(D, [2, 2, 2, U, L]), (4, 3, 2, 0, 1))
    ue, r = tl.split(D)
    u, e = tl.split(ue)
    r, o = tl.split(r)
    u_c, u_f = tl.split(u)
    r_c, r_f = tl.split(r)
    e_c, e_f = tl.split(e)
    o_c, o_f = tl.split(o)
    return u_c, r_c, e_c, o_c, u_f, r_f, e_f, o_f


@triton.jit
def put(codes_ptr, audio_ptr, c, f, memory, done, first, A: tl.constexpr):
    """Writes a sample of the lanes that have `done` it, if this is the first program."""
    # both codes are one number of 16 bits
    tl.store(codes_ptr, (c + f * 256).to(tl.uint16), mask=done & first)
    memory = tl.where(done, de_emphasis(c, f, memory, tl.full([], A, tl.float64)), memory)
    tl.store(audio_ptr, clipped(memory), mask=done & first)
    return memory
