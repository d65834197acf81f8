// One utterance of a subscale voice, tick by tick: its U sub-tensors as the lanes of `Loop`.
//
// Kalchbrenner et al. 2018, section 4; wavernn/context.py has the equations of the context, and
// wavernn/subscale.py says which lane makes which sample at which tick. In each tick every lane
// takes in one column of its context, and what later columns need of it is kept in rings. Nothing
// that a lane reads was made in the same tick, so groups of lanes run in any order (utterance.h).
// What lasts from call to call (rings, h, codes) doesn't depend on the groups.
#pragma once

// [columns][C / 16][U][16] floats: of e the last F + 1, of layer j's input the last 2^j
size_t ring_bytes(const wavernn_context& context) {
    const size_t columns = (size_t)context.horizon + ((size_t)1 << context.layers);
    return columns * context.channels * context.factor * 4;
}

template <class F, int N>
struct Group : Loop<F, N, true> {
    typedef Loop<F, N, true> Base;
    using Base::lanes;
    using Base::m;
    using Base::space;

    const wavernn_context& context;
    const wavernn_utterance& u;
    const int first;  // sub-tensor of the first lane
    const int C;      // channels, padded
    const int lag, reach;
    float* rings;     // of this group's first lane, see `ring_bytes`
    float *x, *both;  // a column, and an older one with it: [C / 16][N][16], twice that
    float* spare;     // h of lanes that are idle

    static void* operator new(size_t, void* place) { return place; }

    // places everything from `base` on, which may be null, and returns the bytes that it takes
    static size_t lay_out(const wavernn_model& m, const wavernn_context& context, char* base,
                          char* parts[3]) {
        const size_t column = (size_t)context.channels * N * 4;
        const size_t sizes[3] = {column, 2 * column, (size_t)m.half * 8};
        size_t at = 0;
        for (int i = 0; i < 3; i++) {
            if (base) parts[i] = base + at;
            at += (sizes[i] + 63) & ~(size_t)63;
        }
        return at;
    }
    static size_t bytes(const wavernn_model& m, const wavernn_context& context) {
        const size_t own = (sizeof(Group) + 63) & ~(size_t)63;
        return lay_out(m, context, nullptr, nullptr) + own +
               Workspace<F>().lay_out(m, N, nullptr, 0, 1, (size_t)context.channels);
    }

    static Group* make(const wavernn_model& m, const wavernn_context& context,
                       const wavernn_utterance& u, const wavernn_call& call, int first,
                       char* base) {
        char* parts[3];
        char* own = base + lay_out(m, context, base, parts);
        char* more = own + ((sizeof(Group) + 63) & ~(size_t)63);
        return new (own) Group(m, context, u, call, first, parts, more);
    }

    Group(const wavernn_model& model, const wavernn_context& context, const wavernn_utterance& u,
          const wavernn_call& call, int first, char* parts[3], char* workspace)
        : Base(model, call, workspace, (size_t)context.channels), context(context), u(u), first(first),
          C(context.channels), lag(context.horizon + 1), reach(1 << context.layers),
          rings((float*)u.workspace + 16 * first), x((float*)parts[0]), both((float*)parts[1]),
          spare((float*)parts[2]) {
        this->X_e = context.candidate;
        for (int i = 0; i < 2 * m.half; i++) spare[i] = 0;
        // an idle lane's conditioning must be numbers
        for (size_t i = 0; i < (size_t)N * 6 * m.half; i++) space.cond[i] = 0;
        for (Lane& lane : lanes) {
            lane.row = 0, lane.memory = 0, lane.left = 0, lane.draws = {0, 0};
            rest(lane);
        }
    }

    void rest(Lane& lane) const {
        lane.idle = true, lane.gates = nullptr, lane.h = spare;
        lane.c = lane.c_now = 128, lane.f = 0, lane.place = lane.sample = 0;
    }
    void wake(int n) {
        Lane& lane = lanes[n];
        const int s = first + n;
        lane.idle = false, lane.h = u.h + 2 * (size_t)m.half * s;
        lane.c = lane.c_now = u.code[2 * s], lane.f = u.code[2 * s + 1];
        for (int g = 0; g < 2 * this->groups; g++)
            F::put(space.x[0], 16 * (size_t)(g * N + n), load(lane.h + 16 * g));
    }

