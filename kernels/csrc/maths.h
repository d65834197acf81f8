// The elementwise mathematics: powers of two and the GRU cell.
//
// Only operations that IEEE 754 defines, in one order, so that every instruction set gives the same
// bits. The loop flushes subnormal numbers to zero, which `power` counts on.
#pragma once

// 2^x for x <= 63, relative error 1.5e-7; exactly 1 at 0, and 0 below -126
INLINE vf power(vf x) {
    // at -126.4 the exponent's bits come out zero: a subnormal number
    x = max(x, all(-126.4f));
    // this leaves the nearest whole number in the low bits
    const vf near = add(x, all(12582912.0f));
    const vf r = fraction(x, near), r2 = mul(r, r);
    // the polynomial p, p(0) = 1, of least relative error on [-1/2, 1/2], by Estrin's scheme: cells
    // are bound by how long they take rather than by how many operations they are
    const vf p45 = fma(r, all(0x1.5bba14p-10f), all(0x1.3cea88p-7f));
    const vf p23 = fma(r, all(0x1.c6b752p-5f), all(0x1.ebf9bcp-3f));
    const vf p01 = fma(r, all(0x1.62e42ap-1f), all(1.0f));
    const vf p = fma(r2, fma(r2, p45, p23), p01);
    return floats(add(bits(p), to_exponent(bits(near))));
}

// Kalchbrenner et al. 2018, equation 2: h_t of 16 units. `u` and `r` are the arguments of the
// gates, Rh and Ix those of e, all in powers of two. With a = exp(-arg u), b = exp(-2 arg e),
//   u = 1 / (1 + a), e = (1 - b) / (1 + b),
//   u h + (1 - u) e = (h (1 + b) + a (1 - b)) / ((1 + a) (1 + b)):
// one division instead of two. a, b <= 2^63, so nothing overflows.
INLINE vf cell(vf u, vf r, vf Rh, vf Ix, vf h) {
    const vf one = all(1.0f), most = all(63.0f);
    const vf a = power(min(u, most));
    r = div(one, add(one, power(min(r, most))));
    const vf b = power(min(fma(r, Rh, Ix), most)), one_b = add(one, b);
    return div(fma(h, one_b, mul(a, sub(one, b))), mul(add(one, a), one_b));
}

// bounded, so that a voice whose sums overflow gives rubbish, but finite and the same everywhere
INLINE vf relu(vf a) { return min(max(a, all(0.0f)), all(0x1p100f)); }
