// Sixteen lanes in four 128-bit registers: ARMv8.2 with dot products.
#pragma once

struct vf {
    float32x4_t a, b, c, d;
};
struct vi {
    int32x4_t a, b, c, d;
};
// 16 rows x 4 columns of int8, or 8 rows x 4 columns of int16
struct block {
    int8x16_t a, b, c, d;
};

// streams whose sums fit the registers: whole numbers, float32 (which has 4 sums each)
constexpr int TILE_INT = 4, TILE_FLOAT = 1;

#define EACH(f, x) {f((x).a), f((x).b), f((x).c), f((x).d)}
#define PAIRS(f, x, y) {f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d)}

INLINE vf load(const float* p) {
    return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
INLINE vi load(const int32_t* p) {
    return {vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)};
}
INLINE block load_block(const void* p) {
    const int8_t* q = (const int8_t*)p;
    return {vld1q_s8(q), vld1q_s8(q + 16), vld1q_s8(q + 32), vld1q_s8(q + 48)};
}
INLINE void store(float* p, vf x) {
    vst1q_f32(p, x.a), vst1q_f32(p + 4, x.b), vst1q_f32(p + 8, x.c), vst1q_f32(p + 12, x.d);
}
INLINE void store(int32_t* p, vi x) {
    vst1q_s32(p, x.a), vst1q_s32(p + 4, x.b), vst1q_s32(p + 8, x.c), vst1q_s32(p + 12, x.d);
}
INLINE vf all(float x) {
    const float32x4_t four = vdupq_n_f32(x);
    return {four, four, four, four};
}
INLINE vi all(int32_t x) {
    const int32x4_t four = vdupq_n_s32(x);
    return {four, four, four, four};
}

INLINE vf fma(vf x, vf y, vf z) {
    return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
            vfmaq_f32(z.d, x.d, y.d)};
}
INLINE vf add(vf x, vf y) { return PAIRS(vaddq_f32, x, y); }
INLINE vf sub(vf x, vf y) { return PAIRS(vsubq_f32, x, y); }
INLINE vf mul(vf x, vf y) { return PAIRS(vmulq_f32, x, y); }
INLINE vf div(vf x, vf y) { return PAIRS(vdivq_f32, x, y); }
// y where x isn't a number; y always is one
INLINE vf min(vf x, vf y) { return PAIRS(vminnmq_f32, x, y); }
INLINE vf max(vf x, vf y) { return PAIRS(vmaxnmq_f32, x, y); }
INLINE vi add(vi x, vi y) { return PAIRS(vaddq_s32, x, y); }

INLINE vf to_float(vi x) { return EACH(vcvtq_f32_s32, x); }
// rounds half to even
INLINE vi to_int(vf x) { return EACH(vcvtnq_s32_f32, x); }
// what is left beside the nearest whole number, half to even; `near` is x + 1.5 * 2^23
INLINE vf fraction(vf x, vf near) { return sub(x, sub(near, all(12582912.0f))); }
INLINE vi bits(vf x) { return EACH(vreinterpretq_s32_f32, x); }
INLINE vf floats(vi x) { return EACH(vreinterpretq_f32_s32, x); }
INLINE vi to_exponent(vi x) {
    return {vshlq_n_s32(x.a, 23), vshlq_n_s32(x.b, 23), vshlq_n_s32(x.c, 23), vshlq_n_s32(x.d, 23)};
}

INLINE vi widen_sum(int16x8_t x0, int16x8_t x1, const int16_t* y) {
    const int16x8_t y0 = vld1q_s16(y), y1 = vld1q_s16(y + 8);
    return {vaddl_s16(vget_low_s16(x0), vget_low_s16(y0)), vaddl_high_s16(x0, y0),
            vaddl_s16(vget_low_s16(x1), vget_low_s16(y1)), vaddl_high_s16(x1, y1)};
}
// sums that fit 16 bit
INLINE vi widen_sum(const int16_t* x, const int16_t* y) {
    return widen_sum(vld1q_s16(x), vld1q_s16(x + 8), y);
}
INLINE vi widen_sum(const int16_t* x, const int16_t* y, const int16_t* z) {
    return widen_sum(vaddq_s16(vld1q_s16(x), vld1q_s16(y)),
                     vaddq_s16(vld1q_s16(x + 8), vld1q_s16(y + 8)), z);
}
INLINE int16x8_t low_halves(int32x4_t x, int32x4_t y) {
    return vuzp1q_s16(vreinterpretq_s16_s32(x), vreinterpretq_s16_s32(y));
}
// values that fit, as 16 bytes or words
INLINE void store_narrow(int16_t* p, vi x) {
    vst1q_s16(p, low_halves(x.a, x.b)), vst1q_s16(p + 8, low_halves(x.c, x.d));
}
INLINE void store_narrow(uint8_t* p, vi x) {
    vst1q_u8(p, vuzp1q_u8(vreinterpretq_u8_s16(low_halves(x.a, x.b)),
                          vreinterpretq_u8_s16(low_halves(x.c, x.d))));
}

