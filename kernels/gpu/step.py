"""What the kernels share: gate functions, and samples from codes; elementwise, for any shape."""

from __future__ import annotations

import os

import triton
import triton.language as tl

# assembly has no meaning to Triton's interpreter, which TRITON_INTERPRET=1 turns on
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def exp2(x):
    """2^x to about two roundings, with results below the smallest normal number 0."""
    if INTERPRETED:
        return tl.exp2(x)
    else:
        # Triton's own takes three instructions more, for results below it
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def reciprocal(x):
    """1 / x to about a rounding, for x of at least 1."""
    if INTERPRETED:
        return 1 / x
    else:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x)."""
    return reciprocal(1 + exp2(x * -LOG2_E))


@triton.jit
def tanh(x):
    """By the sigmoid: its absolute error is a few roundings, which is what a gate needs."""
    return 2 * reciprocal(1 + exp2(x * (-2 * LOG2_E))) - 1


@triton.jit
def cell(h, u, r, Re, e):
    """Equation 2 from the sums that enter the gates: R_e h goes through r, `e` is the rest."""
    u = sigmoid(u)
    return u * h + (1 - u) * tanh(sigmoid(r) * Re + e)


@triton.jit
def product(x, y):
    """X y in float64, rounded: the compiler may not join it with an addition."""
    if INTERPRETED:
        return x * y
    else:
        return tl.inline_asm_elementwise(
            "mul.rn.f64 $0, $1, $2;", "=d,d,d", [x, y], dtype=tl.float64, is_pure=True, pack=1
        )


@triton.jit
def de_emphasis(c, f, memory, a):
    """The next x = y + a x' of a stream from its codes, int32; a and x' are float64."""
    y = (c * 256 + f - 32768).to(tl.float64) * 2**-15
    return y + product(memory, a)


@triton.jit
def clipped(x):
    """X as a sample of audio: float32 in [-1, 1)."""
    return tl.minimum(tl.maximum(x, -1.0), 32767 / 32768).to(tl.float32)
