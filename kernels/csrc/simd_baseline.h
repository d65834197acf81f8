// Sixteen lanes in an array: any processor, correct rather than fast.
#pragma once

struct vf {
    float v[16];
};
struct vi {
    int32_t v[16];
};
// 16 rows x 4 columns of int8, or 8 rows x 4 columns of int16
struct block {
    const void* p;
};

constexpr int TILE_INT = 2, TILE_FLOAT = 1;

#define LANES for (int i = 0; i < 16; i++)
#define EACH(type, expression) \
    type result; \
    LANES result.v[i] = (expression); \
    return result

template <class T>
INLINE T copy(const void* p) {
    T result;
    __builtin_memcpy(&result, p, sizeof result);
    return result;
}
INLINE vf load(const float* p) { return copy<vf>(p); }
INLINE vi load(const int32_t* p) { return copy<vi>(p); }
INLINE block load_block(const void* p) { return {p}; }
INLINE void store(float* p, vf a) { __builtin_memcpy(p, &a, sizeof a); }
INLINE void store(int32_t* p, vi a) { __builtin_memcpy(p, &a, sizeof a); }
INLINE vf all(float a) { EACH(vf, a); }
INLINE vi all(int32_t a) { EACH(vi, a); }

// rounded once: a call where the processor has no such instruction
INLINE vf fma(vf a, vf b, vf c) { EACH(vf, __builtin_fmaf(a.v[i], b.v[i], c.v[i])); }
INLINE vf add(vf a, vf b) { EACH(vf, a.v[i] + b.v[i]); }
INLINE vf sub(vf a, vf b) { EACH(vf, a.v[i] - b.v[i]); }
INLINE vf mul(vf a, vf b) { EACH(vf, a.v[i] * b.v[i]); }
INLINE vf div(vf a, vf b) { EACH(vf, a.v[i] / b.v[i]); }
// as vminps and vmaxps: b where either isn't a number
INLINE vf min(vf a, vf b) { EACH(vf, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
INLINE vf max(vf a, vf b) { EACH(vf, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
// sums of masses wrap where they are unsigned
INLINE vi add(vi a, vi b) { EACH(vi, (int32_t)((uint32_t)a.v[i] + (uint32_t)b.v[i])); }

INLINE vf to_float(vi a) { EACH(vf, (float)a.v[i]); }
// rounds half to even
INLINE vi to_int(vf a) { EACH(vi, (int32_t)__builtin_rintf(a.v[i])); }
// what is left beside the nearest whole number, half to even; `near` is a + 1.5 * 2^23
INLINE vf fraction(vf a, vf near) { EACH(vf, a.v[i] - (near.v[i] - 12582912.0f)); }
INLINE vi bits(vf a) { return copy<vi>(&a); }
INLINE vf floats(vi a) { return copy<vf>(&a); }
INLINE vi to_exponent(vi a) { EACH(vi, (int32_t)((uint32_t)a.v[i] << 23)); }

// sums that fit 16 bit
INLINE vi widen_sum(const int16_t* a, const int16_t* b) { EACH(vi, a[i] + b[i]); }
INLINE vi widen_sum(const int16_t* a, const int16_t* b, const int16_t* c) {
    EACH(vi, a[i] + b[i] + c[i]);
}
// values that fit, as 16 bytes or words
INLINE void store_narrow(uint8_t* p, vi a) { LANES p[i] = (uint8_t)a.v[i]; }
INLINE void store_narrow(int16_t* p, vi a) { LANES p[i] = (int16_t)a.v[i]; }

INLINE float highest(vf a) {
    float result = a.v[0];
    LANES result = a.v[i] > result ? a.v[i] : result;
    return result;
}

// lane i of the result is the sum of lanes 0..i
INLINE vi running_sum(vi a) {
    uint32_t sum = 0;
    EACH(vi, (int32_t)(sum += (uint32_t)a.v[i]));
}
INLINE int count_at_most(vi a, uint32_t limit) {
    int result = 0;
    LANES result += (uint32_t)a.v[i] <= limit;
    return result;
}
// lane i of the result is the sum of the lanes of a[i]
INLINE vi sums(const vi* a) {
    vi result;
    LANES result.v[i] = running_sum(a[i]).v[15];
    return result;
}

// adds each row's product with 4 activations
INLINE vi dot(vi sum, block w, const uint8_t* x) {
    const int8_t* p = (const int8_t*)w.p;
    LANES for (int j = 0; j < 4; j++) sum.v[i] += p[4 * i + j] * x[j];
    return sum;
}
// adds each row's product with 4 activations, in two lanes a row
INLINE vi dot(vi sum, block w, const int16_t* x) {
    const int16_t* p = (const int16_t*)w.p;
    LANES sum.v[i] += p[2 * i] * x[i % 2 * 2] + p[2 * i + 1] * x[i % 2 * 2 + 1];
    return sum;
}
// sums of neighbouring lanes: those of a, then those of b
INLINE vi pair_sums(vi a, vi b) {
    EACH(vi, i < 8 ? a.v[2 * i] + a.v[2 * i + 1] : b.v[2 * i - 16] + b.v[2 * i - 15]);
}
