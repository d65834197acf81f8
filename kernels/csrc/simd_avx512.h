// Sixteen lanes in one 512-bit register.
#pragma once

typedef __m512 vf;
typedef __m512i vi;
// 16 rows x 4 columns of int8, or 8 rows x 4 columns of int16
typedef __m512i block;

// streams whose sums fit the registers: whole numbers, float32 (which has 4 sums each)
constexpr int TILE_INT = 8, TILE_FLOAT = 4;

INLINE vf load(const float* p) { return _mm512_loadu_ps(p); }
INLINE vi load(const int32_t* p) { return _mm512_loadu_si512(p); }
INLINE block load_block(const void* p) { return _mm512_load_si512(p); }
INLINE void store(float* p, vf a) { _mm512_storeu_ps(p, a); }
INLINE void store(int32_t* p, vi a) { _mm512_storeu_si512(p, a); }
INLINE vf all(float a) { return _mm512_set1_ps(a); }
INLINE vi all(int32_t a) { return _mm512_set1_epi32(a); }

INLINE vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vi add(vi a, vi b) { return _mm512_add_epi32(a, b); }

INLINE vf to_float(vi a) { return _mm512_cvtepi32_ps(a); }
// rounds half to even
INLINE vi to_int(vf a) { return _mm512_cvtps_epi32(a); }
// what is left beside the nearest whole number, half to even; `near` is a + 1.5 * 2^23
INLINE vf fraction(vf a, vf) { return _mm512_reduce_ps(a, 0); }
INLINE vi bits(vf a) { return _mm512_castps_si512(a); }
INLINE vf floats(vi a) { return _mm512_castsi512_ps(a); }
INLINE vi to_exponent(vi a) { return _mm512_slli_epi32(a, 23); }

INLINE __m256i load16(const int16_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
// sums that fit 16 bit
INLINE vi widen_sum(const int16_t* a, const int16_t* b) {
    return _mm512_cvtepi16_epi32(_mm256_add_epi16(load16(a), load16(b)));
}
INLINE vi widen_sum(const int16_t* a, const int16_t* b, const int16_t* c) {
    return _mm512_cvtepi16_epi32(
        _mm256_add_epi16(_mm256_add_epi16(load16(a), load16(b)), load16(c)));
}
// values that fit, as 16 bytes or words
INLINE void store_narrow(uint8_t* p, vi a) {
    _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a));
}
INLINE void store_narrow(int16_t* p, vi a) {
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(a));
}

INLINE float highest(vf a) { return _mm512_reduce_max_ps(a); }

// lane i of the result is the sum of lanes 0..i
INLINE vi running_sum(vi a) {
    const vi zero = _mm512_setzero_si512();
    a = _mm512_add_epi32(a, _mm512_alignr_epi32(a, zero, 15));
    a = _mm512_add_epi32(a, _mm512_alignr_epi32(a, zero, 14));
    a = _mm512_add_epi32(a, _mm512_alignr_epi32(a, zero, 12));
    return _mm512_add_epi32(a, _mm512_alignr_epi32(a, zero, 8));
}
INLINE int count_at_most(vi a, uint32_t limit) {
    return __builtin_popcount(_mm512_cmple_epu32_mask(a, _mm512_set1_epi32((int)limit)));
}

// sums of neighbouring quarters: those of a, then those of b
INLINE vi halve(vi a, vi b) {
    return add(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}
// lane i of the result is the sum of the lanes of a[i]
INLINE vi sums(const vi* a) {
    vi b[8], c[4];
    UNROLL for (int i = 0; i < 8; i++)
        b[i] = add(_mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]),
                   _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]));
    UNROLL for (int i = 0; i < 4; i++)
        c[i] = add(_mm512_unpacklo_epi64(b[2 * i], b[2 * i + 1]),
                   _mm512_unpackhi_epi64(b[2 * i], b[2 * i + 1]));
    // c[i] holds, in each 128-bit quarter, parts of sums 4i..4i+3
    return halve(halve(c[0], c[1]), halve(c[2], c[3]));
}

INLINE vi all_of(const void* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return all(four);
}
// adds each row's product with 4 activations; exact
// (as instructions, since gcc copies the sums of these two intrinsics in every round)
INLINE vi dot(vi sum, block w, const uint8_t* x) {
#ifdef WAVERNN_VNNI
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(all_of(x)), "v"(w));
    return sum;
#else
    // with every other activation zero, the pairs of products that vpmaddubsw adds fit 16 bit
    const vi even = _mm512_maddubs_epi16(_mm512_and_si512(all_of(x), all(0x00ff00ff)), w);
    const vi odd = _mm512_maddubs_epi16(_mm512_and_si512(all_of(x), all((int32_t)0xff00ff00)), w);
    const vi one = _mm512_set1_epi16(1);
    return add(sum, add(_mm512_madd_epi16(even, one), _mm512_madd_epi16(odd, one)));
#endif
}
// adds each row's product with 4 activations, in two lanes a row
INLINE vi dot(vi sum, block w, const int16_t* x) {
    int64_t four;
    __builtin_memcpy(&four, x, 8);
#ifdef WAVERNN_VNNI
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(_mm512_set1_epi64(four)), "v"(w));
    return sum;
#else
    return add(sum, _mm512_madd_epi16(_mm512_set1_epi64(four), w));
#endif
}
// sums of neighbouring lanes: those of a, then those of b
INLINE vi pair_sums(vi a, vi b) {
    const vi even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const vi odd = add(even, all(1));
    return add(_mm512_permutex2var_epi32(a, even, b), _mm512_permutex2var_epi32(a, odd, b));
}
