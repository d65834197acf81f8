// What this processor can do at most, measured with the loop's own vector operations.
#pragma once

// bytes per second that are read from a buffer
double read_rate(const void* buffer, int64_t bytes, int64_t passes) {
    const float* p = (const float*)buffer;
    const int64_t count = bytes / 1024 * 256;
    vf sums[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
    const double start = seconds();
    for (int64_t pass = 0; pass < passes; pass++)
        for (int64_t i = 0; i < count; i += 256)
            UNROLL for (int j = 0; j < 16; j++)
                sums[j % 4] = max(sums[j % 4], load(p + i + 16 * j));
    const double spent = seconds() - start;
    // the sums are used, so that the reading isn't left out
    volatile float sink = highest(max(max(sums[0], sums[1]), max(sums[2], sums[3])));
    (void)sink;
    return (double)(4 * count * passes) / spent;
}

// multiply-adds per second of operands in L1: float32 FMA, or int8 dot products
double multiply_rate(int32_t format, int64_t rounds) {
    constexpr int SUMS = 12;
    alignas(64) int8_t weights[64];
    alignas(64) uint8_t x[4 * SUMS];
    alignas(64) float first[16 * SUMS];
    for (int i = 0; i < 64; i++) weights[i] = (int8_t)(i % 3 - 1);
    for (int i = 0; i < 4 * SUMS; i++) x[i] = (uint8_t)i;
    for (int i = 0; i < 16 * SUMS; i++) first[i] = (float)i;
    // a compiler can't know what is in memory, so it can neither share products nor keep them
    const auto forget = [&] {
        __asm__ volatile("" : : "r"(weights), "r"(x), "r"(first) : "memory");
    };
    forget();
    const double start = seconds();
    double spent;
    if (format == WAVERNN_INT8) {
        const block w = load_block(weights);
        vi sums[SUMS];
        UNROLL for (int j = 0; j < SUMS; j++) sums[j] = all(j);
        for (int64_t i = 0; i < rounds; i++) {
            UNROLL for (int j = 0; j < SUMS; j++) sums[j] = dot(sums[j], w, x + 4 * j);
            forget();
        }
        spent = seconds() - start;
        vi sum = sums[0];
        UNROLL for (int j = 1; j < SUMS; j++) sum = add(sum, sums[j]);
        volatile float sink = highest(to_float(sum));
        (void)sink;
        return (double)(64 * SUMS * rounds) / spent;
    }
    // where a vector takes several registers there are fewer of them
    constexpr int FLOATS = TILE_FLOAT > 1 ? 12 : 6;
    vf sums[FLOATS];
    const vf a = all(0.5f), b = all(1.0f);
    UNROLL for (int j = 0; j < FLOATS; j++) sums[j] = load(first + 16 * j);
    for (int64_t i = 0; i < rounds; i++)
        UNROLL for (int j = 0; j < FLOATS; j++) sums[j] = fma(sums[j], a, b);
    spent = seconds() - start;
    vf sum = sums[0];
    UNROLL for (int j = 1; j < FLOATS; j++) sum = add(sum, sums[j]);
    volatile float sink = highest(sum);
    (void)sink;
    return (double)(16 * FLOATS * rounds) / spent;
}
