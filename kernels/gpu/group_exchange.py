"""How the programs of a group wait for each other: a counter that only grows.

Each program makes its stores and additions, arrives, polls until all have, and reads with .cg,
beyond the first-level cache. One slot for each exchange is enough: a program that writes it again
has passed an exchange which every other entered after it had read. A wait is bounded: a program
that runs out of patience waits no more, so that it comes to its end.
"""

from __future__ import annotations

import triton
import triton.language as tl

from wavernn.kernels.gpu.step import INTERPRETED


@triton.jit
def arrive(arrived_ptr):
    """Says that this program's accesses so far are done."""
    # without it the first thread's alone would be
    tl.debug_barrier()
    tl.atomic_add(arrived_ptr, 1, sem="release", scope="gpu")


@triton.jit
def wait(arrived_ptr, target, patience):
    """Waits for `target` arrivals; returns the polls that the next wait may make, 0 for good."""
    polls = 0
    while (tl.load(arrived_ptr, volatile=True) < target) & (polls < patience):
        polls += 1
    tl.debug_barrier()
    return tl.where(polls < patience, patience, 0)


@triton.jit
def add(sums_ptr, z):
    """Adds z to the sums of all programs."""
    if INTERPRETED:
        tl.atomic_add(sums_ptr, z, sem="relaxed", scope="gpu")
    else:
        # an atomic_add would take z through shared memory, to a layout whose sectors are half empty
        tl.inline_asm_elementwise(
            "red.relaxed.gpu.global.add.s32 [$1], $2; mov.b32 $0, 0;",
            "=r,l,r",
            [sums_ptr, z],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
