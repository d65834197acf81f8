"""A block-sparse voice on one multiprocessor: a program runs one stream and waits for nobody.

Equation 2 of Kalchbrenner et al. 2018 for one sample after the other; both halves, their heads and
the draws are fused in one loop. The weights of as many matrices as fit are loaded once and stay in
registers, those of the others come from the caches each time. Launch: a program of 8 warps a lane.

Buffers, beside those of `Call`; HP and PP are H / 2 and P padded to powers of two:
  words    int32, two weights each: bfloat16 rows 2p (low) and 2p + 1; per matrix, then part
           [G, 8, K]. The whole word is also the value of its upper weight (`resident_pack`)
  pairs    int32, two columns each, in the order of the words: [G, K / 2]
  past     int64 [2, 256, 2, HP], three float16 each from the lowest on: what c_{t-1} and f_{t-1}
           add to the gates u, r, e of a half
  now      int64 [256, HP]: what c_t adds to those of the fine half
  bias     float32: O1 [PP], O2 [256], O3 [PP], O4 [256]
An element of h is unit * 2 + half as a column, and half * HP + unit as a row.
"""

from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from wavernn.kernels.gpu.resident_step import draw, lower, unpacked
from wavernn.kernels.gpu.resident_tiles import index_tile, vector, word_tile
from wavernn.kernels.gpu.step import cell, clipped, de_emphasis


