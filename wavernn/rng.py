"""Random numbers as data: Philox4x32-10, so that every backend draws the same uniforms.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3; the constants and
known-answer vectors are those of the authors' Random123 library. Key = seed of the stream,
counter = (sample index, 0, 0, 0); words 0 and 1 of a block are the coarse and the fine draw.
"""

from __future__ import annotations

import numpy as np
import torch

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF


def philox(counter_x4: np.ndarray, key_x2: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox4x32: uint32 counters [..., 4] to uint32 words [..., 4]."""
    x = counter_x4.astype(np.uint64)
    c0, c1, c2, c3 = x[..., 0], x[..., 1], x[..., 2], x[..., 3]
    k0, k1 = key_x2
    m0, m1 = (np.uint64(m) for m in MULTIPLIERS)
    low, shift = np.uint64(MASK), np.uint64(32)
    for _ in range(ROUNDS):
        p0, p1 = m0 * c0, m1 * c2
        c0, c1, c2, c3 = (
            (p1 >> shift) ^ c1 ^ np.uint64(k0),
            p1 & low,
            (p0 >> shift) ^ c3 ^ np.uint64(k1),
            p0 & low,
        )
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return np.stack((c0, c1, c2, c3), axis=-1).astype(np.uint32)


def _key(seed: int) -> tuple[int, int]:
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"a seed is a whole number in 0..2^64-1, got {seed}")
    return seed & MASK, seed >> 32


def uniforms(seed: int, start: int, count: int) -> np.ndarray:
    """The draws of samples start .. start + count - 1 of a stream: float32 [T, 2] in [0, 1).

    The last axis is coarse, fine. Each has 24 bits, so float32 holds it exactly. Raises ValueError
    for a seed outside 0..2^64-1 or a negative start or count.
    """
    if start < 0 or count < 0:
        raise ValueError(f"start and count must not be negative, got {start}, {count}")
    index_T = np.arange(start, start + count, dtype=np.uint64)
    counter_T4 = np.zeros((count, 4), np.uint64)
    counter_T4[:, 0] = index_T & np.uint64(MASK)
    # a stream of more than 2^32 samples (54 hours) goes on in the second word
    counter_T4[:, 1] = index_T >> np.uint64(32)
    words_T2 = philox(counter_T4, _key(seed))[:, :2]
    return (words_T2 >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def uniforms_torch(
    seed: int, start: int, count: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """The same draws made on a torch device: float32 [T, 2] in [0, 1)."""
    if start < 0 or count < 0:
        raise ValueError(f"start and count must not be negative, got {start}, {count}")
    k0, k1 = _key(seed)
    index_T = torch.arange(start, start + count, dtype=torch.int64, device=device)
    c0, c1 = index_T & MASK, index_T >> 32
    c2 = c3 = torch.zeros_like(index_T)
    for _ in range(ROUNDS):
        # int64 wraps as uint64 does; the mask undoes the sign that the shift drags in
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & MASK) ^ c1 ^ k0,
            p1 & MASK,
            ((p0 >> 32) & MASK) ^ c3 ^ k1,
            p0 & MASK,
        )
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return (torch.stack((c0, c1), dim=-1) >> 8).to(torch.float32) * 2**-24
