"""Exchanges between the CTAs of a group by words that say themselves whether they are complete.

Neither form needs a fence, a barrier or a second look, and weak memory can't hurt it: what a
reader waits for and what it reads is one 64-bit word. A wait ends after `limit` looks, which sets
`failed_ptr` for the host; the words that it returns then are worth nothing.

Words of 64 bits keep float32 whole. The epoch's lowest bit in that of a 32-bit word would halve
the traffic of a gather, for one bit of the values.

The pointers lie E to a thread, side by side and aligned to 16 bytes where E is 2 or more.
"""

from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from wavernn.kernels.gpu.step import INTERPRETED

# units of a sum in 1, and what counts one contribution to it
UNITS = tl.constexpr(1 << 20)
ONE = tl.constexpr(1 << 48)
# a sum that wasn't there in time; no other is as large
LOST = tl.constexpr(2.0**60)


@gluon.constexpr_function
def _poll(E, wait, words):
    """Assembly that loads E words until no bit of `e0` is set, and gives up after `limit` looks.

    `wait` is one word's share of the check; operands: E results, then E each of the address, what
    is expected, the limit and `failed_ptr` and what `wait` asks for.
    """
    pairs = [
        f"ld.relaxed.gpu.global.v2.b64 {{w{i}, w{i + 1}}}, [${E + i}];" for i in range(0, E, 2)
    ]
    loads = pairs if E > 1 else [f"ld.relaxed.gpu.global.b64 w0, [${E}];"]
    checks = [wait.format(i=i, expected=f"${2 * E}", before=f"${5 * E + i}") for i in range(E)]
    joined = [f"or.b32 e0, e0, e{i};" for i in range(1, E)]
    results = [words.format(i=i) for i in range(E)]
    return " ".join(
        [
            "{ .reg .pred p; .reg .b64 w<8>; .reg .b32 v<8>, e<8>, n; mov.u32 n, 0;",
            "again:",
            *loads,
            *checks,
            *joined,
            "setp.eq.u32 p, e0, 0; @p bra done;",
            f"add.u32 n, n, 1; setp.lt.u32 p, n, ${3 * E}; @p bra again;",
            f"st.relaxed.gpu.global.b64 [${4 * E}], 1;",
            "done:",
            *results,
            "}",
        ]
    )


@gluon.constexpr_function
def gather_asm(E):
    """The wait of `gather`: an epoch is the upper half of a word."""
    return _poll(
        E, "mov.b64 {{v{i}, e{i}}}, w{i}; xor.b32 e{i}, e{i}, {expected};", "mov.b32 ${i}, v{i};"
    )


@gluon.constexpr_function
def gather_constraints(E):
    """E values; addresses, epochs, limits, flags."""
    return ",".join(["=f"] * E + ["l"] * E + ["r"] * 2 * E + ["l"] * E)


@gluon.constexpr_function
def agree_asm(E):
    """The wait of `agree`: a sum may be negative, hence the half unit of the count."""
    return _poll(
        E,
        "sub.s64 w{i}, w{i}, {before}; .reg .b64 x{i}; add.s64 x{i}, w{i}, 0x800000000000; "
        "mov.b64 {{v{i}, e{i}}}, x{i}; shr.u32 e{i}, e{i}, 16; xor.b32 e{i}, e{i}, {expected};",
        "mov.b64 ${i}, w{i};",
    )


@gluon.constexpr_function
def agree_constraints(E):
    """E differences; addresses, counts, limits, flags, the words before."""
    return ",".join(["=l"] * E + ["l"] * E + ["r"] * 2 * E + ["l"] * 2 * E)


@gluon.jit
def publish(ptr, value, epoch):
    """Writes float32 values for the gather of an epoch."""
    bits = value.to(gl.int32, bitcast=True)
    if INTERPRETED:
        gl.store(ptr, (epoch.to(gl.int64) << 32) | (bits.to(gl.int64) & 0xFFFFFFFF))
    else:
        gl.inline_asm_elementwise(
            "{ .reg .b64 w; mov.b64 w, {$2, $3}; st.relaxed.gpu.global.b64 [$1], w; "
            "mov.u32 $0, 0; }",
            "=r,l,r,r",
            [ptr, bits, epoch],
            dtype=gl.int32,
            is_pure=False,
            pack=1,
        )


@gluon.jit
def gather(ptr, epoch, limit, failed_ptr, E: tl.constexpr):
    """The float32 values that were published for an epoch, once they all are."""
    if INTERPRETED:
        word = gl.load(ptr, volatile=True)
        looks = 1
        while (gl.sum(((word >> 32) != epoch).to(gl.int32), 0) > 0) & (looks < limit):
            word = gl.load(ptr, volatile=True)
            looks += 1
        if gl.sum(((word >> 32) != epoch).to(gl.int32), 0) > 0:
            gl.store(failed_ptr, 1)
        value = word.to(gl.int32).to(gl.float32, bitcast=True)
    else:
        value = gl.inline_asm_elementwise(
            gather_asm(E),
            gather_constraints(E),
            [ptr, epoch, limit, failed_ptr],
            dtype=gl.float32,
            is_pure=False,
            pack=E,
        )
    return value


@gluon.jit
def contribute(ptr, partial):
    """Adds float32 partial sums, each less than 2^27, to the next sum."""
    if INTERPRETED:
        units = tl.floor(partial.to(gl.float64) * UNITS + 0.5).to(gl.int64)
    else:
        units = gl.inline_asm_elementwise(
            "cvt.rni.s64.f32 $0, $1;",
            "=l,f",
            [partial * UNITS],
            dtype=gl.int64,
            is_pure=True,
            pack=1,
        )
    gl.atomic_add(ptr, units + ONE, sem="relaxed", scope="gpu")


@gluon.jit
def agree(ptr, before, N: tl.constexpr, limit, failed_ptr, E: tl.constexpr):
    """The sum of N contributions since `before`, float32, LOST where it gave up; and the word.

    The result is the same in every CTA and in any order of arrival.
    """
    if INTERPRETED:
        grown = gl.load(ptr, volatile=True) - before
        looks = 1
        while (gl.sum((_count(grown) != N).to(gl.int32), 0) > 0) & (looks < limit):
            grown = gl.load(ptr, volatile=True) - before
            looks += 1
        if gl.sum((_count(grown) != N).to(gl.int32), 0) > 0:
            gl.store(failed_ptr, 1)
    else:
        grown = gl.inline_asm_elementwise(
            agree_asm(E),
            agree_constraints(E),
            [ptr, N, limit, failed_ptr, before],
            dtype=gl.int64,
            is_pure=False,
            pack=E,
        )
    units = (grown - ONE * N).to(gl.float32)
    return gl.where(_count(grown) == N, units / UNITS, LOST), before + grown


@gluon.jit
def _count(grown):
    return (grown + ONE // 2) >> 48
