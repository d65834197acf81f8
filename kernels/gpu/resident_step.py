"""What the resident kernel does with words and logits."""

from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from wavernn.kernels.gpu.step import INTERPRETED, LOG2_E, exp2


@gluon.jit
def lower(word):
    """The bfloat16 in the lower half of an int32, as float32."""
    if INTERPRETED:
        result = word << 16
    else:
        # not pure, or the compiler would hold two registers for each word
        result = gl.inline_asm_elementwise(
            "shl.b32 $0, $1, 16;", "=r,r", [word], dtype=gl.int32, is_pure=False, pack=1
        )
    return result.to(gl.float32, bitcast=True)


@gluon.jit
def unpacked(pair):
    """The two unsigned 16-bit numbers in an int32, the lower one first."""
    if INTERPRETED:
        return pair & 0xFFFF, (pair >> 16) & 0xFFFF
    else:
        return gl.inline_asm_elementwise(
            "and.b32 $0, $2, 0xffff; shr.u32 $1, $2, 16;",
            "=&r,=r,r",
            [pair],
            dtype=(gl.int32, gl.int32),
            is_pure=False,
            pack=1,
        )


@gluon.jit
def _add(x, y):
    return x + y


@gluon.jit
def draw(logits, uniform):
    """The code that `uniform`, in [0, 1), picks from logits [256]; each warp finds it."""
    WARP: tl.constexpr = gl.BlockedLayout([8], [32], [8], [0])
    logits = gl.convert_layout(logits, WARP)
    mass = exp2((logits - gl.max(logits, 0)) * LOG2_E)
    cdf = gl.associative_scan(mass, 0, _add)
    below = cdf <= uniform * gl.sum(mass, 0)
    # rounding may leave the last entry below a uniform that is close to 1
    return gl.minimum(gl.sum(below.to(gl.int32), 0), 255)
