#include "platform.h"

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,popcnt")
#endif
#if !defined(WIDTHS)
#define WIDTHS Widths<8, 4, 2, 1>()
#endif
namespace {
#include "simd_avx2.h"
#include "isa.h"
}  // namespace
extern const Isa isa_avx2;
const Isa isa_avx2 = {"avx2", run, workspace_bytes, run_utterance, utterance_bytes,
                      run_fused, fused_bytes, read_rate, multiply_rate};
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
