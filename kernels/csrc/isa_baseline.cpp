#include "platform.h"

// lanes are arrays here, which neither of the two would make faster
#undef INLINE
#undef UNROLL
#define INLINE inline
#define UNROLL

#if !defined(WIDTHS)
#define WIDTHS Widths<1>()
#endif
namespace {
#include "simd_baseline.h"
#include "isa.h"
}  // namespace
extern const Isa isa_baseline;
const Isa isa_baseline = {"baseline", run, workspace_bytes, run_utterance, utterance_bytes,
                      run_fused, fused_bytes, read_rate, multiply_rate};
