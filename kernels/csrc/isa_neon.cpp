#include "platform.h"

#if defined(__aarch64__)
#if !defined(__clang__)
#pragma GCC target("arch=armv8.2-a+dotprod")
// it would load so far ahead that sums no longer fit the registers
#pragma GCC optimize("no-schedule-insns")
#endif
#include <arm_neon.h>
#if !defined(WIDTHS)
#define WIDTHS Widths<8, 4, 2, 1>()
#endif
namespace {
#include "simd_neon.h"
#include "isa.h"
}  // namespace
extern const Isa isa_neon;
const Isa isa_neon = {"neon", run, workspace_bytes, run_utterance, utterance_bytes,
                      run_fused, fused_bytes, read_rate, multiply_rate};
#endif
