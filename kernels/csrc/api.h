// The engine's C interface: a packed model, streams whose state the caller keeps, one call a chunk.
//
// Letters as in wavernn/__init__.py; 16 rows are a group, the width of every vector type here.
// The caller (kernels/packfile.py, kernels/check.py) has checked everything that a pointer leads to.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WAVERNN_ABI 3
#define WAVERNN_EXPORT __attribute__((visibility("default")))

enum { WAVERNN_FLOAT32 = 0, WAVERNN_INT8 = 1 };

// what a step's time is booked under
enum {
    WAVERNN_RECURRENCE,  // R h
    WAVERNN_GATES,       // input rows, conditioning, u, r, e, h
    WAVERNN_PROJECTION,  // O1, O3
    WAVERNN_QUANTISE,    // their output as activations
    WAVERNN_LOGITS,      // O2, O4
    WAVERNN_SOFTMAX,     // masses and their sums
    WAVERNN_DRAW,        // random numbers, search, samples
    WAVERNN_CONTEXT,     // what sub-tensors see of each other
    WAVERNN_PARTS
};

// Blocks of 16 rows, group by group, columns rising. Bytes and words are whole numbers, 4 columns
// a block; floats have 1. In format int8 R's rows of e and O2 are words, all else is bytes; in
// format float32 all are floats.
typedef struct {
    const void* blocks;         // [K, 16, 4] int8 or int16, [K, 16] float32; aligned to 64 bytes
    const uint16_t* columns;    // [K] first column, over 4 where blocks have 4; NULL: all in order
    const int32_t* starts;      // [groups + 1] first block of each group
    const float* scale;         // [groups, 16] bytes and words: value of a unit of the row
    const int32_t* correction;  // [groups, 16] bytes and words: where the sum starts
    const float* bias;          // [groups, 16]; NULL for R, whose bias comes with the gate input
    int32_t groups;
} wavernn_matrix;

// Units are padded to groups: half = ceil(H / 2 / 16) * 16, projection likewise. Gates are scaled
// for powers of two: rows of u and r by -log2(e), rows of e by -2 log2(e).
typedef struct {
    uint32_t abi, format;
    int32_t units;              // H / 2
    int32_t half, projection;   // padded
    int32_t hop;                // samples that share a row of gate input
    double pre_emphasis;
    wavernn_matrix gates[2];      // R's rows of u and r, by half: groups [half / 16][u, r]
    wavernn_matrix candidate[2];  // and of e: groups [half / 16]; all over columns [2][half]
    wavernn_matrix heads[4];      // O1..O4
    const void* past;           // [c, f][Q][coarse, fine][half / 16][u, r, e][16] int16 or float32
    const void* now;            // [Q][half / 16][u, r, e][16] of c_t, fine half alone
    float rows_scale[3];        // int16: value of a unit in rows of u, r, e
} wavernn_model;

// B streams, T samples of those in `rows`. Arrays are C-contiguous, stream by stream.
typedef struct {
    uint32_t abi;
    int32_t lanes;              // how many streams take part
    const int32_t* rows;        // [lanes] which
    int64_t samples;            // T
    // state
    float* h;                   // [B, 2, half]
    uint8_t* code;              // [B, 2]
    int64_t* sample;            // [B]
    double* memory;             // [B] last output sample, before it was clipped
    // input
    const float* gates;         // [B, *, 3H] from the row of the stream's next sample on
    int64_t gates_stride;       // elements from stream to stream
    const uint64_t* seed;       // [B] draws come from Philox, or
    const float* uniform;       // [B, T, 2] are given, or
    const uint8_t* known;       // [B, T, 2] codes are
    const float* temperature;   // [B]
    // output, each may be NULL
    uint8_t* codes;             // [B, T, 2]
    float* audio;               // [B, T] de-emphasised, in [-1, 1)
    float* logits;              // [2, B, T, Q]
    int64_t streams;            // B
    // one chunk may be run by several threads, each with its rank: rows of matrices are split
    int32_t rank, ranks;
    uint32_t* barrier;          // [32] zeros, shared by the ranks
    void* workspace;            // wavernn_workspace_bytes, 64-byte aligned, shared by the ranks
    uint64_t* ticks;            // [WAVERNN_CONTEXT] of the time-stamp counter are added to; NULL: not
} wavernn_call;

// What sub-tensors see of each other (wavernn/context.py), float32. C is padded to groups.
typedef struct {
    int32_t factor, horizon;    // U <= 64, F
    int32_t layers, channels;   // J <= 16, C
    const float* coarse;        // [U - 1][Q][C] W_d phi of a coarse byte with f = 0, d = 1 first
    const float* fine;          // [U - 1][C] what a unit of f adds to it
    const float* lanes;         // [U, C] l
    wavernn_matrix taps[16];    // V and V' side by side: groups of C over columns [older, newer][C]
    // X's rows of e by half, over C columns; its rows of u and r are columns [2][half], C of R's
    wavernn_matrix candidate[2];
} wavernn_context;

