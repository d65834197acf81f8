"""Small kernels that the checks of machine code must pass or refuse; `test_gpu_compiled.py`."""

import triton
import triton.language as tl

from wavernn.kernels.gpu.call import Configuration

TYPES = {"x_ptr": "*fp32", "w_ptr": "*fp32", "T": "i32"}
WAITING = {**TYPES, "flag_ptr": "*i32"}


@triton.jit
def holding(x_ptr, w_ptr, T, N: tl.constexpr, K: tl.constexpr):
    """Loads weights once."""
    n, k = tl.arange(0, N), tl.arange(0, K)
    w = tl.load(w_ptr + n[:, None] * K + k[None, :])
    x = tl.load(x_ptr + k)
    for _ in range(T):
        tl.store(x_ptr + n, tl.sum(w * x[None, :], 1))
        tl.debug_barrier()
        x = tl.load(x_ptr + k)


@triton.jit
def reloading(x_ptr, w_ptr, T, N: tl.constexpr, K: tl.constexpr):
    """Loads weights for every sample."""
    n, k = tl.arange(0, N), tl.arange(0, K)
    x = tl.load(x_ptr + k)
    for _ in range(T):
        w = tl.load(w_ptr + n[:, None] * K + k[None, :])
        tl.store(x_ptr + n, tl.sum(w * x[None, :], 1))
        tl.debug_barrier()
        x = tl.load(x_ptr + k)


@triton.jit
def prefetching(x_ptr, w_ptr, T, N: tl.constexpr):
    """Lets the compiler load ahead."""
    n = tl.arange(0, N)
    place = n[:, None] * N + n[None, :]
    total = tl.zeros([N, N], tl.float32)
    for t in tl.range(T, num_stages=3):
        w = tl.load(w_ptr + t * N * N + place)
        total = tl.dot(w, w, total)
    tl.store(x_ptr + place, total)


@triton.jit
def dividing(x_ptr, w_ptr, T, N: tl.constexpr):
    """Divides in float64, even if by a power of two."""
    n = tl.arange(0, N)
    x = tl.load(x_ptr + n)
    for _ in range(T):
        x = (x.to(tl.float64) / 32768 + 1).to(tl.float32)
    tl.store(x_ptr + n, x)


@triton.jit
def waiting(x_ptr, w_ptr, flag_ptr, T, N: tl.constexpr, ATOMIC: tl.constexpr):
    """Waits for other programs by loads, or by atomics, which take barriers."""
    n = tl.arange(0, N)
    w = tl.load(w_ptr + n)
    x = tl.load(x_ptr + n)
    for t in range(T):
        tl.store(x_ptr + n, w * x)
        tl.debug_barrier()
        tl.atomic_add(flag_ptr, 1, sem="release", scope="gpu")
        if ATOMIC:
            while tl.atomic_add(flag_ptr, 0, sem="acquire") < t:
                pass
        else:
            while tl.load(flag_ptr, volatile=True) < t:
                pass
        tl.debug_barrier()
        x = tl.load(x_ptr + n, cache_modifier=".cg")


def configurations():
    def matrix(name, function, rows, **fields):
        return Configuration(name, function, TYPES, {"N": rows, "K": 512}, **fields)

    def meeting(name, ATOMIC=False, **fields):
        return Configuration(name, waiting, WAITING, {"N": 256, "ATOMIC": ATOMIC}, **fields)

    once = {"LDG": 1}
    yield matrix("toy that holds", holding, 64, expected=once)
    yield matrix("toy that spills", holding, 256)
    yield matrix("toy that reloads", reloading, 64, expected=once)
    wide = {**TYPES, "w_ptr": "*fp16"}
    yield Configuration("toy that prefetches", prefetching, wide, {"N": 64})
    yield Configuration("toy that divides", dividing, TYPES, {"N": 256})
    protocol = {"MEMBAR": 1, "RED": 1, "LDG.STRONG": 2, "LDG": 0, "polls": 1}
    yield meeting("toy that waits", cooperative=True, expected=protocol)
    yield meeting("toy that waits alone")
    yield meeting("toy that waits by atomics", ATOMIC=True, cooperative=True)
    yield meeting("toy of other counts", cooperative=True, expected={"MEMBAR": 0, "BARS": 1})
