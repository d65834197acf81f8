"""The native library: finding it, its C structures, and which instruction set runs."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_uint32,
    c_uint64,
    c_void_p,
)
from functools import cache
from pathlib import Path

import numpy as np

from wavernn.errors import BackendUnavailable
from wavernn.kernels.pack import Packed

ABI = 3
# forces an instruction set of `isas()`
VARIABLE = "WAVERNN_ISA"
# names another build of the library
LIBRARY = "WAVERNN_ENGINE"
PARTS = ("recurrence", "gates", "projection", "quantise", "logits", "softmax", "draw")
UTTERANCE_PARTS = (*PARTS, "context")
# words that the threads of an utterance meet at
MEETING = 640
MATRICES = ("gates0", "gates1", "candidate0", "candidate1", "O1", "O2", "O3", "O4")
FUSED_MATRICES = (
    *("gates", "candidate"),
    *(f"{layer}{k}" for layer in ("first", "second") for k in range(4)),
)
FUSED_ROWS = ("past", "now", "upper", "fine")

MATRIX_ARRAYS = ("blocks", "columns", "starts", "scale", "correction", "bias")


class Matrix(ctypes.Structure):
    """`wavernn_matrix` of csrc/api.h."""

    _fields_ = (
        *((name, c_void_p) for name in MATRIX_ARRAYS),
        ("groups", c_int32),
    )


class Model(ctypes.Structure):
    """`wavernn_model` of csrc/api.h."""

    _fields_ = (
        ("abi", c_uint32),
        ("format", c_uint32),
        *((name, c_int32) for name in ("units", "half", "projection", "hop")),
        ("pre_emphasis", c_double),
        ("matrices", Matrix * len(MATRICES)),
        ("past", c_void_p),
        ("now", c_void_p),
        ("rows_scale", c_float * 3),
    )


class Call(ctypes.Structure):
    """`wavernn_call` of csrc/api.h."""

    _fields_ = (
        ("abi", c_uint32),
        ("lanes", c_int32),
        ("rows", c_void_p),
        ("samples", c_int64),
        *((name, c_void_p) for name in ("h", "code", "sample", "memory", "gates")),
        ("gates_stride", c_int64),
        *((name, c_void_p) for name in ("seed", "uniform", "known", "temperature")),
        *((name, c_void_p) for name in ("codes", "audio", "logits")),
        ("streams", c_int64),
        ("rank", c_int32),
        ("ranks", c_int32),
        *((name, c_void_p) for name in ("barrier", "workspace", "ticks")),
    )


class Context(ctypes.Structure):
    """`wavernn_context` of csrc/api.h."""

    _fields_ = (
        *((name, c_int32) for name in ("factor", "horizon", "layers", "channels")),
        *((name, c_void_p) for name in ("coarse", "fine", "lanes")),
        ("taps", Matrix * 16),
        ("candidate", Matrix * 2),
    )


class Fused(ctypes.Structure):
    """`wavernn_fused` of csrc/api.h."""

    _fields_ = (
        ("abi", c_uint32),
        ("format", c_uint32),
        *((name, c_int32) for name in ("units", "part", "projection", "hop")),
        ("matrices", Matrix * len(FUSED_MATRICES)),
        *((name, c_void_p) for name in FUSED_ROWS),
        ("rows_scale", c_float * 3),
    )


class Utterance(ctypes.Structure):
    """`wavernn_utterance` of csrc/api.h."""

    _fields_ = (
        ("abi", c_uint32),
        ("rank", c_int32),
        ("ranks", c_int32),
        *((name, c_int64) for name in ("first", "ticks", "given", "base", "window")),
        *((name, c_void_p) for name in ("h", "code", "workspace", "meeting")),
        *((name, c_void_p) for name in ("gates", "seed", "uniform", "known", "temperature")),
        *((name, c_void_p) for name in ("codes", "logits", "times")),
    )


def path() -> Path | None:
    """The library's file, if this installation has one; LIBRARY names another."""
    named = os.environ.get(LIBRARY)
    return (
        Path(named)
        if named
        else next(iter(sorted(Path(__file__).parent.glob("_engine*.so"))), None)
    )