@gluon.jit
def _tile(words, pairs, G: tl.constexpr, K: tl.constexpr, SPLIT: tl.constexpr, PLACE: tl.constexpr):
    WORDS: tl.constexpr = word_tile(G, K, SPLIT)
    group = gl.arange(0, G, layout=gl.SliceLayout(1, gl.SliceLayout(2, WORDS)))
    pair = gl.arange(0, 8, layout=gl.SliceLayout(0, gl.SliceLayout(2, WORDS)))
    column = gl.arange(0, K, layout=gl.SliceLayout(0, gl.SliceLayout(0, WORDS)))
    row = gl.expand_dims(gl.expand_dims(group, 1) * 8 + gl.expand_dims(pair, 0), 2)
    place = row * K + gl.expand_dims(gl.expand_dims(column, 0), 0)
    order = gl.arange(0, G * K // 2, layout=index_tile(G, K // 2, SPLIT))
    # both are hints on what the first-level cache is to keep
    if PLACE == 1:
        tile = gl.load(words + place, eviction_policy="evict_last")
        index = gl.load(pairs + order, eviction_policy="evict_last")
    else:
        tile = gl.load(words + place, eviction_policy="evict_first")
        index = gl.load(pairs + order, eviction_policy="evict_first")
    return tile, index


@gluon.jit
def _terms(tile, index, x, G: tl.constexpr, K: tl.constexpr, SPLIT: tl.constexpr):
    """Weights times elements of x, by column: of the even and of the odd rows, each [G, 8, K]."""
    WORDS: tl.constexpr = word_tile(G, K, SPLIT)
    low, high = unpacked(index)
    x_GK = gl.reshape(gl.gather(x, gl.reshape(gl.join(low, high), [G * K]), 0), [G, K])
    x_GK = gl.expand_dims(gl.convert_layout(x_GK, gl.SliceLayout(1, WORDS)), 1)
    return lower(tile) * x_GK, tile.to(gl.float32, bitcast=True) * x_GK


@gluon.jit
def _rows(even, odd, G: tl.constexpr):
    """The sums of terms, row by row: [16 G]."""
    return gl.reshape(gl.join(gl.sum(even, axis=2), gl.sum(odd, axis=2)), [G * 16])


@gluon.jit
def _held(words, pairs, MATRICES: tl.constexpr, M: tl.constexpr):
    """What a matrix has in registers: one or two tiles; numbers in place of what isn't there."""
    G: tl.constexpr = MATRICES[M][0]
    A: tl.constexpr = MATRICES[M][1]
    B: tl.constexpr = MATRICES[M][2]
    SPLIT: tl.constexpr = MATRICES[M][5]
    words += MATRICES[M][3]
    pairs += MATRICES[M][3] // 16
    if MATRICES[M][4] > 0:
        return 0, 0, 0, 0
    elif B > 0:
        tile, index = _tile(words, pairs, G, A, SPLIT, 0)
        second, second_index = _tile(words + 8 * G * A, pairs + G * A // 2, G, B, SPLIT, 0)
        return tile, index, second, second_index
    else:
        tile, index = _tile(words, pairs, G, A, SPLIT, 0)
        return tile, index, 0, 0


@gluon.jit
def _product(held, words, pairs, x, MATRICES: tl.constexpr, M: tl.constexpr):
    """A matrix times a vector: its rows [16 G], in a layout of the compiler's."""
    G: tl.constexpr = MATRICES[M][0]
    A: tl.constexpr = MATRICES[M][1]
    # the columns of a second tile, or the number of tiles that are streamed
    B: tl.constexpr = MATRICES[M][2]
    PLACE: tl.constexpr = MATRICES[M][4]
    SPLIT: tl.constexpr = MATRICES[M][5]
    if PLACE > 0:
        words += MATRICES[M][3]
        pairs += MATRICES[M][3] // 16
        tile, index = _tile(words, pairs, G, A, SPLIT, PLACE)
        even, odd = _terms(tile, index, x, G, A, SPLIT)
        if B > 1:
            # one tile is on its way while another is multiplied, to hide that the cache is far
            tile, index = _tile(words + 8 * G * A, pairs + G * A // 2, G, A, SPLIT, PLACE)
            for part in range(2, B):
                at = part * G * A
                after, after_index = _tile(words + 8 * at, pairs + at // 2, G, A, SPLIT, PLACE)
                more_even, more_odd = _terms(tile, index, x, G, A, SPLIT)
                even += more_even
                odd += more_odd
                tile, index = after, after_index
            more_even, more_odd = _terms(tile, index, x, G, A, SPLIT)
            even += more_even
            odd += more_odd
        y = _rows(even, odd, G)
    else:
        even, odd = _terms(held[0], held[1], x, G, A, SPLIT)
        y = _rows(even, odd, G)
        if B > 0:
            even, odd = _terms(held[2], held[3], x, G, B, SPLIT)
            y += _rows(even, odd, G)
    return y


@gluon.jit
def _halves(y, HP: tl.constexpr):
    coarse, fine = gl.split(gl.permute(gl.reshape(y, [2, HP]), [1, 0]))
    return gl.convert_layout(coarse, vector(HP)), gl.convert_layout(fine, vector(HP))


@gluon.jit
def _row(row):
    """What a code adds to the gates u, r and e."""
    word = gl.load(row)
    u = word.to(gl.int16).to(gl.float16, bitcast=True).to(gl.float32)
    r = (word >> 16).to(gl.int16).to(gl.float16, bitcast=True).to(gl.float32)
    e = (word >> 32).to(gl.int16).to(gl.float16, bitcast=True).to(gl.float32)
    return u, r, e


@gluon.jit
def _conditioning(row, UNITS: tl.constexpr, there):
    """What the mel adds to the gates u, r and e of a half."""
    u = gl.load(row, mask=there, other=0)
    r = gl.load(row + 2 * UNITS, mask=there, other=0)
    e = gl.load(row + 4 * UNITS, mask=there, other=0)
    return u, r, e


@gluon.jit
def _head(
    one, two, words, pairs, bias, h, MATRICES: tl.constexpr, M: tl.constexpr, PP: tl.constexpr
):
    """The logits [256] of a half."""
    bias += (M - 3) // 2 * (PP + 256)
    y = gl.convert_layout(_product(one, words, pairs, h, MATRICES, M), vector(PP))
    y = gl.maximum(y + gl.load(bias + gl.arange(0, PP, layout=vector(PP))), 0.0)
    y = gl.convert_layout(_product(two, words, pairs, y, MATRICES, M + 1), vector(256))
    return y + gl.load(bias + PP + gl.arange(0, 256, layout=vector(256)))


@gluon.jit(do_not_specialize=["start", "length", "gates_stride"])
def resident_kernel(
    words,
    pairs,
    past,
    now,
    bias,
    h_BH,
    code_B2,
    sample_B,
    memory_B,
    stream_L,
    steps_L,
    gates_BNG,
    temperature_B,
    codes_BT2,
    audio_BT,
    uniform_BT2,
    known_BT2,
    logits_BT2Q,
    start,
    length,
    gates_stride,
    UNITS: tl.constexpr,
    HP: tl.constexpr,
    PP: tl.constexpr,
    HOP: tl.constexpr,
    A: tl.constexpr,
    SCORE: tl.constexpr,
    MATRICES: tl.constexpr,
):
    """Runs `steps_L[lane]` samples of stream `stream_L[lane]`; MATRICES is `Plan.constants`."""
    lane = gl.program_id(0)
    steps = gl.load(steps_L + lane)
    if steps == 0:
        return
    stream = gl.load(stream_L + lane).to(gl.int64)
    R_u = _held(words, pairs, MATRICES, 0)
    R_r = _held(words, pairs, MATRICES, 1)
    R_e = _held(words, pairs, MATRICES, 2)
    O1 = _held(words, pairs, MATRICES, 3)
    O2 = _held(words, pairs, MATRICES, 4)
    O3 = _held(words, pairs, MATRICES, 5)
    O4 = _held(words, pairs, MATRICES, 6)

    unit = gl.arange(0, HP, layout=vector(HP))
    level = gl.arange(0, 256, layout=vector(256))
    there = unit < UNITS
    h = h_BH + stream * (2 * UNITS) + unit
    h_c = gl.load(h, mask=there, other=0)
    h_f = gl.load(h + UNITS, mask=there, other=0)
    c = gl.load(code_B2 + stream * 2)
    f = gl.load(code_B2 + stream * 2 + 1)
    memory = gl.load(memory_B + stream)
    sample = gl.load(sample_B + stream)
    temperature = gl.load(temperature_B + stream)
    # samples since the row of gate input began that is the call's first
    phase = ((sample - start) % HOP).to(gl.int32) + start
    gates = gates_BNG + stream * gates_stride + unit
    first = stream * length + start

    for t in range(steps):
        c_row = past + c * (2 * HP) + unit
        f_row = past + (256 + f) * (2 * HP) + unit
        cond = gates + ((phase + t) // HOP).to(gl.int64) * (6 * UNITS)
        cu, cr, ce = _row(c_row)
        fu, fr, fe = _row(f_row)
        gu, gr, ge = _conditioning(cond, UNITS, there)
        past_h = gl.reshape(gl.join(h_c, h_f), [2 * HP])
        u_c, u_f = _halves(_product(R_u, words, pairs, past_h, MATRICES, 0), HP)
        r_c, r_f = _halves(_product(R_r, words, pairs, past_h, MATRICES, 1), HP)
        e_c, e_f = _halves(_product(R_e, words, pairs, past_h, MATRICES, 2), HP)

        # equation 2, coarse half
        h_c = cell(h_c, u_c + (cu + fu + gu), r_c + (cr + fr + gr), e_c, ce + fe + ge)
        logits = _head(O1, O2, words, pairs, bias, h_c, MATRICES, 3, PP)
        # what the fine half adds, so near because it costs registers, so early to be there in time
        cu, cr, ce = _row(c_row + HP)
        fu, fr, fe = _row(f_row + HP)
        gu, gr, ge = _conditioning(cond + UNITS, UNITS, there)
        place = first + t
        if SCORE:
            gl.store(logits_BT2Q + place * 512 + level, logits)
            c = gl.load(known_BT2 + place * 2).to(gl.int32)
        else:
            c = draw(logits / temperature, gl.load(uniform_BT2 + place * 2))

        # equation 2, fine half: c_t reaches it alone
        nu, nr, ne = _row(now + c * HP + unit)
        u_f += cu + fu + gu + nu
        r_f += cr + fr + gr + nr
        h_f = cell(h_f, u_f, r_f, e_f, ce + fe + ge + ne)
        logits = _head(O3, O4, words, pairs, bias, h_f, MATRICES, 5, PP)
        if SCORE:
            gl.store(logits_BT2Q + place * 512 + 256 + level, logits)
            f = gl.load(known_BT2 + place * 2 + 1).to(gl.int32)
        else:
            f = draw(logits / temperature, gl.load(uniform_BT2 + place * 2 + 1))

        memory = de_emphasis(c, f, memory, gl.full([], A, gl.float64))
        gl.store(codes_BT2 + place * 2, c.to(gl.uint8))
        gl.store(codes_BT2 + place * 2 + 1, f.to(gl.uint8))
        gl.store(audio_BT + place, clipped(memory))

    gl.store(h, h_c, mask=there)
    gl.store(h + UNITS, h_f, mask=there)
    gl.store(code_B2 + stream * 2, c)
    gl.store(code_B2 + stream * 2 + 1, f)
    gl.store(memory_B + stream, memory)
    gl.store(sample_B + stream, sample + steps)