INLINE float highest(vf x) {
    return vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(x.a, x.b), vmaxnmq_f32(x.c, x.d)));
}

INLINE int32x4_t running_sum(int32x4_t x, int32x4_t before) {
    const int32x4_t zero = vdupq_n_s32(0);
    x = vaddq_s32(x, vextq_s32(zero, x, 3));
    x = vaddq_s32(x, vextq_s32(zero, x, 2));
    return vaddq_s32(x, vdupq_laneq_s32(before, 3));
}
// lane i of the result is the sum of lanes 0..i
INLINE vi running_sum(vi x) {
    const int32x4_t a = running_sum(x.a, vdupq_n_s32(0)), b = running_sum(x.b, a);
    const int32x4_t c = running_sum(x.c, b);
    return {a, b, c, running_sum(x.d, c)};
}
INLINE int count_at_most(vi x, uint32_t limit) {
    const uint32x4_t most = vdupq_n_u32(limit);
    // -1 in each lane that counts
    const uint32x4_t ab = vaddq_u32(vcleq_u32(vreinterpretq_u32_s32(x.a), most),
                                    vcleq_u32(vreinterpretq_u32_s32(x.b), most));
    const uint32x4_t cd = vaddq_u32(vcleq_u32(vreinterpretq_u32_s32(x.c), most),
                                    vcleq_u32(vreinterpretq_u32_s32(x.d), most));
    return -(int)vaddvq_u32(vaddq_u32(ab, cd));
}

INLINE int32x4_t sum4(vi x) { return vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d)); }
INLINE int32x4_t sums4(const vi* x) {
    return vpaddq_s32(vpaddq_s32(sum4(x[0]), sum4(x[1])), vpaddq_s32(sum4(x[2]), sum4(x[3])));
}
// lane i of the result is the sum of the lanes of x[i]
INLINE vi sums(const vi* x) { return {sums4(x), sums4(x + 4), sums4(x + 8), sums4(x + 12)}; }

INLINE int32x4_t dot4(int32x4_t sum, int8x16_t w, int8x16_t x) {
    // sdot multiplies signed bytes alone: w (x - 128) and then -w (-128), as w is never -128
    return vdotq_s32(vdotq_s32(sum, w, x), vnegq_s8(w), vdupq_n_s8(-128));
}
// adds each row's product with 4 activations; exact
INLINE vi dot(vi sum, block w, const uint8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    const int8x16_t quad = veorq_s8(vreinterpretq_s8_s32(vdupq_n_s32(four)), vdupq_n_s8(-128));
    return {dot4(sum.a, w.a, quad), dot4(sum.b, w.b, quad), dot4(sum.c, w.c, quad),
            dot4(sum.d, w.d, quad)};
}
// adds a column of 8 rows times activation `lane`
template <int lane>
INLINE void add_column(vi& sum, int16x8_t column, int16x4_t x) {
    sum.a = vmlal_lane_s16(sum.a, vget_low_s16(column), x, lane);
    sum.b = vmlal_high_lane_s16(sum.b, column, x, lane);
}
// adds each row's product with 4 activations, in one of the first 8 lanes a row
INLINE vi dot(vi sum, block w, const int16_t* x) {
    const int16x8_t a = vreinterpretq_s16_s8(w.a), b = vreinterpretq_s16_s8(w.b);
    const int16x8_t c = vreinterpretq_s16_s8(w.c), d = vreinterpretq_s16_s8(w.d);
    const int16x8_t even_ab = vuzp1q_s16(a, b), even_cd = vuzp1q_s16(c, d);
    const int16x8_t odd_ab = vuzp2q_s16(a, b), odd_cd = vuzp2q_s16(c, d);
    const int16x4_t four = vld1_s16(x);
    add_column<0>(sum, vuzp1q_s16(even_ab, even_cd), four);
    add_column<1>(sum, vuzp1q_s16(odd_ab, odd_cd), four);
    add_column<2>(sum, vuzp2q_s16(even_ab, even_cd), four);
    add_column<3>(sum, vuzp2q_s16(odd_ab, odd_cd), four);
    return sum;
}
// the rows of two sums of such products
INLINE vi pair_sums(vi x, vi y) { return {x.a, x.b, y.a, y.b}; }
