// The sample loop of N streams: draws, coarse half of the gates, its head, fine half, its head.
// The lanes of a subscale voice (subscale.h) run it with X y in the gates, and may be idle.
#pragma once

struct Lane {
    int64_t row;   // of the caller's arrays
    float* h;      // [2, half]
    int c, f;      // codes of the last sample
    int c_now;     // and the coarse one of this
    const float* gates;
    int32_t left;  // samples until the next row of gate input
    int64_t sample;
    int64_t place;  // of that sample in the caller's arrays
    bool idle;      // subscale: has no sample at this tick
    double memory;
    Draws draws;
};

template <class F, int N, bool SUBSCALE = false>
struct Loop {
    typedef typename F::Gate Gate;
    typedef typename F::Candidate Candidate;
    typedef typename Gate::sum sum;
    typedef typename F::row row;

    const wavernn_model& m;
    const wavernn_call& call;
    const int groups;  // of 16 units in a half
    Workspace<F> space;
    Barrier barrier;
    Clock clock;
    Lane lanes[N];
    Masses masses;
    // subscale: X's rows of e by half; its input is behind h, where R's other rows read it too
    const wavernn_matrix* X_e = nullptr;
    static constexpr int SUMS = SUBSCALE ? 4 : 3;

    Loop(const wavernn_model& model, const wavernn_call& call, void* workspace, size_t more = 0)
        : m(model), call(call), groups(model.half / 16),
          barrier{call.barrier, call.barrier + 16, (uint32_t)call.ranks}, clock{call.ticks, 0} {
        space.lay_out(m, N, (char*)workspace, call.rank, call.ranks, more);
    }

    // the groups of a matrix that fall to this rank
    INLINE int from(int count) const { return count * call.rank / call.ranks; }
    INLINE int until(int count) const { return count * (call.rank + 1) / call.ranks; }

    void enter() {
        for (int n = 0; n < N; n++) {
            Lane& lane = lanes[n];
            const int64_t b = lane.row = call.rows[n];
            lane.h = call.h + 2 * (size_t)m.half * b;
            lane.c = lane.c_now = call.code[2 * b], lane.f = call.code[2 * b + 1];
            lane.gates = call.gates + call.gates_stride * b;
            lane.sample = call.sample[b], lane.memory = call.memory[b];
            lane.left = m.hop - (int32_t)(lane.sample % m.hop);
            condition(n);
            for (int g = from(2 * groups); g < until(2 * groups); g++)
                F::put(space.x[0], 16 * (size_t)(g * N + n), load(lane.h + 16 * g));
        }
        barrier.wait();
    }

    INLINE float* cond(int n, int half, int g) const {
        return space.cond + ((size_t)(2 * n + half) * groups + g) * 48;
    }
    // lays a row of gate input, [u, r, e][coarse, fine][H / 2], out as the gates read it
    void condition(int n) {
        const float scale[3] = {-0x1.715476p+0f, -0x1.715476p+0f, -0x1.715476p+1f};
        for (int half = 0; half < 2; half++)
            for (int g = 0; g < groups; g++)
                for (int gate = 0; gate < 3; gate++) {
                    const float* in = lanes[n].gates + (size_t)(2 * gate + half) * m.units + 16 * g;
                    float* out = cond(n, half, g) + 16 * gate;
                    const int count = m.units - 16 * g;
                    if (count >= 16)
                        store(out, mul(load(in), all(scale[gate])));
                    else
                        for (int i = 0; i < 16; i++) out[i] = i < count ? in[i] * scale[gate] : 0;
                }
    }

    INLINE const row* past(int which, int code, int half, int g) const {
        return (const row*)m.past + (((size_t)(256 * which + code) * 2 + half) * groups + g) * 48;
    }
    INLINE const row* now(int code, int g) const {
        return (const row*)m.now + ((size_t)code * groups + g) * 48;
    }
    INLINE void prefetch(const row* p) const {
        for (int i = 0; i < 48 * groups; i += 64 / (int)sizeof(row)) __builtin_prefetch(p + i);
    }