// words that ranks meet at
#define WAVERNN_MEETING 640

// One utterance of a subscale voice, T ticks. W samples are at hand, from sample `base` on.
typedef struct {
    uint32_t abi;
    int32_t rank, ranks;        // threads that may take part; 0 must, others when they come
    int64_t first, ticks;       // begins with the tick -2^J, when nothing is remembered
    int64_t given, base;        // samples that the utterance has, as far as is known
    int64_t window;             // W
    // state
    float* h;                   // [U, 2, half]
    uint8_t* code;              // [U, 2]
    // both are shared by the ranks and aligned to 64 bytes
    void* workspace;            // wavernn_utterance_bytes of as many ranks or more; lasts
    uint32_t* meeting;          // [WAVERNN_MEETING], zeros before each call
    // input
    const float* gates;         // [*, 3H] from the row of sample `base` on
    const uint64_t* seed;       // [1] draws come from Philox, or
    const float* uniform;       // [W, 2] are given, or
    const uint8_t* known;       // [W, 2] codes are
    const float* temperature;   // [1]
    // output
    uint8_t* codes;             // [W, 2], read as well
    float* logits;              // [2, W, Q] or NULL
    uint64_t* times;            // [WAVERNN_PARTS] as ticks of wavernn_call, for one rank
} wavernn_utterance;

// A fused voice (wavernn/fused.py), whose state has 8 parts [nibble][sample] of H / 8 units each,
// padded to groups. Rows of u, r and e and the rows of input are scaled as those of wavernn_model.
typedef struct {
    uint32_t abi, format;
    int32_t units;              // H / 8
    int32_t part, projection;   // padded
    int32_t hop;                // samples that share a row of gate input
    wavernn_matrix gates;       // R's rows of u and r: groups [8][part / 16][u, r]
    wavernn_matrix candidate;   // and of e: groups [8][part / 16]; all over columns [8][part]
    wavernn_matrix first[4];    // O1 and O3 by nibble: groups [sample][projection / 16]
    wavernn_matrix second[4];   // O2 and O4: groups [sample], of 16 levels
    // int16 or float32; a group is [u, r, e][16]
    const void* past;           // [4][Q][8][part / 16] of the coarse bytes of known samples
    const void* now;            // [Q][nibble 2, 3][sample][part / 16] of a step's coarse bytes
    const void* upper;          // [nibble 1, 3][16][sample][part / 16] of their upper nibbles
    const float* fine;          // [4][8][part / 16] what a unit of a known fine byte adds
    float rows_scale[3];        // int16: value of a unit in rows of u, r, e
} wavernn_fused;

// 0, or 1 where the abi or the instruction set isn't of this library.
WAVERNN_EXPORT int32_t wavernn_run(const char* isa, const wavernn_model*, const wavernn_call*);
WAVERNN_EXPORT uint64_t wavernn_workspace_bytes(const wavernn_model*, int32_t lanes, int32_t ranks);
WAVERNN_EXPORT int32_t wavernn_run_utterance(const char* isa, const wavernn_model*,
                                             const wavernn_context*, const wavernn_utterance*);
// Holds for any number of ranks up to that.
WAVERNN_EXPORT uint64_t wavernn_utterance_bytes(const char* isa, const wavernn_model*,
                                                const wavernn_context*, int32_t ranks);
// The same for a fused voice, a step a tick, on one thread: h is [8, part], `code` and `meeting`
// aren't used, and logits are [2, W, 2, 16].
WAVERNN_EXPORT int32_t wavernn_run_fused(const char* isa, const wavernn_fused*,
                                         const wavernn_utterance*);
WAVERNN_EXPORT uint64_t wavernn_fused_bytes(const wavernn_fused*);
// Codes [T, 2] to audio [T] as wavernn_run gives it; `memory` is its last sample before clipping.
WAVERNN_EXPORT void wavernn_de_emphasis(const uint8_t* codes, int64_t samples, double a,
                                        double* memory, float* audio);
// Names of the instruction sets that this build has and this machine runs, best first, by commas.
WAVERNN_EXPORT const char* wavernn_isas(void);
WAVERNN_EXPORT uint32_t wavernn_abi(void);

// The machine's own limits, for `wavernn bench`: bytes per second that are read from a buffer in
// `passes` passes, and multiply-adds per second of float32 FMA (0) and int8 dot products (1).
WAVERNN_EXPORT double wavernn_read_rate(const char* isa, const void* buffer, int64_t bytes,
                                         int64_t passes);
WAVERNN_EXPORT double wavernn_multiply_rate(const char* isa, int32_t format, int64_t rounds);
WAVERNN_EXPORT uint64_t wavernn_ticks(void);

#ifdef __cplusplus
}
#endif
