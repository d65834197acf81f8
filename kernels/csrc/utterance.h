// An utterance's lanes dealt to groups, and the threads that run these together.
//
// In a tick each group runs in the thread that takes it; the next tick begins when all are through.
// A thread that comes late, or not at all, is missed by nobody: the others take its groups.
#pragma once

// groups of lanes that are compiled; of 16 lanes, twice 8 take less time than 16 at once, since what
// the cells read then stays nearer
#if defined(WAVERNN_VNNI)
#define LANE_WIDTHS Widths<8, 4, 2, 1>()
#else
#define LANE_WIDTHS WIDTHS
#endif

// A group of whatever width, and the rank that takes it first.
struct AnyGroup {
    void* group;
    void (*tick)(void*, int64_t);
    void (*leave)(void*);
    int rank;
};

// What the ranks of a call know in common; begins with zeros.
struct Meeting {
    alignas(64) uint32_t count;  // of groups, once they are made
    // groups that are through, tick after tick, and how many ticks of each were taken
    alignas(64) uint32_t done;
    alignas(64) uint32_t taken[64];
    alignas(64) AnyGroup groups[64];
};
static_assert(sizeof(Meeting) <= 4 * WAVERNN_MEETING, "words that ranks meet at");

// The groups that the ranks' lanes make up, the widest first: visit.take<N>(first lane, rank).
template <int N, class Visit>
void deal_width(int& first, int end, int rank, Visit& visit) {
    for (; end - first >= N; first += N) visit.template take<N>(first, rank);
}
template <class Visit, int... N>
void deal(int factor, int ranks, Visit& visit, Widths<N...>) {
    for (int rank = 0; rank < ranks; rank++) {
        int first = factor * rank / ranks;
        const int end = factor * (rank + 1) / ranks;
        (deal_width<N>(first, end, rank, visit), ...);
    }
}

template <class F>
struct Measure {
    const wavernn_model& m;
    const wavernn_context& context;
    size_t bytes = 0;
    template <int N>
    void take(int, int) {
        bytes += Group<F, N>::bytes(m, context);
    }
};

template <class F>
struct Place {
    const wavernn_model& m;
    const wavernn_context& context;
    const wavernn_utterance& u;
    const wavernn_call& call;
    char* at;
    AnyGroup* groups;
    uint32_t count = 0;
    template <int N>
    void take(int first, int rank) {
        typedef Group<F, N> G;
        groups[count++] = {G::make(m, context, u, call, first, at),
                           [](void* group, int64_t t) { ((G*)group)->tick(t); },
                           [](void* group) { ((G*)group)->leave(); }, rank};
        at += G::bytes(m, context);
    }
};

// A group of this tick that nobody has taken, the rank's own first; -1 where there is none.
int take_group(Meeting& meeting, uint32_t rank, uint32_t tick) {
    for (int own = 1; own >= 0; own--)
        for (uint32_t i = 0; i < meeting.count; i++) {
            uint32_t before = tick;
            if ((meeting.groups[i].rank == (int)rank) == (own == 1) &&
                __atomic_load_n(&meeting.taken[i], __ATOMIC_RELAXED) == tick &&
                __atomic_compare_exchange_n(&meeting.taken[i], &before, tick + 1, false,
                                            __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
                return (int)i;
        }
    return -1;
}

// Runs groups until all ticks are through. Who finds none waits for those that others run, never
// for a thread that hasn't come.
void run_ticks(Meeting& meeting, const wavernn_utterance& u) {
    Patience patience;
    for (;;) {
        const uint32_t done = __atomic_load_n(&meeting.done, __ATOMIC_ACQUIRE);
        const uint32_t tick = done / meeting.count;
        if (tick >= (uint64_t)u.ticks) return;
        const int taken = take_group(meeting, (uint32_t)u.rank, tick);
        if (taken < 0) {
            patience.lose();
            continue;
        }
        patience = {};
        meeting.groups[taken].tick(meeting.groups[taken].group, u.first + tick);
        __atomic_add_fetch(&meeting.done, 1, __ATOMIC_ACQ_REL);
    }
}

template <class F>
void run_utterance_in(const wavernn_model& m, const wavernn_context& context,
                      const wavernn_utterance& u) {
    Meeting& meeting = *(Meeting*)u.meeting;
    if (u.rank) {
        // ranks above 0 help where there are groups, which may be over
        Patience patience;
        while (!__atomic_load_n(&meeting.count, __ATOMIC_ACQUIRE)) patience.lose();
        return run_ticks(meeting, u);
    }
    // the loop's own view: one stream of W samples, on one thread
    wavernn_call call = {};
    call.samples = u.window, call.streams = 1, call.ranks = 1;
    call.seed = u.seed, call.uniform = u.uniform, call.known = u.known;
    call.temperature = u.temperature, call.codes = u.codes, call.logits = u.logits;
    call.ticks = u.times;
    Place<F> place = {m, context, u, call, (char*)u.workspace + ring_bytes(context), meeting.groups};
    deal(context.factor, u.ranks, place, LANE_WIDTHS);
    __atomic_store_n(&meeting.count, place.count, __ATOMIC_RELEASE);
    run_ticks(meeting, u);
    for (uint32_t i = 0; i < place.count; i++) meeting.groups[i].leave(meeting.groups[i].group);
}

void run_utterance(const wavernn_model& m, const wavernn_context& context,
                   const wavernn_utterance& u) {
    if (m.format == WAVERNN_INT8)
        run_utterance_in<Int8>(m, context, u);
    else
        run_utterance_in<Float32>(m, context, u);
}

template <class F>
uint64_t utterance_bytes_in(const wavernn_model& m, const wavernn_context& context, int ranks) {
    size_t most = 0;
    for (; ranks > 0; ranks--) {
        Measure<F> measure = {m, context, 0};
        deal(context.factor, ranks, measure, LANE_WIDTHS);
        most = measure.bytes > most ? measure.bytes : most;
    }
    return ring_bytes(context) + most;
}

uint64_t utterance_bytes(const wavernn_model& m, const wavernn_context& context, int ranks) {
    return m.format == WAVERNN_INT8 ? utterance_bytes_in<Int8>(m, context, ranks)
                                    : utterance_bytes_in<Float32>(m, context, ranks);
}