    // R h for the three gates of a group of units
    INLINE void recurrent(int half, int g, sum* y) const {
        UNROLL for (int gate = 0; gate < 2; gate++)
            Gate::template group<N>(m.gates[half], 2 * g + gate, F::gate(space.x[0]), y + gate * N);
        Candidate::template group<N>(m.candidate[half], g, F::candidate(space.x[0]), y + 2 * N);
        if constexpr (SUBSCALE)
            Candidate::template group<N>(X_e[half], g,
                                         F::candidate(space.x[0]) + 2 * (size_t)m.half * N,
                                         y + 3 * N);
    }
    INLINE void gates(int half, int g, const sum* y) {
        const wavernn_matrix &R = m.gates[half], &R_e = m.candidate[half];
        for (int n = 0; n < N; n++) {
            const Lane& lane = lanes[n];
            const row *c = past(0, lane.c, half, g), *f = past(1, lane.f, half, g);
            const row* with = now(lane.c_now, g);
            vf Ix[3];
            UNROLL for (int gate = 0; gate < 3; gate++) {
                const vf bias = load(cond(n, half, g) + 16 * gate);
                const int i = 16 * gate;
                Ix[gate] = half ? F::rows(m, gate, c + i, f + i, with + i, bias)
                                : F::rows(m, gate, c + i, f + i, bias);
            }
            if constexpr (SUBSCALE) Ix[2] = Candidate::value(X_e[half], g, y[3 * N + n], Ix[2]);
            float* h = lane.h + half * m.half + 16 * g;
            const vf next = cell(Gate::value(R, 2 * g, y[n], Ix[0]),
                                 Gate::value(R, 2 * g + 1, y[N + n], Ix[1]),
                                 Candidate::value(R_e, g, y[2 * N + n]), Ix[2], load(h));
            store(h, next);
            F::put(space.x[1], 16 * (size_t)((half * groups + g) * N + n), next);
        }
    }
    // a half of h_t; `half` is a constant where this is called
    INLINE void half_state(int half) {
        const int last = until(groups);
        if (clock.ticks) {
            for (int g = from(groups); g < last; g++) recurrent(half, g, space.sums + SUMS * N * g);
            clock.book(WAVERNN_RECURRENCE);
            for (int g = from(groups); g < last; g++) gates(half, g, space.sums + SUMS * N * g);
            clock.book(WAVERNN_GATES);
        } else {
            for (int g = from(groups); g < last; g++) {
                sum y[SUMS * N];
                recurrent(half, g, y);
                gates(half, g, y);
            }
        }
        barrier.wait();
    }

    // logits of a half from its h_t
    template <class Logits>
    INLINE void head(int half) {
        typedef typename F::Projection Projection;
        const wavernn_matrix &first = m.heads[2 * half], &second = m.heads[2 * half + 1];
        const int P = m.projection;
        const auto* y = F::gate(space.x[1]) + half * m.half * N;
        sum sums[N];
        for (int g = from(P / 16); g < until(P / 16); g++) {
            Projection::template group<N>(first, g, y, sums);
            for (int n = 0; n < N; n++)
                store(space.hidden + 16 * (g * N + n),
                      relu(Projection::value(first, g, sums[n], 1.0f)));
        }
        barrier.wait();
        clock.book(WAVERNN_PROJECTION);
        float unit[N];
        const auto* x = Logits::template activate<N>(
            space.hidden, P, (typename Logits::activation*)space.hidden_x, unit);
        clock.book(WAVERNN_QUANTISE);
        for (int g = from(16); g < until(16); g++) {
            Logits::template group<N>(second, g, x, sums);
            for (int n = 0; n < N; n++)
                store(space.logits + 256 * n + 16 * g, Logits::value(second, g, sums[n], unit[n]));
        }
        barrier.wait();
        clock.book(WAVERNN_LOGITS);
    }

