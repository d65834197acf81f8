// The engine for one instruction set. Included by isa_*.cpp within a namespace of its own, after
// a simd_*.h; nothing here may be an inline function of a library, since the linker would keep
// one copy for all.
#pragma once

#include "maths.h"
#include "matvec.h"
#include "formats.h"
#include "draw.h"
#include "chunk.h"
#include "loop.h"
#include "subscale.h"
#include "utterance.h"
#include "fused.h"
#include "roofs.h"

// Streams run together in the largest groups that this instruction set is compiled for; those of
// `left` streams that don't fill a group of N are left to smaller groups.
template <class F, int N>
void run_groups(const wavernn_model& m, wavernn_call& call, int32_t& left) {
    for (; left >= N; left -= N, call.rows += N) Loop<F, N>::run(m, call);
}

template <class F, int... N>
void run_format(const wavernn_model& m, wavernn_call call, Widths<N...>) {
    int32_t left = call.lanes;
    (run_groups<F, N>(m, call, left), ...);
}

void run(const wavernn_model& m, const wavernn_call& call) {
    if (m.format == WAVERNN_INT8)
        run_format<Int8>(m, call, WIDTHS);
    else
        run_format<Float32>(m, call, WIDTHS);
}

uint64_t workspace_bytes(const wavernn_model& m, int32_t lanes, int32_t ranks) {
    return m.format == WAVERNN_INT8 ? Workspace<Int8>().lay_out(m, lanes, nullptr, 0, ranks)
                                    : Workspace<Float32>().lay_out(m, lanes, nullptr, 0, ranks);
}
