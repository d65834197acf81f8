"""How long programs take to hand each other a vector: five protocols, measured on their own.

A round: each of N programs publishes its share of VALUES numbers (tag64, parity32, counter) or adds
its part of SUMS sums (red64, red32), and waits until it holds all of them.

| protocol | what says that a word is there |
|---|---|
| tag64 | the round's number in the upper half of a 64-bit word; two words a poll |
| parity32 | the lowest bit, which alternates with each use of the word; four words a poll |
| red64 | a count of the programs in the upper 16 bits of the sum, since the use before |
| red32 | the same in 8 of 32 bits |
| counter | a counter of programs, added to with release; then the data is read again |

Two sets of words alternate: a program writes to one only after it has read all of the other, which
its neighbours filled after they had read the first. Every wait is bounded: who waited in vain once
polls but once from then on, and the wait counts as an error. Launch: N programs, one to a
multiprocessor, cooperatively; VALUES / 2, VALUES / 4 or SUMS threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from wavernn.kernels.gpu.call import Configuration
from wavernn.kernels.gpu.step import INTERPRETED

VALUES = 512
SUMS = 256
# polls of one word, some tenths of a second
LIMIT = tl.constexpr(1 << 19)
PROGRAMS = (8, 28, 56, 112, 128)

# the loop around each poll: p says that something is still missing
_HEAD = "{ .reg .pred p, q; .reg .b32 a, b, n; .reg .b64 d; mov.u32 n, 0; POLL: "


def _tail(limit: str, out: str) -> str:
    return (
        f"add.u32 n, n, 1; setp.lt.and.u32 q, n, {limit}, p; @q bra POLL; "
        f"selp.u32 {out}, 1, {limit}, p; }}"
    )


TAG64 = tl.constexpr(
    _HEAD + "ld.relaxed.gpu.global.v2.b64 {$0, $1}, [$3]; mov.b64 {a, b}, $0; "
    "setp.ne.s32 p, b, $4; mov.b64 {a, b}, $1; setp.ne.or.s32 p, b, $4, p; " + _tail("$5", "$2")
)
PARITY32 = tl.constexpr(
    _HEAD + "ld.relaxed.gpu.global.v4.b32 {$0, $1, $2, $3}, [$5]; xor.b32 a, $0, $6; "
    "xor.b32 b, $1, $6; or.b32 a, a, b; xor.b32 b, $2, $6; or.b32 a, a, b; "
    "xor.b32 b, $3, $6; or.b32 a, a, b; and.b32 a, a, 1; setp.ne.s32 p, a, 0; " + _tail("$7", "$4")
)
# half of the lowest count is added, so that a negative sum doesn't borrow from it
RED64 = tl.constexpr(
    _HEAD + "ld.relaxed.gpu.global.b64 $0, [$2]; sub.s64 d, $0, $3; "
    "add.s64 d, d, 140737488355328; shr.s64 d, d, 48; cvt.u32.u64 a, d; "
    "setp.ne.s32 p, a, $4; " + _tail("$5", "$1")
)
RED32 = tl.constexpr(
    _HEAD + "ld.relaxed.gpu.global.b32 $0, [$2]; sub.s32 a, $0, $3; add.s32 a, a, 8388608; "
    "shr.u32 a, a, 24; setp.ne.s32 p, a, $4; " + _tail("$5", "$1")
)


@triton.jit
def tag64(words_ptr, wrong_ptr, T, N, VALUES: tl.constexpr, SHARE: tl.constexpr):
    """`words` int64 [2, VALUES], zero before; wrong int32 [N, VALUES / 2]."""
    program, each = tl.program_id(0), (VALUES + N - 1) // N
    mine = program * each + tl.arange(0, SHARE)
    written = (tl.arange(0, SHARE) < each) & (mine < VALUES)
    pair = tl.arange(0, VALUES // 2)
    limit, wrong = tl.full([VALUES // 2], LIMIT, tl.int32), tl.zeros([VALUES // 2], tl.int32)
    for t in range(T):
        use = (tl.zeros([1], tl.int32) + t) + 1
        slot_ptr = words_ptr + (use & 1).to(tl.int64) * VALUES
        value = (use * VALUES + mine).to(tl.int64) & 0xFFFFFFFF
        tl.store(slot_ptr + mine, (use.to(tl.int64) << 32) | value, mask=written)
        at = slot_ptr + pair * 2
        if INTERPRETED:
            x, y = tl.load(at), tl.load(at + 1)
        else:
            x, y, limit = tl.inline_asm_elementwise(
                TAG64,
                "=&l,=&l,=&r,l,r,r",
                [at, use + pair * 0, limit],
                dtype=(tl.int64, tl.int64, tl.int32),
                is_pure=False,
                pack=1,
            )
        expected = use * VALUES + pair * 2
        wrong += (x.to(tl.int32) != expected).to(tl.int32)
        wrong += (y.to(tl.int32) != expected + 1).to(tl.int32)
        tl.debug_barrier()
    tl.store(wrong_ptr + program * (VALUES // 2) + pair, wrong)


@triton.jit
def parity32(words_ptr, wrong_ptr, T, N, VALUES: tl.constexpr, SHARE: tl.constexpr):
    """`words` int32 [2, VALUES], zero before; wrong int32 [N, VALUES / 4]."""
    program, each = tl.program_id(0), (VALUES + N - 1) // N
    mine = program * each + tl.arange(0, SHARE)
    written = (tl.arange(0, SHARE) < each) & (mine < VALUES)
    four = tl.arange(0, VALUES // 4)
    limit, wrong = tl.full([VALUES // 4], LIMIT, tl.int32), tl.zeros([VALUES // 4], tl.int32)
    for t in range(T):
        use = tl.zeros([1], tl.int32) + t
        parity = ((use >> 1) & 1) ^ 1
        slot_ptr = words_ptr + (use & 1) * VALUES
        tl.store(slot_ptr + mine, ((use * VALUES + mine) << 1) | parity, mask=written)
        at = slot_ptr + four * 4
        if INTERPRETED:
            a, b, c, d = tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)
        else:
            a, b, c, d, limit = tl.inline_asm_elementwise(
                PARITY32,
                "=&r,=&r,=&r,=&r,=&r,l,r,r",
                [at, parity + four * 0, limit],
                dtype=(tl.int32, tl.int32, tl.int32, tl.int32, tl.int32),
                is_pure=False,
                pack=1,
            )
        expected = ((use * VALUES + four * 4) << 1) | parity
        wrong += (a != expected).to(tl.int32) + (b != expected + 2).to(tl.int32)
        wrong += (c != expected + 4).to(tl.int32) + (d != expected + 6).to(tl.int32)
        tl.debug_barrier()
    tl.store(wrong_ptr + program * (VALUES // 4) + four, wrong)


@triton.jit
def red(words_ptr, wrong_ptr, T, N, SUMS: tl.constexpr, SHIFT: tl.constexpr):
    """`words` int64 or int32 [2, SUMS], zero before; the count is in bits SHIFT and up."""
    program, i = tl.program_id(0), tl.arange(0, SUMS)
    kind = words_ptr.dtype.element_ty
    limit, wrong = tl.full([SUMS], LIMIT, tl.int32), tl.zeros([SUMS], tl.int32)
    # what the words of this round's set and of the next one held when they were last complete
    here, there = tl.zeros([SUMS], kind), tl.zeros([SUMS], kind)
    one = tl.full([1], 1, kind) << SHIFT
    for t in range(T):
        use = tl.zeros([1], tl.int32) + t
        # both signs
        part = (use & 63) + i - SUMS // 2
        at = words_ptr + (use & 1) * SUMS + i
        tl.atomic_add(at, one + part.to(kind), sem="relaxed", scope="gpu")
        if INTERPRETED:
            found = tl.load(at)
        elif SHIFT == 48:
            found, limit = tl.inline_asm_elementwise(
                RED64,
                "=&l,=&r,l,l,r,r",
                [at, here, N + i * 0, limit],
                dtype=(tl.int64, tl.int32),
                is_pure=False,
                pack=1,
            )
        else:
            found, limit = tl.inline_asm_elementwise(
                RED32,
                "=&r,=&r,l,r,r,r",
                [at, here, N + i * 0, limit],
                dtype=(tl.int32, tl.int32),
                is_pure=False,
                pack=1,
            )
        wrong += (found - here != (one + part.to(kind)) * N).to(tl.int32)
        here, there = there, found
        tl.debug_barrier()
    tl.store(wrong_ptr + program * SUMS + i, wrong)


@triton.jit
def counter(words_ptr, count_ptr, wrong_ptr, T, N, VALUES: tl.constexpr, SHARE: tl.constexpr):
    """`words` int32 [2, VALUES], count int32 [1], zero before; wrong int32 [N, VALUES]."""
    program, each = tl.program_id(0), (VALUES + N - 1) // N
    mine = program * each + tl.arange(0, SHARE)
    written = (tl.arange(0, SHARE) < each) & (mine < VALUES)
    i = tl.arange(0, VALUES)
    limit, wrong = LIMIT, tl.zeros([VALUES], tl.int32)
    for t in range(T):
        use = tl.zeros([1], tl.int32) + t
        slot_ptr = words_ptr + (use & 1) * VALUES
        tl.store(slot_ptr + mine, use * VALUES + mine, mask=written)
        # the compiler puts none before a release
        tl.debug_barrier()
        tl.atomic_add(count_ptr, 1, sem="release", scope="gpu")
        polls = 0
        while (tl.load(count_ptr, volatile=True) < (t + 1) * N) & (polls < limit):
            polls += 1
        limit = tl.where(polls < limit, limit, 1)
        tl.debug_barrier()
        found = tl.load(slot_ptr + i, cache_modifier=".cg")
        wrong += (found != use * VALUES + i).to(tl.int32)
    tl.store(wrong_ptr + program * VALUES + i, wrong)


WORDS = {"tag64": VALUES, "parity32": VALUES, "red64": SUMS, "red32": SUMS, "counter": VALUES}
# words that a thread polls at once
POLLED = {"tag64": 2, "parity32": 4}


def _kernel(protocol: str, programs: int) -> tuple[Any, dict[str, Any]]:
    """The function of a protocol and its constants for N programs."""
    if protocol.startswith("red"):
        return red, {"SUMS": SUMS, "SHIFT": 48 if protocol == "red64" else 24}
    share = triton.next_power_of_2(-(-VALUES // programs))
    function = {"tag64": tag64, "parity32": parity32, "counter": counter}[protocol]
    return function, {"VALUES": VALUES, "SHARE": share}


def _warps(protocol: str) -> int:
    return min(WORDS[protocol] // POLLED.get(protocol, 1) // 32, 8)


def _launch(protocol: str, programs: int, rounds: int, device: str) -> Tensor:
    """Enqueues the rounds; returns how many words came wrong, by program and place."""
    function, constants = _kernel(protocol, programs)
    wide, size = protocol.endswith("64"), WORDS[protocol]
    words = torch.zeros(2, size, dtype=torch.int64 if wide else torch.int32, device=device)
    wrong = torch.zeros(programs, size, dtype=torch.int32, device=device)
    given = [words, torch.zeros_like(wrong[0, :1]), wrong]
    if protocol != "counter":
        del given[1]
    options = {"num_warps": _warps(protocol), "num_stages": 1}
    function[(programs,)](
        *given, rounds, programs, **constants, **options, launch_cooperative_grid=True
    )
    return wrong


def measure(protocol: str, programs: int, rounds: int, device: str) -> dict[str, Any]:
    """Times one protocol: nanoseconds a round, and how many words were wrong or came too late."""
    _launch(protocol, programs, min(rounds, 100), device)
    if device == "cpu":
        started = time.perf_counter()
        wrong = _launch(protocol, programs, rounds, device)
        passed_ns = 1e9 * (time.perf_counter() - started)
    else:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        wrong = _launch(protocol, programs, rounds, device)
        stop.record()
        stop.synchronize()
        passed_ns = 1e6 * start.elapsed_time(stop)
    about = {"bench": "exchange", "protocol": protocol, "programs": programs, "rounds": rounds}
    return about | {"ns": passed_ns / rounds, "wrong": int(wrong.sum())}


def configurations() -> Iterator[Configuration]:
    """Each protocol for 56 programs, for `compiled`."""
    for protocol in WORDS:
        function, constants = _kernel(protocol, 56)
        words = "*i64" if protocol.endswith("64") else "*i32"
        types = {"words_ptr": words, "wrong_ptr": "*i32", "T": "i32", "N": "i32"}
        if protocol == "counter":
            types["count_ptr"] = "*i32"
        yield Configuration(
            f"exchange {protocol}",
            function,
            types,
            constants,
            warps=_warps(protocol),
            cooperative=True,
            expected={"MEMBAR": int(protocol == "counter"), "LDG": 0, "polls": 1},
        )
