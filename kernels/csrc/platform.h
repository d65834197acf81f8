// What is common to all instruction sets, and what an instruction set offers.
#pragma once
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <type_traits>

#include "api.h"

#define INLINE inline __attribute__((always_inline))
// before a loop over registers, which an array of vectors must be
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

struct Isa {
    const char* name;
    void (*run)(const wavernn_model&, const wavernn_call&);
    uint64_t (*workspace_bytes)(const wavernn_model&, int32_t lanes, int32_t ranks);
    void (*run_utterance)(const wavernn_model&, const wavernn_context&, const wavernn_utterance&);
    uint64_t (*utterance_bytes)(const wavernn_model&, const wavernn_context&, int ranks);
    void (*run_fused)(const wavernn_fused&, const wavernn_utterance&);
    uint64_t (*fused_bytes)(const wavernn_fused&);
    double (*read_rate)(const void* buffer, int64_t bytes, int64_t passes);
    double (*multiply_rate)(int32_t format, int64_t rounds);
};

// numbers of streams that a loop is compiled for, falling
template <int... N>
struct Widths {};

uint64_t time_stamp();
double seconds();

static inline void yield_processor() { sched_yield(); }
static inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
