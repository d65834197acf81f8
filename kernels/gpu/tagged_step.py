"""The pieces of a sample that one CTA of a `tagged_kernel` group computes, and what it hands on."""

from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from wavernn.kernels.gpu.step import INTERPRETED


@gluon.jit
def halves(word):
    """The two bfloat16 of a word as float32; opaque, so that none is kept in its wide form."""
    if INTERPRETED:
        low = (word << 16).to(gl.float32, bitcast=True)
        high = (word & -65536).to(gl.float32, bitcast=True)
    else:
        low, high = gl.inline_asm_elementwise(
            "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;",
            "=r,=r,r",
            [word],
            dtype=(gl.float32, gl.float32),
            is_pure=False,
            pack=1,
        )
    return low, high


@gluon.jit
def product(w, low, high):
    """W x for packed W [rows, K / 2], with x as its lower and upper half."""
    a, b = halves(w)
    # side by side, so that each product is one operation with the sum that it enters
    terms = gl.join(a * low[None, :], b * high[None, :])
    return gl.sum(gl.reshape(terms, [w.shape[0], 2 * w.shape[1]]), 1)


@gluon.jit
def products(u, r, e, low, high):
    """The three products of a half of the state with the rows u, r, e of a half of the units."""
    return product(u, low, high), product(r, low, high), product(e, low, high)


@gluon.jit
def matrices(ptr, SHAPE: tl.constexpr, ROWS: tl.constexpr):
    """The packed rows u, r, e, each SHAPE, that begin at a pointer."""
    row = gl.arange(0, SHAPE[0], layout=gl.SliceLayout(1, ROWS))
    column = gl.arange(0, SHAPE[1], layout=gl.SliceLayout(0, ROWS))
    at = ptr + row[:, None] * SHAPE[1] + column[None, :]
    size: tl.constexpr = SHAPE[0] * SHAPE[1]
    return gl.load(at), gl.load(at + size), gl.load(at + 2 * size)


@gluon.jit
def three(word):
    """The float16 u, r, e of a word as float32."""
    u = word.to(gl.int16).to(gl.float16, bitcast=True).to(gl.float32)
    r = (word >> 16).to(gl.int16).to(gl.float16, bitcast=True).to(gl.float32)
    e = (word >> 32).to(gl.int16).to(gl.float16, bitcast=True).to(gl.float32)
    return u, r, e


@gluon.jit
def conditioned(ptr, past, real, HALF: tl.constexpr):
    """The gate input u, r, e of a half at `ptr` [U], with the rows of c_{t-1} added."""
    u, r, e = three(past)
    u += gl.load(ptr, mask=real, other=0.0)
    r += gl.load(ptr + 2 * HALF, mask=real, other=0.0)
    e += gl.load(ptr + 4 * HALF, mask=real, other=0.0)
    return u, r, e


@gluon.jit
def spread(shared, x, SIZE: tl.constexpr, COLUMNS: tl.constexpr):
    """Hands a vector to all warps, as its lower and upper half."""
    shared.store(x)
    low = shared.slice(0, SIZE // 2).load(COLUMNS)
    return low, shared.slice(SIZE // 2, SIZE // 2).load(COLUMNS)


@gluon.jit
def partial_logits(shared, w1, b1, w2, b2, low, high, V: tl.constexpr, COLUMNS: tl.constexpr):
    """This CTA's part of O2 relu(O1 x)."""
    y = gl.maximum(product(w1, low, high) + b1, 0.0)
    y_low, y_high = spread(shared, y, V, COLUMNS)
    return product(w2, y_low, y_high) + b2


@gluon.jit
def draw(logits, uniform, scale):
    """The level at a uniform, and the highest logit; see `reference.inverse_cdf`."""
    peak = gl.max(logits, 0)
    mass = gl.exp2((logits - peak) * scale)
    below = (tl.cumsum(mass, 0) <= uniform * gl.sum(mass, 0)).to(gl.int32)
    return gl.minimum(gl.sum(below, 0), 255), peak
