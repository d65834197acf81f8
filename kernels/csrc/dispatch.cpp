// The C interface: which instruction set runs, and in which floating-point mode.
#include "platform.h"

#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

extern const Isa isa_avx512vnni, isa_avx512, isa_avx2, isa_neon, isa_baseline;

double seconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

uint64_t time_stamp() {
#if defined(__x86_64__)
    return __rdtsc();
#else
    return (uint64_t)(1e9 * seconds());
#endif
}

namespace {

struct Candidate {
    const Isa* isa;
    bool (*runs)();
};

// best first
const Candidate candidates[] = {
#if defined(__x86_64__)
    {&isa_avx512vnni,
     [] {
         return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
     }},
    {&isa_avx512,
     [] {
         return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512dq");
     }},
    {&isa_avx2, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#elif defined(__aarch64__) && defined(__linux__)
    {&isa_neon, [] { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }},
#elif defined(__aarch64__)
    {&isa_neon, [] { return true; }},
#endif
    {&isa_baseline, [] { return true; }},
};

const Isa* find(const char* name) {
    for (const Candidate& candidate : candidates)
        if (!strcmp(candidate.isa->name, name) && candidate.runs()) return candidate.isa;
    return nullptr;
}

// Numbers too small for their exponent count as 0 while this lives: arithmetic on them is slow.
class FlushToZero {
#if defined(__x86_64__)
    unsigned before = _mm_getcsr();

  public:
    FlushToZero() { _mm_setcsr(before | 0x8040); }
    ~FlushToZero() { _mm_setcsr(before); }
#elif defined(__aarch64__)
    uint64_t before;

  public:
    FlushToZero() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(before));
        __asm__ volatile("msr fpcr, %0" : : "r"(before | (1ull << 24)));
    }
    ~FlushToZero() { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
#else
  public:
    FlushToZero() {}
#endif
};

}  // namespace

uint32_t wavernn_abi(void) { return WAVERNN_ABI; }

uint64_t wavernn_ticks(void) { return time_stamp(); }

const char* wavernn_isas(void) {
    static char names[64];
    if (!names[0])
        for (const Candidate& candidate : candidates)
            if (candidate.runs()) {
                if (names[0]) strcat(names, ",");
                strcat(names, candidate.isa->name);
            }
    return names;
}

int32_t wavernn_run(const char* isa, const wavernn_model* model, const wavernn_call* call) {
    const Isa* found = find(isa);
    if (!found || model->abi != WAVERNN_ABI || call->abi != WAVERNN_ABI) return 1;
    FlushToZero mode;
    found->run(*model, *call);
    return 0;
}

int32_t wavernn_run_utterance(const char* isa, const wavernn_model* model,
                              const wavernn_context* context, const wavernn_utterance* u) {
    const Isa* found = find(isa);
    if (!found || model->abi != WAVERNN_ABI || u->abi != WAVERNN_ABI) return 1;
    FlushToZero mode;
    found->run_utterance(*model, *context, *u);
    return 0;
}

uint64_t wavernn_utterance_bytes(const char* isa, const wavernn_model* model,
                                 const wavernn_context* context, int32_t ranks) {
    const Isa* found = find(isa);
    return found ? found->utterance_bytes(*model, *context, ranks) : 0;
}

int32_t wavernn_run_fused(const char* isa, const wavernn_fused* model, const wavernn_utterance* u) {
    const Isa* found = find(isa);
    if (!found || model->abi != WAVERNN_ABI || u->abi != WAVERNN_ABI) return 1;
    FlushToZero mode;
    found->run_fused(*model, *u);
    return 0;
}

uint64_t wavernn_fused_bytes(const wavernn_fused* model) {
    return isa_baseline.fused_bytes(*model);
}

void wavernn_de_emphasis(const uint8_t* codes, int64_t samples, double a, double* memory,
                         float* audio) {
    for (int64_t t = 0; t < samples; t++) {
        // the product and the sum rounded apart, as in loop.h
        const double y = (256 * codes[2 * t] + codes[2 * t + 1] - 32768) * 0x1p-15;
        const double x = *memory = y + a * *memory;
        const double high = 32767.0 / 32768;
        audio[t] = (float)(x < -1 ? -1 : x > high ? high : x);
    }
}

uint64_t wavernn_workspace_bytes(const wavernn_model* model, int32_t lanes, int32_t ranks) {
    return isa_baseline.workspace_bytes(*model, lanes, ranks);
}

double wavernn_read_rate(const char* isa, const void* buffer, int64_t bytes, int64_t passes) {
    const Isa* found = find(isa);
    return found ? found->read_rate(buffer, bytes, passes) : 0;
}

double wavernn_multiply_rate(const char* isa, int32_t format, int64_t rounds) {
    const Isa* found = find(isa);
    return found ? found->multiply_rate(format, rounds) : 0;
}