    // e_s[k]: what is known of the samples of earlier sub-tensors in column k adds up
    INLINE void column(int n, int64_t k) {
        const int s = first + n, U = context.factor;
        const float *rows[64], *units[64];
        float fine[64];
        int count = 0;
        for (int d = 1; d <= s; d++) {
            const int64_t sample = U * k + s - d;
            if (sample < 0 || sample >= u.given) continue;
            const uint8_t* code = u.codes + 2 * (sample - u.base);
            rows[count] = context.coarse + ((size_t)(d - 1) * 256 + code[0]) * C;
            units[count] = context.fine + (size_t)(d - 1) * C;
            fine[count++] = code[1];
        }
        for (int g = 0; g < C; g += 16) {
            vf sum = load(context.lanes + s * C + g);
            for (int i = 0; i < count; i++)
                sum = fma(load(units[i] + g), all(fine[i]), add(sum, load(rows[i] + g)));
            store(x + g * N + 16 * n, sum);
        }
    }

    // a column between its ring, where all U lanes lie side by side, and an array of N
    INLINE void read_column(float* to, const float* ring) const {
        for (int g = 0; g < C / 16; g++)
            __builtin_memcpy(to + g * N * 16, ring + g * context.factor * 16, N * 64);
    }
    INLINE void write_column(float* ring, const float* from) const {
        for (int g = 0; g < C / 16; g++)
            __builtin_memcpy(ring + g * context.factor * 16, from + g * N * 16, N * 64);
    }

    // a column of every lane through the convolutions
    void convolve(int64_t t) {
        const int64_t count = t + reach, width = C * context.factor;
        float* ring = rings;
        const int keep = context.horizon + 1;
        write_column(ring + count % keep * width, x);
        const float* present = ring + (count + 1) % keep * width;
        ring += keep * width;
        for (int j = 0; j < context.layers; j++) {
            const int64_t back = (int64_t)1 << j;
            float* old = ring + count % back * width;
            read_column(both, old);
            __builtin_memcpy(both + C * N, x, C * N * 4);
            write_column(old, x);
            ring += back * width;
            const wavernn_matrix& taps = context.taps[j];
            for (int g = 0; g < C / 16; g++) {
                vf sums[N];
                Floats::group<N>(taps, g, both, sums);
                for (int n = 0; n < N; n++) {
                    float* to = x + 16 * (g * N + n);
                    store(to, add(load(to), relu(Floats::value(taps, g, sums[n], 1.0f))));
                }
            }
        }
        // y = tanh of it, to where the gates read it beside h
        const vf one = all(1.0f), scale = all(-0x1.715476p+1f), most = all(63.0f);
        for (int g = 0; g < C / 16; g++)
            for (int n = 0; n < N; n++) {
                const int at = 16 * (g * N + n);
                const vf sum = add(load(x + at), load(present + 16 * (g * context.factor + n)));
                const vf b = power(min(mul(sum, scale), most));
                F::put(space.x[0], (size_t)2 * m.half * N + at, div(sub(one, b), add(one, b)));
            }
    }

    void tick(int64_t t) {
        bool any = false;
        this->clock.start();
        for (int n = 0; n < N; n++) {
            Lane& lane = lanes[n];
            const int s = first + n;
            const int64_t i = t - (int64_t)s * lag, sample = context.factor * i + s;
            column(n, i + context.horizon);
            this->clock.book(WAVERNN_CONTEXT);
            if (i < 0 || sample >= u.given) {
                if (!lane.idle) rest(lane);
                continue;
            }
            if (lane.idle) wake(n);
            any = true;
            lane.sample = sample, lane.place = sample - u.base;
            const float* row = u.gates + (sample / m.hop - u.base / m.hop) * 6 * m.units;
            if (row != lane.gates) {
                lane.gates = row;
                this->condition(n);
            }
            this->begin(lane);
            this->clock.book(WAVERNN_DRAW);
        }
        convolve(t);
        this->clock.book(WAVERNN_CONTEXT);
        if (any) this->advance();
    }

    void leave() const {
        for (int n = 0; n < N; n++)
            if (!lanes[n].idle) Base::put_code(u.code + 2 * (first + n), lanes[n]);
    }
};
