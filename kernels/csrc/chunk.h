// What a chunk needs besides the mathematics: memory, threads that wait for each other, time.
#pragma once

// Few threads run a chunk together and wait for less time than a system call takes, so they spin.
struct Patience {
    int spins = 0;

    INLINE void lose() {
        if (spins++ < 4096)
            relax();
        else
            yield_processor();
    }
};

struct Barrier {
    uint32_t *arrived, *turn;
    uint32_t ranks;

    INLINE void wait() const {
        if (ranks == 1) return;
        const uint32_t mine = __atomic_load_n(turn, __ATOMIC_ACQUIRE);
        if (__atomic_add_fetch(arrived, 1, __ATOMIC_ACQ_REL) == ranks) {
            __atomic_store_n(arrived, 0, __ATOMIC_RELAXED);
            __atomic_store_n(turn, mine + 1, __ATOMIC_RELEASE);
            return;
        }
        for (Patience patience; __atomic_load_n(turn, __ATOMIC_ACQUIRE) == mine;) patience.lose();
    }
};

// Books the time since the last booking under a part, where times are asked for.
struct Clock {
    uint64_t* ticks;
    uint64_t last;

    INLINE void start() {
        if (ticks) last = time_stamp();
    }
    INLINE void book(int part) {
        if (!ticks) return;
        const uint64_t now = time_stamp();
        ticks[part] += now - last;
        last = now;
    }
};

template <class F>
struct Workspace {
    typename F::State x[2];  // of h_{t-1} and of h_t, in turn
    float* hidden;           // [projection / 16][N][16], what O1 or O3 gives
    float* logits;           // [N][Q]
    // each rank has its own
    float* cond;             // [N][coarse, fine][half / 16][u, r, e][16]
    void* hidden_x;          // its form as activations
    typename F::Gate::sum* sums;  // [half / 16][u, r, e][N], a subscale voice has one more

    // places everything from `base` on, which may be null, and returns the bytes that it takes
    // `more` activations, those of a subscale voice's context, stand beside those of h
    size_t lay_out(const wavernn_model& m, int lanes, char* base, int rank, int ranks,
                   size_t more = 0) {
        size_t at = 0;
        auto take = [&](size_t count, size_t size) {
            char* p = base + at;
            at += (count * size + 63) & ~(size_t)63;
            return p;
        };
        const size_t N = (size_t)lanes, half = (size_t)m.half, P = (size_t)m.projection;
        for (auto& state : x) place(state, take, N * (2 * half + more));
        hidden = (float*)take(N * P, 4);
        logits = (float*)take(N * 256, 4);
        for (int r = 0; r < ranks; r++) {
            char* own[3] = {take(N * 6 * half, 4), take(N * P, 4), take(N * (more ? 4 : 3) * half / 16, 64)};
            if (r != rank) continue;
            cond = (float*)own[0];
            hidden_x = own[1];
            sums = (typename F::Gate::sum*)own[2];
        }
        return at;
    }

  private:
    template <class Take>
    static void place(Int8::State& x, Take& take, size_t count) {
        x = {(uint8_t*)take(count, 1), (int16_t*)take(count, 2)};
    }
    template <class Take>
    static void place(Float32::State& x, Take& take, size_t count) {
        x = {(float*)take(count, 4)};
    }
};
