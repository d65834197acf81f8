// Sixteen lanes in two 256-bit registers.
#pragma once

struct vf {
    __m256 a, b;
};
struct vi {
    __m256i a, b;
};
// 16 rows x 4 columns of int8, or 8 rows x 4 columns of int16
typedef vi block;

// streams whose sums fit the registers: whole numbers, float32 (which has 4 sums each)
constexpr int TILE_INT = 4, TILE_FLOAT = 1;

INLINE vf load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE __m256i load8(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
INLINE vi load(const int32_t* p) { return {load8(p), load8(p + 8)}; }
INLINE block load_block(const void* p) { return {load8(p), load8((const char*)p + 32)}; }
INLINE void store(float* p, vf x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
INLINE void store(int32_t* p, vi x) {
    _mm256_storeu_si256((__m256i*)p, x.a);
    _mm256_storeu_si256((__m256i*)(p + 8), x.b);
}
INLINE vf all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE vi all(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }

INLINE vf fma(vf x, vf y, vf z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
INLINE vf add(vf x, vf y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
INLINE vf sub(vf x, vf y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
INLINE vf mul(vf x, vf y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
INLINE vf div(vf x, vf y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
INLINE vf min(vf x, vf y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
INLINE vf max(vf x, vf y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
INLINE vi add(vi x, vi y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }

INLINE vf to_float(vi x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
// rounds half to even
INLINE vi to_int(vf x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
// what is left beside the nearest whole number, half to even; `near` is x + 1.5 * 2^23
INLINE vf fraction(vf x, vf near) { return sub(x, sub(near, all(12582912.0f))); }
INLINE vi bits(vf x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
INLINE vf floats(vi x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
INLINE vi to_exponent(vi x) { return {_mm256_slli_epi32(x.a, 23), _mm256_slli_epi32(x.b, 23)}; }

INLINE vi widen(__m256i x) {
    return {_mm256_cvtepi16_epi32(_mm256_castsi256_si128(x)),
            _mm256_cvtepi16_epi32(_mm256_extracti128_si256(x, 1))};
}
// sums that fit 16 bit
INLINE vi widen_sum(const int16_t* x, const int16_t* y) {
    return widen(_mm256_add_epi16(load8(x), load8(y)));
}
INLINE vi widen_sum(const int16_t* x, const int16_t* y, const int16_t* z) {
    return widen(_mm256_add_epi16(_mm256_add_epi16(load8(x), load8(y)), load8(z)));
}
INLINE __m256i words(vi x) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
}
// values that fit, as 16 bytes or words
INLINE void store_narrow(int16_t* p, vi x) { _mm256_storeu_si256((__m256i*)p, words(x)); }
INLINE void store_narrow(uint8_t* p, vi x) {
    const __m256i w = words(x);
    _mm_storeu_si128((__m128i*)p, _mm_packus_epi16(_mm256_castsi256_si128(w),
                                                  _mm256_extracti128_si256(w, 1)));
}

INLINE float highest(vf x) {
    const __m256 m = _mm256_max_ps(x.a, x.b);
    __m128 n = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    n = _mm_max_ps(n, _mm_movehl_ps(n, n));
    return _mm_cvtss_f32(_mm_max_ss(n, _mm_movehdup_ps(n)));
}

INLINE __m256i running_sum(__m256i x) {
    x = _mm256_add_epi32(x, _mm256_slli_si256(x, 4));
    x = _mm256_add_epi32(x, _mm256_slli_si256(x, 8));
    // the lower quarter's sum goes into the upper one
    const __m256i low = _mm256_permute2x128_si256(x, x, 0x08);
    return _mm256_add_epi32(x, _mm256_shuffle_epi32(low, 0xff));
}
// lane i of the result is the sum of lanes 0..i
INLINE vi running_sum(vi x) {
    const __m256i a = running_sum(x.a), b = running_sum(x.b);
    const __m256i last = _mm256_permutevar8x32_epi32(a, _mm256_set1_epi32(7));
    return {a, _mm256_add_epi32(b, last)};
}
INLINE int count_at_most(vi x, uint32_t limit) {
    // there is no unsigned comparison
    const __m256i sign = _mm256_set1_epi32((int)0x80000000);
    const __m256i most = _mm256_xor_si256(_mm256_set1_epi32((int)limit), sign);
    const __m256i above_a = _mm256_cmpgt_epi32(_mm256_xor_si256(x.a, sign), most);
    const __m256i above_b = _mm256_cmpgt_epi32(_mm256_xor_si256(x.b, sign), most);
    return 16 - __builtin_popcount(_mm256_movemask_ps(_mm256_castsi256_ps(above_a)))
              - __builtin_popcount(_mm256_movemask_ps(_mm256_castsi256_ps(above_b)));
}

INLINE __m256i sums8(const vi* x) {
    __m256i s[4];
    UNROLL for (int i = 0; i < 4; i++)
        s[i] = _mm256_hadd_epi32(_mm256_add_epi32(x[2 * i].a, x[2 * i].b),
                                 _mm256_add_epi32(x[2 * i + 1].a, x[2 * i + 1].b));
    const __m256i low = _mm256_hadd_epi32(s[0], s[1]), high = _mm256_hadd_epi32(s[2], s[3]);
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                            _mm256_permute2x128_si256(low, high, 0x31));
}
// lane i of the result is the sum of the lanes of x[i]
INLINE vi sums(const vi* x) { return {sums8(x), sums8(x + 8)}; }

INLINE __m256i dot8(__m256i w, __m256i even, __m256i odd) {
    const __m256i one = _mm256_set1_epi16(1);
    return _mm256_add_epi32(_mm256_madd_epi16(_mm256_maddubs_epi16(even, w), one),
                            _mm256_madd_epi16(_mm256_maddubs_epi16(odd, w), one));
}
INLINE __m256i all_of(const void* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}
// adds each row's product with 4 activations; exact
INLINE vi dot(vi sum, block w, const uint8_t* x) {
    // with every other activation zero, the pairs of products that vpmaddubsw adds fit 16 bit
    const __m256i mask = _mm256_set1_epi32(0x00ff00ff);
    const __m256i even = _mm256_and_si256(all_of(x), mask);
    const __m256i odd = _mm256_andnot_si256(mask, all_of(x));
    return {_mm256_add_epi32(sum.a, dot8(w.a, even, odd)),
            _mm256_add_epi32(sum.b, dot8(w.b, even, odd))};
}
// adds each row's product with 4 activations, in two lanes a row
INLINE vi dot(vi sum, block w, const int16_t* x) {
    int64_t four;
    __builtin_memcpy(&four, x, 8);
    const __m256i xs = _mm256_set1_epi64x(four);
    return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(xs, w.a)),
            _mm256_add_epi32(sum.b, _mm256_madd_epi16(xs, w.b))};
}
// sums of neighbouring lanes: those of a, then those of b
INLINE __m256i pair_sums8(vi x) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(x.a, x.b), 0xd8);
}
INLINE vi pair_sums(vi x, vi y) { return {pair_sums8(x), pair_sums8(y)}; }
