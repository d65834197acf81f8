// One utterance of a fused voice, step by step: two samples of one state, nibble by nibble.
//
// Kalchbrenner et al. 2018, section 4; wavernn/fused.py has the equations. A step takes four turns:
// in each a quarter of the gates' rows gives the states that nibble k of both samples is drawn from.
// Softmaxes have 16 levels, a vector. N = 1 throughout, on one thread.
#pragma once

// The level of 16 that a uniform in [0, 1) draws, with masses as those of `Masses`; what is left of
// the uniform is one again.
INLINE int draw_nibble(const float* logits, float temperature, double& uniform) {
    const vf top = max(load(logits), all(-0x1p127f));
    const vf scale = all(0x1.715476p+0f / temperature);  // log2(e)
    const vf x = mul(sub(load(logits), all(highest(top))), scale);
    alignas(64) int32_t until[16];
    const vi sums = running_sum(to_int(mul(power(x), all(16777200.0f))));
    store(until, sums);
    const double place = uniform * (double)until[15];
    const int level = count_at_most(sums, (uint32_t)place);
    // logits that overflowed may have no mass at all; the last level is drawn from those
    if (level > 15) return uniform = 0, 15;
    const double before = level ? until[level - 1] : 0;
    uniform = (place - before) / (until[level] - before);
    return level;
}

template <class F>
struct Fused {
    typedef typename F::Gate Gate;
    typedef typename F::Candidate Candidate;
    typedef typename F::Projection Projection;
    typedef typename F::row row;

    const wavernn_fused& m;
    const wavernn_utterance& u;
    const int groups;  // of 16 units in a part
    const int P;
    typename F::State x[2];  // of h_{t-1} and of h_t, in turn
    float *cond;             // [8][part / 16][u, r, e][16]
    float *hidden;           // [P / 16][16]
    void* hidden_x;
    // where times are asked for, R h of a quarter: [2][part / 16][u, r] and [2][part / 16]
    typename Gate::sum* sums;
    typename Candidate::sum* sums_e;
    alignas(64) float logits[16];
    Clock clock;
    const float* gates = nullptr;
    const row* past[4];  // rows of the known samples' coarse bytes
    const float* unit[4];
    float fine[4];       // and their fine bytes
    const row *now[2], *upper[2];  // of the nibbles made so far, by sample
    struct Made {
        int64_t n;
        bool idle;
        int code[2];
        double draws[2];
    } made[2];

    static size_t lay_out(const wavernn_fused& m, Fused* own, char* base) {
        size_t at = 0;
        auto take = [&](size_t count, size_t size) {
            char* p = base + at;
            at += (count * size + 63) & ~(size_t)63;
            return p;
        };
        const size_t H = 8 * (size_t)m.part, P = (size_t)m.projection;
        char* parts[9];
        for (int i = 0; i < 4; i++) parts[i] = take(H, i % 2 ? 2 : 4);
        parts[4] = take(3 * H, 4), parts[5] = take(P, 4), parts[6] = take(P, 4);
        parts[7] = take(H / 32, 64), parts[8] = take(H / 64, 64);
        if (own) {
            F::at(own->x[0], parts[0], parts[1]), F::at(own->x[1], parts[2], parts[3]);
            own->cond = (float*)parts[4], own->hidden = (float*)parts[5];
            own->hidden_x = parts[6];
            own->sums = (typename Gate::sum*)parts[7];
            own->sums_e = (typename Candidate::sum*)parts[8];
        }
        return at;
    }

    Fused(const wavernn_fused& m, const wavernn_utterance& u)
        : m(m), u(u), groups(m.part / 16), P(m.projection), clock{u.times, 0} {
        lay_out(m, this, (char*)u.workspace);
        for (int g = 0; g < 8 * groups; g++) F::put(x[0], 16 * (size_t)g, load(u.h + 16 * g));
        clock.start();
    }

    // lays a row of gate input, [u, r, e][8][H / 8], out as the gates read it
    void condition() {
        const float scale[3] = {-0x1.715476p+0f, -0x1.715476p+0f, -0x1.715476p+1f};
        for (int g = 0; g < 8 * groups; g++)
            for (int gate = 0; gate < 3; gate++) {
                const int unit = g % groups * 16, count = m.units - unit;
                const float* in = gates + (size_t)(8 * gate + g / groups) * m.units + unit;
                float* out = cond + (size_t)(3 * g + gate) * 16;
                if (count >= 16)
                    store(out, mul(load(in), all(scale[gate])));
                else
                    for (int i = 0; i < 16; i++) out[i] = i < count ? in[i] * scale[gate] : 0;
            }
    }

