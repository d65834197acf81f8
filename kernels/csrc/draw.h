// Random numbers, and the level that a uniform draws from 256 logits.
#pragma once

struct Draws {
    float coarse, fine;
};

// Philox4x32-10 (Salmon et al. 2011, section 3.3) as in wavernn/rng.py: words 0 and 1, 24 bits each
INLINE Draws philox(uint64_t seed, uint64_t sample) {
    uint32_t c0 = (uint32_t)sample, c1 = (uint32_t)(sample >> 32), c2 = 0, c3 = 0;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {(float)(c0 >> 8) * 0x1p-24f, (float)(c1 >> 8) * 0x1p-24f};
}

// The softmax of 256 logits as whole numbers, so that sums are exact in any order: 256 masses of
// at most 2^24 - 16 fit 32 bit. A level whose mass rounds to 0 is never drawn.
struct Masses {
    alignas(64) int32_t mass[256];
    alignas(64) int32_t until[16];  // sum of the first 16, 32, ... masses

    INLINE void set(const float* logits, float temperature) {
        // what isn't a number is passed over
        vf top = all(-0x1p127f);
        UNROLL for (int i = 0; i < 16; i++) top = max(load(logits + 16 * i), top);
        const vf highest_ = all(highest(top));
        const vf scale = all(0x1.715476p+0f / temperature);  // log2(e)
        vi masses[16];
        UNROLL for (int i = 0; i < 16; i++) {
            const vf x = mul(sub(load(logits + 16 * i), highest_), scale);
            masses[i] = to_int(mul(power(x), all(16777200.0f)));
            store(mass + 16 * i, masses[i]);
        }
        store(until, running_sum(sums(masses)));
    }

    // the number of levels whose cumulative probability is at most `uniform`, in [0, 1)
    INLINE int draw(float uniform) const {
        // below the total by at least 1, since the total is at least 2^24 - 16
        const uint32_t limit = (uint32_t)((double)uniform * (double)(uint32_t)until[15]);
        // logits that overflowed may have no mass at all; the last level is drawn from those
        const int group = count_at_most(load(until), limit);
        if (group > 15) return 255;
        const uint32_t before = group ? (uint32_t)until[group - 1] : 0;
        const int level = count_at_most(running_sum(load(mass + 16 * group)), limit - before);
        return 16 * group + level;
    }
};
