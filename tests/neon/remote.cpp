// The engine in a process of its own, which emulation can run: calls come through stdin, results
// go to stdout. Both sides have 64-bit little-endian pointers, so structures travel as they are,
// each followed by what its pointers lead to.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "api.h"

enum { IN = 0, IN_OUT = 1, SCRATCH = 2 };

struct Pointer {
    uint32_t offset, kind;  // in its structure
    uint64_t bytes;
};

static void get(void* to, size_t bytes) {
    if (fread(to, 1, bytes, stdin) != bytes) exit(feof(stdin) ? 0 : 1);
}
static void put(const void* from, size_t bytes) {
    if (fwrite(from, 1, bytes, stdout) != bytes) exit(1);
}

// a structure whose pointers lead to memory of this process
template <class T>
struct Received {
    T value;
    std::vector<Pointer> pointers;
    std::vector<char*> arrays;

    Received() {
        uint32_t sizes[2];
        get(sizes, sizeof sizes);
        if (sizes[0] != sizeof value) exit(2);
        get(&value, sizeof value);
        pointers.resize(sizes[1]);
        for (Pointer& pointer : pointers) {
            get(&pointer, sizeof pointer);
            // as native.aligned has it, room to read beyond the end
            const size_t room = (pointer.bytes + 127) / 64 * 64;
            char* array = (char*)aligned_alloc(64, room);
            // numbers that aren't any, so that reading what nothing wrote shows
            memset(array, 0xff, room);
            if (pointer.kind != SCRATCH) get(array, pointer.bytes);
            memcpy((char*)&value + pointer.offset, &array, sizeof array);
            arrays.push_back(array);
        }
    }
    ~Received() {
        for (char* array : arrays) free(array);
    }
    Received(const Received&) = delete;

    void reply() const {
        for (size_t i = 0; i < arrays.size(); i++)
            if (pointers[i].kind == IN_OUT) put(arrays[i], pointers[i].bytes);
    }
};

int main() {
    for (char command; get(&command, 1), true; fflush(stdout)) {
        if (command == 'i') {
            char names[64] = {};
            strncpy(names, wavernn_isas(), sizeof names - 1);
            put(names, sizeof names);
        } else if (command == 'w') {
            const Received<wavernn_model> model;
            int32_t sizes[2];
            get(sizes, sizeof sizes);
            const uint64_t bytes = wavernn_workspace_bytes(&model.value, sizes[0], sizes[1]);
            put(&bytes, sizeof bytes);
        } else if (command == 'r') {
            char isa[16];
            get(isa, sizeof isa);
            const Received<wavernn_model> model;
            const Received<wavernn_call> call;
            const int32_t status = wavernn_run(isa, &model.value, &call.value);
            put(&status, sizeof status);
            call.reply();
        } else if (command == 'u' || command == 'b') {
            char isa[16];
            get(isa, sizeof isa);
            const Received<wavernn_model> model;
            const Received<wavernn_context> context;
            if (command == 'b') {
                int32_t ranks;
                get(&ranks, sizeof ranks);
                const uint64_t bytes =
                    wavernn_utterance_bytes(isa, &model.value, &context.value, ranks);
                put(&bytes, sizeof bytes);
                continue;
            }
            const Received<wavernn_utterance> call;
            const int32_t status =
                wavernn_run_utterance(isa, &model.value, &context.value, &call.value);
            put(&status, sizeof status);
            call.reply();
        } else {
            return 3;
        }
    }
}
