"""The native engine: int8 or float32 weights, any instruction set, threads over streams."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.errors import BackendUnavailable
from wavernn.kernels import check, native
from wavernn.kernels.native import ABI, PARTS, Call
from wavernn.kernels.pack import FORMATS as FORMATS
from wavernn.kernels.packfile import packed
from wavernn.model import LEVELS, SILENT_CODE

# the most streams that one loop carries
LANES = 16
# what a call is given anew each time
GIVEN = ("gates", "temperature", "seed", "uniform", "known", "codes", "audio", "logits", "ticks")


def unavailable() -> str | None:
    """Says why the library isn't there, or can't run as the environment asks."""
    try:
        native.isa()
    except BackendUnavailable as error:
        return str(error)
    return None


def l2_bytes() -> int:
    """The size of a core's second-level cache, 1 MiB where the system doesn't say."""
    try:
        return os.sysconf("SC_LEVEL2_CACHE_SIZE") or 1 << 20
    except (ValueError, OSError):
        return 1 << 20


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


class Synthesizer:
    """The sample loop of B streams in C++; see `kernels.Synthesizer`.

    With several threads each runs a part of the streams. Fewer streams than threads share out the
    rows of the matrices instead, if the weights exceed a core's L2 cache or `split_rows` says so:
    the threads then wait for each other six times a sample.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        streams: int,
        format: str | None = None,
        threads: int = 1,
        isa: str | None = None,
        split_rows: bool | None = None,
    ) -> None:
        self.format, self.threads = format or FORMATS[0], threads
        if self.format not in FORMATS:
            raise BackendUnavailable(
                f"the cpu engine has no format {self.format}; known: {', '.join(FORMATS)}"
            )
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        check.check_plain(checkpoint.config.model)
        self.isa = isa or native.isa()
        self._library = native.library()
        self._model, self._arrays = native.model_of(packed(checkpoint, self.format))
        self.gate_rows = checkpoint.config.model.gate_rows
        self.weight_bytes = sum(
            array.nbytes for name, array in self._arrays.items() if name.endswith(".blocks")
        )
        self.split_rows = self.weight_bytes > l2_bytes() if split_rows is None else split_rows
        # the calling thread runs a part as well
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None
        self._hop = self._model.hop
        self._barrier = np.zeros(32, np.uint32)
        # ticks of native.PARTS are added to it, where it's set
        self.ticks: np.ndarray | None = None
        half = self._model.half
        self.h_B2U = np.zeros((streams, 2, half), np.float32)
        self.code_B2 = np.tile(np.array(SILENT_CODE, np.uint8), (streams, 1))
        self.sample_B = np.zeros(streams, np.int64)
        self.memory_B = np.zeros(streams)
        self._spaces = [native.zeros(size) for size in self._workspace_sizes(streams)]
        self._rows = np.arange(streams)
        self._parts = self._deal(self._rows) if streams else []
        self._temperature = 1.0, np.ones(streams, np.float32)

    def _workspace_sizes(self, streams: int) -> list[int]:
        """Bytes that each thread's loop may need."""
        size, threads = self._library.wavernn_workspace_bytes, self.threads
        alone = size(self._model, min(-(-streams // threads), LANES), 1)
        # the first is also that of all threads together
        together = size(self._model, min(streams, threads - 1), threads) if threads > 1 else 0
        return [max(alone, together)] + [alone] * (threads - 1)

    def count_ticks(self) -> None:
        """From here on, adds the time of each part of `native.PARTS` to `ticks`."""
        self.ticks = np.zeros(len(PARTS), np.uint64)

    def reset(self, active_B: np.ndarray | None = None) -> None:
        """Puts streams back to the start: zero state, silence before it."""
        rows = check.check_active(active_B, len(self.sample_B))
        self.h_B2U[rows] = 0
        self.code_B2[rows] = SILENT_CODE
        self.sample_B[rows] = 0
        self.memory_B[rows] = 0

    def state(self) -> dict[str, np.ndarray]:
        """A copy of all streams' state: h [B, H], code [B, 2], sample [B], memory [B]."""
        units = self._model.units
        return {
            "h": self.h_B2U[:, :, :units].reshape(len(self.h_B2U), -1).copy(),
            "code": self.code_B2.copy(),
            "sample": self.sample_B.copy(),
            "memory": self.memory_B.copy(),
        }

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over a state."""
        B, units = len(self.h_B2U), self._model.units
        check.check_state(state, B, 2 * units)
        self.h_B2U[:, :, :units] = state["h"].reshape(B, 2, units)
        self.code_B2[:], self.sample_B[:] = state["code"], state["sample"]
        self.memory_B[:] = state["memory"]

    def run(
        self,
        gates_BNG: torch.Tensor,
        uniform_BT2: np.ndarray,
        active_B: np.ndarray | None = None,
        temperature: float | np.ndarray = 1.0,
    ) -> np.ndarray:
        """Draws the next T samples of each active stream: uint8 codes [B, T, 2]."""
        T = check.check_uniform(uniform_BT2, len(self.sample_B))
        codes_BT2 = np.tile(np.array(SILENT_CODE, np.uint8), (len(self.sample_B), T, 1))
        given = {"uniform": np.ascontiguousarray(uniform_BT2), "codes": codes_BT2}
        self._run(gates_BNG, T, active_B, temperature, given)
        return codes_BT2

    def speak(
        self,
        gates_BNG: torch.Tensor,
        samples: int,
        seed_B: np.ndarray,
        active_B: np.ndarray | None = None,
        temperature: float | np.ndarray = 1.0,
    ) -> np.ndarray:
        """Makes the next samples of each active stream: float32 [B, T] in [-1, 1)."""
        check.check_seeds(seed_B, len(self.sample_B))
        audio_BT = np.zeros((len(seed_B), samples), np.float32)
        given = {"seed": np.ascontiguousarray(seed_B), "audio": audio_BT}
        self._run(gates_BNG, samples, active_B, temperature, given)
        return audio_BT

    def score(
        self, gates_BNG: torch.Tensor, codes_BT2: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes known codes instead of drawing: coarse and fine logits [B, T, Q]."""
        T = check.check_codes(codes_BT2, len(self.sample_B))
        logits_2BTQ = np.empty((2, len(codes_BT2), T, LEVELS), np.float32)
        given = {"known": np.ascontiguousarray(codes_BT2), "logits": logits_2BTQ}
        self._run(gates_BNG, T, None, 1.0, given)
        return logits_2BTQ[0], logits_2BTQ[1]

    def _run(
        self,
        gates_BNG: torch.Tensor,
        samples: int,
        active_B: np.ndarray | None,
        temperature: float | np.ndarray,
        arrays: dict[str, np.ndarray],
    ) -> None:
        B = len(self.sample_B)
        rows = self._rows if active_B is None else check.check_active(active_B, B)
        temperature_B = self._temperatures(temperature)
        check.check_gates(gates_BNG, self.gate_rows, self._hop, self.sample_B, samples, rows)
        if not samples or not len(rows):
            return
        gates_BNG = gates_BNG.contiguous()
        pointers = {name: _address(array) for name, array in arrays.items()}
        pointers |= {"gates": gates_BNG.data_ptr(), "temperature": _address(temperature_B)}
        if self.ticks is not None:
            pointers["ticks"] = _address(self.ticks)
        parts = self._parts if active_B is None else self._deal(rows)
        for call, _ in parts:
            call.samples, call.gates_stride = samples, gates_BNG[0].numel()
            for name in GIVEN:
                setattr(call, name, pointers.get(name))
        self._together([call for call, _ in parts])

    def _temperatures(self, temperature: float | np.ndarray) -> np.ndarray:
        if not isinstance(temperature, float):
            return check.check_temperature(temperature, len(self.sample_B))
        if self._temperature[0] != temperature:
            checked_B = check.check_temperature(temperature, len(self.sample_B))
            self._temperature = temperature, checked_B
        return self._temperature[1]

    def _deal(self, rows: np.ndarray) -> list[tuple[Call, np.ndarray]]:
        """The calls that run these streams, one a thread, and the rows that each points to."""
        split = self.split_rows and len(rows) < self.threads
        ranks = self.threads if split else 1
        dealt = [rows] * ranks if split else np.array_split(rows, min(self.threads, len(rows)))
        parts = []
        for place, part in enumerate(dealt):
            part = part.astype(np.int32)
            call = Call(abi=ABI, streams=len(self.sample_B), lanes=len(part), ranks=ranks)
            call.h, call.code = _address(self.h_B2U), _address(self.code_B2)
            call.sample, call.memory = _address(self.sample_B), _address(self.memory_B)
            call.rows, call.rank = _address(part), place if split else 0
            call.barrier = _address(self._barrier)
            call.workspace = _address(self._spaces[0 if split else place])
            parts.append((call, part))
        return parts

    def _together(self, calls: list[Call]) -> None:
        """Runs calls at once, the first in this thread."""
        others = [self._pool.submit(self._enter, call) for call in calls[1:]] if self._pool else []
        self._enter(calls[0])
        for other in others:
            other.result()

    def _enter(self, call: Call) -> None:
        status = self._library.wavernn_run(
            self.isa.encode(), ctypes.byref(self._model), ctypes.byref(call)
        )
        assert status == 0, f"the engine refused {self.isa}"