    INLINE int draw(int half, int n) {
        const int64_t place = lanes[n].place;
        if (SUBSCALE && lanes[n].idle) return half ? 0 : 128;
        const float* logits = space.logits + 256 * n;
        if (call.logits && call.rank == 0)
            __builtin_memcpy(call.logits + (half * call.streams * call.samples + place) * 256,
                             logits, 1024);
        if (call.known) return call.known[place * 2 + half];
        masses.set(logits, call.temperature[lanes[n].row]);
        clock.book(WAVERNN_SOFTMAX);
        const int code = masses.draw(half ? lanes[n].draws.fine : lanes[n].draws.coarse);
        clock.book(WAVERNN_DRAW);
        return code;
    }

    void step(int64_t t) {
        for (int n = 0; n < N; n++) {
            Lane& lane = lanes[n];
            if (lane.left == 0) {
                lane.gates += 6 * m.units;
                lane.left = m.hop;
                condition(n);
            }
            lane.left--;
            lane.place = lane.row * call.samples + t;
            begin(lane);
        }
        advance();
    }

    INLINE void begin(Lane& lane) const {
        if (call.uniform) {
            const float* given = call.uniform + 2 * lane.place;
            lane.draws = {given[0], given[1]};
        } else if (call.seed) {
            lane.draws = philox(call.seed[lane.row], (uint64_t)lane.sample);
        }
    }

    // a step of all lanes, whose conditioning and draws are there
    void advance() {
        clock.book(WAVERNN_DRAW);
        half_state(0);
        for (const Lane& lane : lanes)
            prefetch(past(0, lane.c, 1, 0)), prefetch(past(1, lane.f, 1, 0));
        head<typename F::Coarse>(0);
        for (int n = 0; n < N; n++) prefetch(now(lanes[n].c_now = draw(0, n), 0));
        half_state(1);
        head<typename F::Fine>(1);
        for (int n = 0; n < N; n++) {
            Lane& lane = lanes[n];
            lane.f = draw(1, n);
            lane.c = lane.c_now;
            prefetch(past(0, lane.c, 0, 0)), prefetch(past(1, lane.f, 0, 0));
            emit(lane);
        }
        const auto x = space.x[0];
        space.x[0] = space.x[1], space.x[1] = x;
        clock.book(WAVERNN_DRAW);
    }

    static INLINE void put_code(uint8_t* p, const Lane& lane) {
        p[0] = (uint8_t)lane.c, p[1] = (uint8_t)lane.f;
    }

    INLINE void emit(Lane& lane) {
        const int64_t at = lane.place;
        if constexpr (SUBSCALE) {
            if (!lane.idle) put_code(call.codes + 2 * at, lane);
            return;
        }
        lane.sample++;
        // x[t] = y[t] + a x[t - 1], the product and the sum rounded apart
        const double y = (256 * lane.c + lane.f - 32768) * 0x1p-15;
        lane.memory = y + m.pre_emphasis * lane.memory;
        if (call.rank) return;
        if (call.codes) put_code(call.codes + 2 * at, lane);
        if (!call.audio) return;
        const double x = lane.memory, high = 32767.0 / 32768;
        call.audio[at] = (float)(x < -1 ? -1 : x > high ? high : x);
    }

    void leave() {
        for (int n = 0; call.rank == 0 && n < N; n++) {
            const Lane& lane = lanes[n];
            put_code(call.code + 2 * lane.row, lane);
            call.sample[lane.row] = lane.sample, call.memory[lane.row] = lane.memory;
        }
    }

    static void run(const wavernn_model& model, const wavernn_call& call) {
        Loop loop(model, call, call.workspace);
        loop.enter();
        loop.clock.start();
        for (int64_t t = 0; t < call.samples; t++) loop.step(t);
        loop.leave();
    }
};