@cache
def library() -> ctypes.CDLL:
    """Loads the library; raises BackendUnavailable where it is absent or of another version."""
    file = path()
    if file is None:
        raise BackendUnavailable(
            "the native engine was not built: there was no C++ compiler at installation, or it "
            "failed (pip install -v says why); install one and install wavernn again"
        )
    try:
        lib = ctypes.CDLL(str(file))
    except OSError as error:
        raise BackendUnavailable(f"the native engine can't be loaded: {error}") from None
    lib.wavernn_abi.restype = c_uint32
    if lib.wavernn_abi() != ABI:
        raise BackendUnavailable(
            f"{file.name} is the native engine of another release; install wavernn again"
        )
    lib.wavernn_run.argtypes = (c_char_p, POINTER(Model), POINTER(Call))
    lib.wavernn_workspace_bytes.argtypes = (POINTER(Model), c_int32, c_int32)
    lib.wavernn_workspace_bytes.restype = c_uint64
    lib.wavernn_run_utterance.argtypes = (
        *(c_char_p, POINTER(Model), POINTER(Context), POINTER(Utterance)),
    )
    lib.wavernn_utterance_bytes.argtypes = (*(c_char_p, POINTER(Model), POINTER(Context), c_int32),)
    lib.wavernn_utterance_bytes.restype = c_uint64
    lib.wavernn_run_fused.argtypes = (c_char_p, POINTER(Fused), POINTER(Utterance))
    lib.wavernn_fused_bytes.argtypes = (POINTER(Fused),)
    lib.wavernn_fused_bytes.restype = c_uint64
    lib.wavernn_de_emphasis.argtypes = (c_void_p, c_int64, c_double, c_void_p, c_void_p)
    lib.wavernn_de_emphasis.restype = None
    lib.wavernn_isas.restype = c_char_p
    lib.wavernn_read_rate.argtypes = (c_char_p, c_void_p, c_int64, c_int64)
    lib.wavernn_read_rate.restype = c_double
    lib.wavernn_multiply_rate.argtypes = (c_char_p, c_int32, c_int64)
    lib.wavernn_multiply_rate.restype = c_double
    lib.wavernn_ticks.restype = c_uint64
    return lib


def isas() -> tuple[str, ...]:
    """The instruction sets that this machine runs, best first."""
    names: bytes = library().wavernn_isas()
    return tuple(names.decode().split(","))


def isa() -> str:
    """The instruction set in use; raises BackendUnavailable where the one asked for can't run."""
    wanted = os.environ.get(VARIABLE)
    if wanted and wanted not in isas():
        raise BackendUnavailable(
            f"{VARIABLE}={wanted} can't run here; this machine has {', '.join(isas())}"
        )
    return wanted or isas()[0]


def zeros(size_bytes: int) -> np.ndarray:
    """Zeroed bytes that begin with a page, in large pages where the system has them."""
    memory = mmap.mmap(-1, max(size_bytes, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def together(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies of arrays in one piece of memory, each at a multiple of 64 bytes."""
    starts, end = {}, 0
    for name, array in arrays.items():
        starts[name] = end
        end += -(-array.nbytes // 64) * 64
    memory, copies = zeros(end), {}
    for name, array in arrays.items():
        start = starts[name]
        copies[name] = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        copies[name][...] = array
    return copies


def model_of(packed: Packed) -> tuple[Model, dict[str, np.ndarray]]:
    """The C form of a packed voice, and the arrays that must live as long as it is used."""
    arrays = together(packed.arrays)
    model = Model(abi=ABI, format=int(packed.header["format"] == "int8"))
    for name in ("units", "half", "projection", "hop", "pre_emphasis"):
        setattr(model, name, packed.header[name])
    for place, name in enumerate(MATRICES):
        _point(model.matrices[place], name, arrays)
    model.past, model.now = arrays["past"].ctypes.data, arrays["now"].ctypes.data
    model.rows_scale[:] = arrays["rows_scale"].tolist()
    return model, arrays


def context_of(packed: Packed) -> tuple[Context, dict[str, np.ndarray]]:
    """The C form of a packed context, and the arrays that must live as long as it is used."""
    arrays = together(packed.arrays)
    context = Context(**packed.header)
    for name in ("coarse", "fine", "lanes"):
        setattr(context, name, arrays[name].ctypes.data)
    for layer in range(context.layers):
        _point(context.taps[layer], f"taps{layer}", arrays)
    for half in range(2):
        _point(context.candidate[half], f"candidate{half}", arrays)
    return context, arrays


def fused_of(packed: Packed) -> tuple[Fused, dict[str, np.ndarray]]:
    """The C form of a packed fused voice, and the arrays that must live as long as it is used."""
    arrays = together(packed.arrays)
    sizes = {name: packed.header[name] for name in ("units", "part", "projection", "hop")}
    fused = Fused(abi=ABI, format=int(packed.header["format"] == "int8"), **sizes)
    for place, name in enumerate(FUSED_MATRICES):
        _point(fused.matrices[place], name, arrays)
    for name in FUSED_ROWS:
        setattr(fused, name, arrays[name].ctypes.data)
    fused.rows_scale[:] = arrays["rows_scale"].tolist()
    return fused, arrays


def _point(matrix: Matrix, name: str, arrays: dict[str, np.ndarray]) -> None:
    for part in MATRIX_ARRAYS:
        array = arrays.get(f"{name}.{part}")
        setattr(matrix, part, None if array is None else array.ctypes.data)
    matrix.groups = len(arrays[f"{name}.starts"]) - 1
