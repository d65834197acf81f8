"""The draws of many streams on the GPU, the same numbers as `wavernn.rng` makes."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from wavernn.rng import MULTIPLIERS, ROUNDS, WEYL

BLOCK = 256
# globals that a kernel reads have to be constants
M0, M1 = (tl.constexpr(m) for m in MULTIPLIERS)
W0, W1 = (tl.constexpr(w) for w in WEYL)
N_ROUNDS = tl.constexpr(ROUNDS)


@triton.jit
def _philox_kernel(seed_B, sample_B, uniform_BT2, T, BLOCK: tl.constexpr):
    """Philox4x32-10 with the stream's seed as key and its sample as counter."""
    stream = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    seed = tl.load(seed_B + stream)
    counter = tl.load(sample_B + stream) + t
    k0, k1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    c0, c1 = counter.to(tl.uint32), (counter >> 32).to(tl.uint32)
    c2, c3 = tl.zeros_like(c0), tl.zeros_like(c0)
    for _ in tl.static_range(N_ROUNDS):
        m0, m1 = tl.full([BLOCK], M0, tl.uint32), tl.full([BLOCK], M1, tl.uint32)
        high0, high1 = tl.umulhi(m0, c0), tl.umulhi(m1, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, m1 * c2, high0 ^ c3 ^ k1, m0 * c0
        k0 += W0
        k1 += W1
    place = uniform_BT2 + (stream * T + t) * 2
    tl.store(place, (c0 >> 8).to(tl.float32) * 2**-24, mask=t < T)
    tl.store(place + 1, (c1 >> 8).to(tl.float32) * 2**-24, mask=t < T)


def uniforms(seed_B: np.ndarray, sample_B: torch.Tensor, count: int) -> torch.Tensor:
    """The next draws of streams from uint64 seeds and int64 samples: float32 [B, T, 2] in [0, 1).

    They lie on the device of `sample_B`.
    """
    B = len(seed_B)
    seeds = torch.from_numpy(seed_B.view(np.int64)).to(sample_B.device)
    uniform_BT2 = torch.empty(B, count, 2, dtype=torch.float32, device=sample_B.device)
    if B and count:
        grid = (B, triton.cdiv(count, BLOCK))
        _philox_kernel[grid](seeds, sample_B, uniform_BT2, count, BLOCK=BLOCK)
    return uniform_BT2