    // silence lies around an utterance
    INLINE int code(int64_t n, int half) const {
        return n < 0 || n >= u.given ? half ? 0 : 128 : u.codes[2 * (n - u.base) + half];
    }
    INLINE size_t width() const { return (size_t)8 * groups * 48; }
    INLINE const row* past_row(int tap, int code) const {
        return (const row*)m.past + (size_t)(256 * tap + code) * width();
    }
    // of the coarse byte for nibble 2 or 3 of a sample, and of an upper nibble for nibble 1 or 3
    INLINE const row* now_row(int k, int s, int code) const {
        return (const row*)m.now + (size_t)((2 * code + k - 2) * 2 + s) * groups * 48;
    }
    INLINE const row* upper_row(int byte, int s, int nibble) const {
        return (const row*)m.upper + (size_t)((16 * byte + nibble) * 2 + s) * groups * 48;
    }

    void prefetch(const row* p) const {
        for (size_t i = 0; i < width(); i += 64 / sizeof(row)) __builtin_prefetch(p + i);
    }

    // R h of group i of a quarter, whose groups are [sample][part / 16]
    INLINE void recurrent(int k, int i, typename Gate::sum* y, typename Candidate::sum* y_e) const {
        const int g = 2 * k * groups + i;
        UNROLL for (int gate = 0; gate < 2; gate++)
            Gate::template group<1>(m.gates, 2 * g + gate, F::gate(x[0]), y + gate);
        Candidate::template group<1>(m.candidate, g, F::candidate(x[0]), y_e);
    }

    // equation 2
    template <int k>
    INLINE void gates_of(int i, const typename Gate::sum* y, typename Candidate::sum y_e) {
        const int g = 2 * k * groups + i, s = i >= groups;
        const size_t own = (size_t)(i - s * groups) * 48;
        vf Ix[3];
        UNROLL for (int gate = 0; gate < 3; gate++) {
            const size_t at = (size_t)(3 * g + gate) * 16;
            vf sum = load(cond + at);
            UNROLL for (int tap = 0; tap < 4; tap++)
                sum = fma(load(unit[tap] + at), all(fine[tap]), sum);
            auto rows = F::four(past, at);
            if (k >= 2) rows = F::plus(rows, now[s] + own + 16 * gate);
            if (k % 2) rows = F::plus(rows, upper[s] + own + 16 * gate);
            Ix[gate] = F::scaled(rows, m.rows_scale[gate], sum);
        }
        float* h = u.h + 16 * g;
        const vf next = cell(Gate::value(m.gates, 2 * g, y[0], Ix[0]),
                             Gate::value(m.gates, 2 * g + 1, y[1], Ix[1]),
                             Candidate::value(m.candidate, g, y_e), Ix[2], load(h));
        store(h, next);
        F::put(x[1], 16 * (size_t)g, next);
    }

    // the states that nibble k of both samples is drawn from
    template <int k>
    INLINE void quarter() {
        for (int s = 0; s < 2; s++) {
            const int* code = made[s].code;
            if (k >= 2) now[s] = now_row(k, s, code[0]);
            if (k % 2) upper[s] = upper_row(k / 2, s, code[k / 2]);
        }
        if (clock.ticks) {
            for (int i = 0; i < 2 * groups; i++) recurrent(k, i, sums + 2 * i, sums_e + i);
            clock.book(WAVERNN_RECURRENCE);
            for (int i = 0; i < 2 * groups; i++) gates_of<k>(i, sums + 2 * i, sums_e[i]);
            clock.book(WAVERNN_GATES);
            return;
        }
        for (int i = 0; i < 2 * groups; i++) {
            typename Gate::sum y[2];
            typename Candidate::sum y_e;
            recurrent(k, i, y, &y_e);
            gates_of<k>(i, y, y_e);
        }
    }

