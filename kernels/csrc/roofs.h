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
            UNROLL for (int j = 0; j < 256; j += 16) sums[j / 16 % 4] = max(sums[j / 16 % 4], load(p + i + j));
    const double spent = seconds() - start;
    // the sums are used, so that the reading isn't left out
    volatile float sink = highest(max(max(sums[0], sums[1]), max(sums[2], sums[3])));
    (void)sink;
    return (double)(4 * count * passes) / spent;
}

// multiply-adds per second of operands in registers: float32 FMA, or int8 dot products
double multiply_rate(int32_t format, int64_t rounds) {
    constexpr int SUMS = 12;
    alignas(64) int8_t weights[64];
    alignas(64) uint8_t x[4] = {1, 2, 3, 4};
    for (int i = 0; i < 64; i++) weights[i] = (int8_t)(i % 3 - 1);
    const block w = load_block(weights);
    const double start = seconds();
    double spent;
    if (format == WAVERNN_INT8) {
        vi sums[SUMS];
        UNROLL for (int j = 0; j < SUMS; j++) sums[j] = all(j);  // each another, or a compiler keeps one
        for (int64_t i = 0; i < rounds; i++)
            UNROLL for (int j = 0; j < SUMS; j++) sums[j] = dot(sums[j], w, x);
        spent = seconds() - start;
        vi sum = sums[0];
        UNROLL for (int j = 1; j < SUMS; j++) sum = add(sum, sums[j]);
        volatile float sink = highest(to_float(sum));
        (void)sink;
        return (double)(64 * SUMS * rounds) / spent;
    }
    vf sums[SUMS];
    const vf a = all(0.5f), b = all(1.0f);
    UNROLL for (int j = 0; j < SUMS; j++) sums[j] = all((float)j);
    for (int64_t i = 0; i < rounds; i++)
        UNROLL for (int j = 0; j < SUMS; j++) sums[j] = fma(sums[j], a, b);
    spent = seconds() - start;
    vf sum = sums[0];
    UNROLL for (int j = 1; j < SUMS; j++) sum = add(sum, sums[j]);
    volatile float sink = highest(sum);
    (void)sink;
    return (double)(16 * SUMS * rounds) / spent;
}
