"""The native library's functions, run by `remote.cpp` in another process."""

from __future__ import annotations

import ctypes
import fcntl
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wavernn.kernels import native, pack
from wavernn.model import LEVELS

CSRC = Path(native.__file__).resolve().parent / "csrc"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
WRITTEN = {"h", "code", "sample", "memory", "codes", "audio", "logits", "barrier", "ticks"}
# an utterance's workspace lasts from call to call
WRITTEN |= {"rings", "meeting", "times"}
# of remote.cpp
IN, IN_OUT, SCRATCH = range(3)


class Pointer(NamedTuple):
    """A field of a structure and what it leads to."""

    offset: int
    address: int
    bytes: int
    name: str

    @property
    def kind(self) -> int:
        return SCRATCH if self.name == "workspace" else IN_OUT if self.name in WRITTEN else IN


def unavailable() -> str | None:
    """The reason why ARM code can't be compiled or run here."""
    missing = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not installed" if missing else None


def build(folder: Path) -> Path:
    """Compiles the engine for ARM, unless another test process has; returns the program."""
    program = folder / "remote"
    with open(folder / "remote.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _compile(program)
    return program


def _compile(program: Path) -> None:
    # bits don't depend on optimisation, the time of compiling does
    options = ["-std=c++17", "-O0", "-ffp-contract=off", f"-I{CSRC}"]

    def run(*arguments: str | Path) -> None:
        done = subprocess.run((COMPILER, *arguments), stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr

    def object_of(source: Path) -> Path:
        result = program.with_name(f"{source.stem}.o")
        run(*options, "-c", source, "-o", result)
        return result

    sources = [*CSRC.glob("*.cpp"), Path(__file__).with_suffix(".cpp")]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(object_of, sources))
    run("-static", *objects, "-o", program)


def _pointers(structure: ctypes.Structure, sizes: dict[str, int]) -> Iterator[Pointer]:
    for name, kind, *_ in structure._fields_:
        address = getattr(structure, name)
        if kind is ctypes.c_void_p and address is not None:
            yield Pointer(getattr(type(structure), name).offset, address, sizes[name], name)


def _matrix_bytes(matrix: native.Matrix, kind: str) -> dict[str, int]:
    starts = (ctypes.c_int32 * (matrix.groups + 1)).from_address(matrix.starts)
    width, dtype = pack.KINDS[kind]
    sizes = dict.fromkeys(("scale", "correction", "bias"), 4 * pack.GROUP * matrix.groups)
    block = pack.GROUP * width * np.dtype(dtype).itemsize
    return sizes | {
        "starts": ctypes.sizeof(starts),
        "columns": 2 * starts[-1],
        "blocks": block * starts[-1],
    }


def _model_pointers(model: native.Model) -> Iterator[Pointer]:
    format = "int8" if model.format else "float32"
    for place, (name, matrix) in enumerate(zip(native.MATRICES, model.matrices, strict=True)):
        base = native.Model.matrices.offset + place * ctypes.sizeof(native.Matrix)
        for pointer in _pointers(matrix, _matrix_bytes(matrix, pack.kind(format, name))):
            yield pointer._replace(offset=base + pointer.offset)
    rows = LEVELS * 3 * model.half * (2 if model.format else 4)
    yield from _pointers(model, {"past": 4 * rows, "now": rows})


def _call_pointers(call: native.Call, half: int, workspace_bytes: int) -> Iterator[Pointer]:
    B, T = call.streams, call.samples
    sizes = {"rows": 4 * call.lanes, "h": 8 * B * half, "code": 2 * B, "sample": 8 * B}
    sizes |= {"memory": 8 * B, "gates": 4 * B * call.gates_stride, "seed": 8 * B}
    sizes |= {"uniform": 8 * B * T, "known": 2 * B * T, "temperature": 4 * B, "codes": 2 * B * T}
    sizes |= {"audio": 4 * B * T, "logits": 8 * B * T * LEVELS, "barrier": 4 * 32}
    sizes |= {"workspace": workspace_bytes, "ticks": 8 * len(native.PARTS)}
    yield from _pointers(call, sizes)


def _context_pointers(context: native.Context, format: str) -> Iterator[Pointer]:
    C, factor = context.channels, context.factor
    sizes = {"coarse": 4 * (factor - 1) * LEVELS * C, "fine": 4 * (factor - 1) * C}
    yield from _pointers(context, sizes | {"lanes": 4 * factor * C})
    for name, count in (("taps", context.layers), ("candidate", 2)):
        kind = "floats" if name == "taps" else pack.kind(format, "candidate0")
        for place in range(count):
            matrix = getattr(context, name)[place]
            base = getattr(native.Context, name).offset + place * ctypes.sizeof(native.Matrix)
            for pointer in _pointers(matrix, _matrix_bytes(matrix, kind)):
                yield pointer._replace(offset=base + pointer.offset)


def _utterance_pointers(
    call: native.Utterance, model: native.Model, factor: int, workspace_bytes: int
) -> Iterator[Pointer]:
    W, hop = call.window, model.hop
    rows = (call.base + W - 1) // hop - call.base // hop + 1
    sizes = {"h": 8 * factor * model.half, "code": 2 * factor, "meeting": 4 * native.MEETING}
    sizes |= {"gates": 24 * model.units * rows, "seed": 8, "uniform": 8 * W, "known": 2 * W}
    sizes |= {"temperature": 4, "codes": 2 * W, "logits": 8 * W * LEVELS}
    sizes |= {"workspace": workspace_bytes, "times": 8 * len(native.UTTERANCE_PARTS)}
    for pointer in _pointers(call, sizes):
        yield pointer._replace(name="rings") if pointer.name == "workspace" else pointer


def _packed(structure: ctypes.Structure, pointers: list[Pointer]) -> bytes:
    parts = [struct.pack("<II", ctypes.sizeof(structure), len(pointers)), bytes(structure)]
    for pointer in pointers:
        parts.append(struct.pack("<IIQ", pointer.offset, pointer.kind, pointer.bytes))
        if pointer.kind != SCRATCH:
            parts.append(ctypes.string_at(pointer.address, pointer.bytes))
    return b"".join(parts)


class Remote:
    """What `native.library()` has, as far as synthesizers ask for it."""

    def __init__(self, *command: str) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe)
        # one pipe for the threads of a synthesizer
        self._lock = threading.Lock()

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, *parts: bytes) -> None:
        self._process.stdin.write(b"".join(parts))
        self._process.stdin.flush()

    def _answer(self, size: int) -> bytes:
        answer = self._process.stdout.read(size)
        assert len(answer) == size, f"the program ended with {self._process.wait()}"
        return answer

    def wavernn_isas(self) -> bytes:
        with self._lock:
            self._ask(b"i")
            return self._answer(64).rstrip(b"\0")

    def wavernn_workspace_bytes(self, model: native.Model, lanes: int, ranks: int) -> int:
        with self._lock:
            sizes = struct.pack("<ii", lanes, ranks)
            self._ask(b"w", _packed(model, list(_model_pointers(model))), sizes)
            return int.from_bytes(self._answer(8), "little")

    def wavernn_run(self, isa: bytes, model_reference: Any, call_reference: Any) -> int:
        model, call = model_reference._obj, call_reference._obj
        assert call.ranks == 1, "ranks share memory, which processes don't"
        workspace_bytes = self.wavernn_workspace_bytes(model, call.lanes, 1)
        with self._lock:
            pointers = list(_call_pointers(call, model.half, workspace_bytes))
            voice = _packed(model, list(_model_pointers(model)))
            self._ask(b"r", isa.ljust(16, b"\0"), voice, _packed(call, pointers))
            return self._take(pointers)

    def wavernn_utterance_bytes(
        self, isa: bytes, model: native.Model, context: native.Context, ranks: int
    ) -> int:
        with self._lock:
            self._ask(b"b", isa.ljust(16, b"\0"), *self._voice(model, context))
            self._ask(struct.pack("<i", ranks))
            return int.from_bytes(self._answer(8), "little")

    def wavernn_run_utterance(
        self, isa: bytes, model_reference: Any, context_reference: Any, call_reference: Any
    ) -> int:
        model, context, call = (
            r._obj for r in (model_reference, context_reference, call_reference)
        )
        assert call.ranks == 1, "ranks share memory, which processes don't"
        workspace_bytes = self.wavernn_utterance_bytes(isa, model, context, 1)
        with self._lock:
            pointers = list(_utterance_pointers(call, model, context.factor, workspace_bytes))
            voice = self._voice(model, context)
            self._ask(b"u", isa.ljust(16, b"\0"), *voice, _packed(call, pointers))
            return self._take(pointers)

    def _voice(self, model: native.Model, context: native.Context) -> tuple[bytes, bytes]:
        format = "int8" if model.format else "float32"
        return (
            _packed(model, list(_model_pointers(model))),
            _packed(context, list(_context_pointers(context, format))),
        )

    def _take(self, pointers: list[Pointer]) -> int:
        """The status of a call, whose results go to where its pointers lead."""
        status = int.from_bytes(self._answer(4), "little", signed=True)
        for pointer in pointers:
            if pointer.kind == IN_OUT:
                ctypes.memmove(pointer.address, self._answer(pointer.bytes), pointer.bytes)
        return status
