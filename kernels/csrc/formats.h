// Which kind of weights each matrix has, what h is as activations, and the input rows.
#pragma once

// what stands for a row that isn't there
const int16_t no_row[16] = {};

// Bytes, but words where bytes cost too much: in the candidate's rows of R, whose products are
// large and add up over time, and in O2, whose distribution is sharp (kernels/README.md).
struct Int8 {
    typedef Bytes Gate;
    typedef Words Candidate;
    typedef Bytes Projection;
    typedef Words Coarse;
    typedef Bytes Fine;
    typedef int16_t row;
    // h in [-1, 1]
    struct State {
        uint8_t* bytes;   // zero point 128, unit 1/127
        int16_t* words;   // unit 1/2047
    };
    static INLINE const uint8_t* gate(const State& x) { return x.bytes; }
    static INLINE const int16_t* candidate(const State& x) { return x.words; }

    static INLINE void put(const State& x, size_t at, vf h) {
        store_narrow(x.bytes + at, to_int(fma(h, all(127.0f), all(128.0f))));
        store_narrow(x.words + at, to_int(mul(h, all(2047.0f))));
    }

    // the sum of the rows of two or three codes, and `more`
    static INLINE vf rows(const wavernn_model& m, int gate, const row* c, const row* f, vf more) {
        return fma(to_float(widen_sum(c, f)), all(m.rows_scale[gate]), more);
    }
    static INLINE vf rows(const wavernn_model& m, int gate, const row* c, const row* f,
                          const row* now, vf more) {
        return fma(to_float(widen_sum(c, f, now)), all(m.rows_scale[gate]), more);
    }

    // the same in steps, for fused voices: sums of up to four rows and of one, which are scaled last
    static INLINE vi four(const row* const* p, size_t at) {
        return add(widen_sum(p[0] + at, p[1] + at), widen_sum(p[2] + at, p[3] + at));
    }
    static INLINE vi plus(vi sum, const row* p) { return add(sum, widen_sum(p, no_row)); }
    static INLINE vf scaled(vi sum, float scale, vf more) {
        return fma(to_float(sum), all(scale), more);
    }
    static void at(State& x, char* bytes, char* words) {
        x = {(uint8_t*)bytes, (int16_t*)words};
    }
};

struct Float32 {
    typedef Floats Gate, Candidate, Projection, Coarse, Fine;
    typedef float row;
    struct State {
        float* floats;
    };
    static INLINE const float* gate(const State& x) { return x.floats; }
    static INLINE const float* candidate(const State& x) { return x.floats; }

    static INLINE void put(const State& x, size_t at, vf h) { store(x.floats + at, h); }

    static INLINE vf rows(const wavernn_model&, int, const row* c, const row* f, vf more) {
        return add(add(load(c), load(f)), more);
    }
    static INLINE vf rows(const wavernn_model&, int, const row* c, const row* f, const row* now,
                          vf more) {
        return add(add(add(load(c), load(f)), load(now)), more);
    }

    static INLINE vf four(const row* const* p, size_t at) {
        return add(add(load(p[0] + at), load(p[1] + at)), add(load(p[2] + at), load(p[3] + at)));
    }
    static INLINE vf plus(vf sum, const row* p) { return add(sum, load(p)); }
    static INLINE vf scaled(vf sum, float, vf more) { return add(sum, more); }
    static void at(State& x, char* floats, char*) { x = {(float*)floats}; }
};
