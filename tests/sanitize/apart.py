"""Gives every array that the native engine sees memory of its own, whose ends are watched.

A plugin for `make sanitize`: address sanitizer knows nothing of what lies within a mapping.
"""

import ctypes
import weakref

import numpy as np

from wavernn.kernels import native

LIBC = ctypes.CDLL(None)
LIBC.posix_memalign.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
LIBC.free.argtypes = (ctypes.c_void_p,)


def zeros(size_bytes: int) -> np.ndarray:
    address = ctypes.c_void_p()
    assert LIBC.posix_memalign(ctypes.byref(address), 64, size_bytes) == 0
    memory = (ctypes.c_uint8 * size_bytes).from_address(address.value)
    # every view of the array keeps this object
    weakref.finalize(memory, LIBC.free, address)
    array = np.frombuffer(memory, np.uint8)
    array[:] = 0
    return array


def together(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    copies = {}
    for name, array in arrays.items():
        copies[name] = zeros(array.nbytes).view(array.dtype).reshape(array.shape)
        copies[name][...] = array
    return copies


def pytest_configure() -> None:
    assert callable(native.zeros) and callable(native.together)
    native.zeros, native.together = zeros, together
