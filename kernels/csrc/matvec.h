// Sixteen rows of a block-sparse matrix times the activations of N streams, for three kinds of
// weights. Activations are [inputs / 16][N][16], so that sixteen are written at once and all
// streams are read at fixed distances. `sum` is what the sums of 16 rows are held in.
#pragma once

// where the first stream's activation of a column is
template <int N>
INLINE size_t place(size_t column) {
    return (column & ~(size_t)15) * N + (column & 15);
}

// Whole numbers, 16 x 4 blocks: int8 by uint8, or int16 by int16. Integer sums are exact in any
// order.
template <class W, class X>
struct Whole {
    typedef X activation;
    typedef vi sum;
    static constexpr int REGISTERS = sizeof(W);

    // block k by M streams
    template <int N, int M>
    static INLINE void multiply(const W* w, const uint16_t* columns, int k, const X* x,
                                vi (*sums)[REGISTERS]) {
        const X* own = x + place<N>(4 * (size_t)(columns ? columns[k] : k));
        UNROLL for (int r = 0; r < REGISTERS; r++) {
            const char* own_w = (const char*)(w + 64 * (size_t)k) + 64 * r;
            // dense matrices may come from beyond L2; for sparse ones this gains nothing
            if (M == 1 && !columns) __builtin_prefetch(own_w + 1024);
            const block b = load_block(own_w);
            UNROLL for (int m = 0; m < M; m++) sums[m][r] = dot(sums[m][r], b, own + 16 * m);
        }
    }

    template <int N, int M>
    static INLINE void tile(const W* w, const uint16_t* columns, int blocks, const X* x, vi first,
                            vi* y) {
        // a sum's next product waits for its last, so few streams take several sums each
        constexpr int C = M == 1 ? 4 : M == 2 ? 2 : 1;
        vi sums[C][M][REGISTERS];
        UNROLL for (int c = 0; c < C; c++)
            UNROLL for (int m = 0; m < M; m++)
                UNROLL for (int r = 0; r < REGISTERS; r++) sums[c][m][r] = all(0);
        int k = 0;
        for (; k + C <= blocks; k += C)
            UNROLL for (int c = 0; c < C; c++) multiply<N, M>(w, columns, k + c, x, sums[c]);
        for (; C > 1 && k < blocks; k++) multiply<N, M>(w, columns, k, x, sums[0]);
        UNROLL for (int m = 0; m < M; m++) {
            UNROLL for (int c = 1; c < C; c++)
                UNROLL for (int r = 0; r < REGISTERS; r++)
                    sums[0][m][r] = add(sums[0][m][r], sums[c][m][r]);
            y[m] = add(first, rows_of(sums[0][m]));
        }
    }
    static INLINE vi rows_of(const vi (&sums)[1]) { return sums[0]; }
    static INLINE vi rows_of(const vi (&sums)[2]) { return pair_sums(sums[0], sums[1]); }

    template <int N, int n0 = 0>
    static INLINE void group(const wavernn_matrix& m, int g, const X* x, vi* y) {
        constexpr int M = N - n0 < TILE_INT / REGISTERS ? N - n0 : TILE_INT / REGISTERS;
        const int start = m.starts[g], blocks = m.starts[g + 1] - start;
        const W* w = (const W*)m.blocks + 64 * (size_t)start;
        const vi first = load(m.correction + 16 * g);
        if (m.columns)
            tile<N, M>(w, m.columns + start, blocks, x + 16 * n0, first, y + n0);
        else
            tile<N, M>(w, nullptr, blocks, x + 16 * n0, first, y + n0);
        if constexpr (n0 + M < N) group<N, n0 + M>(m, g, x, y);
    }

    static INLINE vf value(const wavernn_matrix& m, int g, vi sum) {
        return mul(to_float(sum), load(m.scale + 16 * g));
    }
    static INLINE vf value(const wavernn_matrix& m, int g, vi sum, vf more) {
        return fma(to_float(sum), load(m.scale + 16 * g), more);
    }
    // with the bias; `unit` is the value of an activation's unit
    static INLINE vf value(const wavernn_matrix& m, int g, vi sum, float unit) {
        const vf scale = mul(load(m.scale + 16 * g), all(unit));
        return fma(to_float(sum), scale, load(m.bias + 16 * g));
    }

    // what is at least 0, each stream with the unit that its largest value asks for
    template <int N>
    static INLINE const X* activate(const float* hidden, int P, X* x, float* unit) {
        const float limit = sizeof(X) == 1 ? 255 : 2047;
        for (int n = 0; n < N; n++) {
            const float* own = hidden + 16 * n;
            vf top = all(0x1p-100f);
            for (int i = 0; i < P; i += 16) top = max(load(own + i * N), top);
            const float most = highest(top);
            unit[n] = most / limit;
            const vf inverse = all(limit / most);
            for (int i = 0; i < P; i += 16)
                store_narrow(x + i * N + 16 * n, to_int(mul(load(own + i * N), inverse)));
        }
        return x;
    }
};
typedef Whole<int8_t, uint8_t> Bytes;
typedef Whole<int16_t, int16_t> Words;

// float32, 16 x 1 blocks. Block k of a group goes to sum k mod 4.
struct Floats {
    typedef float activation;
    typedef vf sum;

    // block k by M streams
    template <int N, int M>
    static INLINE void multiply(const float* w, const uint16_t* columns, int k, const float* x,
                                vf* sums) {
        const float* own = x + place<N>(columns ? columns[k] : k);
        const vf b = load(w + 16 * (size_t)k);
        UNROLL for (int m = 0; m < M; m++) sums[m] = fma(b, all(own[16 * m]), sums[m]);
    }

    template <int N, int M>
    static INLINE void tile(const float* w, const uint16_t* columns, int blocks, const float* x,
                            vf* y) {
        vf sums[4][M];
        UNROLL for (int c = 0; c < 4; c++)
            UNROLL for (int m = 0; m < M; m++) sums[c][m] = all(0.0f);
        int k = 0;
        for (; k + 4 <= blocks; k += 4)
            UNROLL for (int c = 0; c < 4; c++) multiply<N, M>(w, columns, k + c, x, sums[c]);
        UNROLL for (int c = 0; c < 3; c++)
            if (k + c < blocks) multiply<N, M>(w, columns, k + c, x, sums[c]);
        UNROLL for (int m = 0; m < M; m++)
            y[m] = add(add(sums[0][m], sums[1][m]), add(sums[2][m], sums[3][m]));
    }

    template <int N, int n0 = 0>
    static INLINE void group(const wavernn_matrix& m, int g, const float* x, vf* y) {
        constexpr int M = N - n0 < TILE_FLOAT ? N - n0 : TILE_FLOAT;
        const int start = m.starts[g], blocks = m.starts[g + 1] - start;
        const float* w = (const float*)m.blocks + 16 * (size_t)start;
        if (m.columns)
            tile<N, M>(w, m.columns + start, blocks, x + 16 * n0, y + n0);
        else
            tile<N, M>(w, nullptr, blocks, x + 16 * n0, y + n0);
        if constexpr (n0 + M < N) group<N, n0 + M>(m, g, x, y);
    }

    static INLINE vf value(const wavernn_matrix&, int, vf sum) { return sum; }
    static INLINE vf value(const wavernn_matrix&, int, vf sum, vf more) { return add(sum, more); }
    static INLINE vf value(const wavernn_matrix& m, int g, vf sum, float) {
        return add(sum, load(m.bias + 16 * g));
    }

    template <int N>
    static INLINE const float* activate(const float* hidden, int, float*, float*) {
        return hidden;
    }
};
