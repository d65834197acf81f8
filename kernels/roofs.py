"""What this machine can do at most, by instruction set: how fast it reads, and multiplies.

Measured in the process that is judged by it, as the best of short windows: interruptions only slow
down. A loop can be no faster than its weights are read and its products formed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from wavernn.kernels import native

# where the system doesn't say how large a cache is
SIZES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}
_NAMES = {level: f"SC_LEVEL{level[1]}_{'D' * (level == 'L1')}CACHE_SIZE" for level in SIZES}
# bytes that are read to measure L3: well above an L2, well below an L3
L3_READ = 4 << 20
MOST_READ = 1 << 30
WINDOW_S = 2e-3
# as the native library numbers them
FORMATS = ("float32", "int8")


@dataclass(frozen=True)
class Roofs:
    """The limits of one core with one instruction set."""

    isa: str
    # bytes per second, by the level that holds them: L1, L2, L3, DRAM
    read: dict[str, float]
    # multiply-adds per second, by format
    multiply: dict[str, float]


@dataclass(frozen=True)
class Work:
    """What a step of the loop, one sample of each of N streams, reads and multiplies.

    Bytes of weights are read once for all streams of a loop.
    """

    weight_bytes: int
    index_bytes: int
    # input rows of one stream
    row_bytes: int
    # multiply-adds of one stream, as many as take the time
    multiplies: int

    def bytes(self, streams: int) -> int:
        """Bytes that a step reads."""
        return self.weight_bytes + self.index_bytes + streams * self.row_bytes


def cache_bytes() -> dict[str, int]:
    """Bytes of the first, second and third level of the data cache."""
    return {level: _sysconf(name) or SIZES[level] for level, name in _NAMES.items()}


def _sysconf(name: str) -> int:
    try:
        return os.sysconf(name)
    except (ValueError, OSError):
        return 0


def level_of(size: int) -> str:
    """The smallest level of the memory that holds so many bytes."""
    return next((level for level, most in cache_bytes().items() if size <= most), "DRAM")


@cache
def measure(isa: str, windows: int = 12) -> Roofs:
    """Measures one core; half of L1 and L2 is read, 4 MiB of L3, and 4 times the L3 of DRAM."""
    caches = cache_bytes()
    sizes = {"L1": caches["L1"] // 2, "L2": caches["L2"] // 2, "L3": L3_READ}
    sizes["DRAM"] = min(4 * caches["L3"], MOST_READ)
    buffer = native.zeros(sizes["DRAM"])
    # so that there is memory behind it
    buffer[:] = 1
    read = {level: _read_rate(isa, buffer, size, windows) for level, size in sizes.items()}
    multiply = {
        format: _multiply_rate(isa, number, windows) for number, format in enumerate(FORMATS)
    }
    return Roofs(isa, read, multiply)


def _read_rate(isa: str, buffer: np.ndarray, size: int, windows: int) -> float:
    read = native.library().wavernn_read_rate
    return _best(lambda passes: read(isa.encode(), buffer.ctypes.data, size, passes), size, windows)


def _multiply_rate(isa: str, format: int, windows: int) -> float:
    multiply = native.library().wavernn_multiply_rate
    # a round of float32 is 192 multiply-adds
    return _best(lambda rounds: multiply(isa.encode(), format, rounds), 192, windows)


def _best(rate: Callable[[int], float], least: int, windows: int) -> float:
    """The highest rate of several windows of about WINDOW_S, of rounds of at least `least`."""
    rounds = 1
    # a window that is shorter measures the clock
    while rounds * least < WINDOW_S * rate(rounds):
        rounds *= 2
    return max(rate(rounds) for _ in range(windows))


def roof(
    roofs: Roofs, work: Work, format: str, streams: int, threads: int, lanes: int, split: bool
) -> tuple[float, str]:
    """Samples per second of all streams that the machine allows, and what binds: read, multiply.

    Each of `threads` threads has its own caches and runs at most `lanes` of its streams at once,
    or with `split` its share of the rows of all streams.
    """
    if split:
        at_once, share = streams, threads
    else:
        threads = min(threads, streams)
        at_once, share = min(-(-streams // threads), lanes), 1
    resident = (work.weight_bytes + work.index_bytes) // share
    step_s = work.bytes(at_once) / share / roofs.read[level_of(resident)]
    together = 1 if split else threads
    limits = {
        "read": together * at_once / step_s,
        "multiply": threads * roofs.multiply[format] / work.multiplies,
    }
    bound = min(limits, key=lambda name: limits[name])
    return limits[bound], bound