    // the nibble k of sample s
    template <int k, class Logits>
    INLINE void head(int s) {
        const wavernn_matrix &first = m.first[k], &second = m.second[k];
        const auto* y = F::gate(x[1]) + (2 * k + s) * m.part;
        for (int g = 0; g < P / 16; g++) {
            typename Projection::sum sum;
            Projection::template group<1>(first, s * P / 16 + g, y, &sum);
            store(hidden + 16 * g, relu(Projection::value(first, s * P / 16 + g, sum, 1.0f)));
        }
        clock.book(WAVERNN_PROJECTION);
        float one;
        const auto* in = Logits::template activate<1>(
            hidden, P, (typename Logits::activation*)hidden_x, &one);
        clock.book(WAVERNN_QUANTISE);
        typename Logits::sum sum;
        Logits::template group<1>(second, s, in, &sum);
        store(logits, Logits::value(second, s, sum, one));
        clock.book(WAVERNN_LOGITS);
        Made& sample = made[s];
        const int half = k / 2;
        if (sample.idle) {
            sample.code[half] = k % 2 ? half ? 0 : 128 : half ? 0 : 8;
            return;
        }
        const int64_t place = sample.n - u.base;
        if (u.logits)
            __builtin_memcpy(u.logits + ((half * u.window + place) * 2 + k % 2) * 16, logits, 64);
        const int nibble = u.known ? u.known[2 * place + half] >> (k % 2 ? 0 : 4) & 15
                                   : draw_nibble(logits, *u.temperature, sample.draws[half]);
        sample.code[half] = k % 2 ? sample.code[half] << 4 | nibble : nibble;
        clock.book(WAVERNN_DRAW);
    }

    template <int k, class Logits>
    INLINE void turn() {
        quarter<k>();
        head<k, Logits>(0), head<k, Logits>(1);
    }

    void step(int64_t t) {
        const int known[4] = {-2, -4, -6, -7};
        for (int tap = 0; tap < 4; tap++) {
            past[tap] = past_row(tap, code(2 * t + known[tap], 0));
            fine[tap] = (float)code(2 * t + known[tap], 1);
            unit[tap] = m.fine + tap * width();
        }
        for (int s = 0; s < 2; s++) {
            Made& sample = made[s];
            sample.n = 2 * t - 5 * s;
            sample.idle = sample.n < 0 || sample.n >= u.given;
            if (sample.idle || u.known) continue;
            const Draws draws =
                u.seed ? philox(*u.seed, (uint64_t)sample.n)
                       : Draws{u.uniform[2 * (sample.n - u.base)],
                               u.uniform[2 * (sample.n - u.base) + 1]};
            sample.draws[0] = draws.coarse, sample.draws[1] = draws.fine;
        }
        // the last row holds to the end
        const int64_t last = 2 * t < u.given ? 2 * t : u.given - 1;
        const float* own = u.gates + (last / m.hop - u.base / m.hop) * 24 * m.units;
        if (own != gates) {
            gates = own;
            condition();
        }
        clock.book(WAVERNN_DRAW);
        turn<0, typename F::Coarse>();
        turn<1, typename F::Coarse>();
        turn<2, typename F::Fine>();
        turn<3, typename F::Fine>();
        for (const Made& sample : made) {
            if (sample.idle) continue;
            uint8_t* out = u.codes + 2 * (sample.n - u.base);
            out[0] = (uint8_t)sample.code[0], out[1] = (uint8_t)sample.code[1];
        }
        const auto swap = x[0];
        x[0] = x[1], x[1] = swap;
        // what the next step reads
        for (int tap = 0; tap < 4; tap++)
            prefetch(past_row(tap, code(2 * (t + 1) + known[tap], 0)));
    }

    static void run(const wavernn_fused& m, const wavernn_utterance& u) {
        Fused fused(m, u);
        for (int64_t t = u.first; t < u.first + u.ticks; t++) fused.step(t);
    }
};

void run_fused(const wavernn_fused& m, const wavernn_utterance& u) {
    if (m.format == WAVERNN_INT8)
        Fused<Int8>::run(m, u);
    else
        Fused<Float32>::run(m, u);
}

uint64_t fused_bytes(const wavernn_fused& m) {
    return m.format == WAVERNN_INT8 ? Fused<Int8>::lay_out(m, nullptr, nullptr)
                                    : Fused<Float32>::lay_out(m, nullptr, nullptr);
}
