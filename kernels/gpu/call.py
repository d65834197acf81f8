"""What every kernel of this folder is given, and what it is asked to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One launch: each of L lanes makes the next samples of one of B streams.

    All tensors are contiguous and lie on the kernel's device. A run of T samples may be cut into
    several launches, which share the tensors and differ in `start`.
    """

    # the streams' state, read and written back: float32 [B, H], int32 [B, 2] coarse and fine,
    # int64 [B], float64 [B]
    h_BH: Tensor
    code_B2: Tensor
    sample_B: Tensor
    memory_B: Tensor
    # int32 [L]: the stream that a lane runs, each at most once, and the samples that it makes;
    # a lane with 0 of them touches nothing
    stream_L: Tensor
    steps_L: Tensor
    # samples of this run that earlier launches made, for every stream
    start: int
    # float32 [B, N, G], biases included, G = [u, r, e][coarse, fine][H / 2]. Sample s of the run
    # reads row (phase + s) // hop, where phase = (sample_B - start) % hop
    gates_BNG: Tensor
    # float32 [B]
    temperature_B: Tensor
    # uint8 [B, T, 2]: written for samples start .. start + steps - 1
    codes_BT2: Tensor
    # float32 [B, T] in [-1, 1), written likewise: x = y + a x', with product and sum rounded
    # apart in float64; memory_B holds x before it was clipped
    audio_BT: Tensor
    # float32 [B, T, 2] in [0, 1), read where codes are drawn
    uniform_BT2: Tensor | None = None
    # uint8 [B, T, 2]: the codes to take instead of drawing, with room for the logits, float32
    # [B, T, 2, 256] before the temperature
    known_BT2: Tensor | None = None
    logits_BT2Q: Tensor | None = None


class Kernel(Protocol):
    """A voice packed for one kernel on one device."""

    # how `--kernel` and reports call it
    name: str
    # what the weights are held in: bfloat16, float16 or float32
    format: str
    # the most lanes that one launch takes
    lanes: int

    def launch(self, call: Call) -> None:
        """Enqueues a call on the current stream of the device."""

    def check(self) -> None:
        """Raises RuntimeError where an earlier launch gave up; waits for the device."""


@dataclass(frozen=True)
class Configuration:
    """A kernel as it is compiled for one voice: what `compiled.py` needs to do so without a GPU."""

    # such as "resident sparse-512"
    name: str
    # a function under triton.jit or gluon.jit
    function: Any
    # the type of each argument that isn't a constant, such as "*fp32", "i32", "*i64"
    types: dict[str, str]
    constants: dict[str, Any]
    warps: int = 8
    gluon: bool = False
    # whether all programs must be on the device at once
    cooperative: bool = False
    registers: int | None = None
    # what the sample loop of the machine code must hold, by the names that `compiled.py` counts
    expected: dict[str, int] = field(default_factory=dict)
