"""The native engine for fused voices: two samples of one utterance a step."""

from __future__ import annotations

import ctypes

import numpy as np

from wavernn.checkpoint import Checkpoint
from wavernn.fused import NIBBLES
from wavernn.kernels import check, cpu_subscale, native
from wavernn.kernels.cpu import unavailable as unavailable
from wavernn.kernels.cpu_subscale import checked, shared
from wavernn.kernels.native import ABI
from wavernn.kernels.pack_fused import pack_fused
from wavernn.kernels.utterance import Utterance


class Weights:
    """A packed voice in the form that the library takes."""

    def __init__(self, checkpoint: Checkpoint, format: str) -> None:
        # whose identity is its name here
        self.checkpoint = checkpoint
        self.fused, self._arrays = native.fused_of(pack_fused(checkpoint, format))


class Synthesizer(cpu_subscale.Synthesizer):
    """The samples of one utterance in C++; see `kernels.SubscaleSynthesizer`.

    A step has nothing to share out, so one thread runs it, whatever `threads` says. `score` gives
    the logits of the two nibbles of each byte, [T, 2, 16].
    """

    levels = (2, NIBBLES)

    def __init__(
        self,
        checkpoint: Checkpoint,
        format: str | None = None,
        threads: int = 1,
        isa: str | None = None,
    ) -> None:
        self.format, config = checked(format, threads), checkpoint.config.model
        self.isa = isa or native.isa()
        self._library = native.library()
        self._packed = shared(Weights, checkpoint, self.format)
        self._fused = self._packed.fused
        self.pre_emphasis, self.utterance = config.pre_emphasis, Utterance(config)
        self.h_8U = np.zeros((8, self._fused.part), np.float32)
        self.memory_1 = np.zeros(1)
        self._space = native.zeros(self._library.wavernn_fused_bytes(self._fused))
        # ticks of native.PARTS are added to it, where it's set
        self.ticks = None
        self.reset()

    def reset(self) -> None:
        """Puts the utterance back to its start."""
        self.utterance.reset()
        self.h_8U[:] = 0
        self.memory_1[:] = 0

    def _advance(self, temperature: float, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """Runs all steps that can be run; the codes [T, 2] that came due."""
        u = self.utterance
        heat_1 = check.check_temperature(temperature, 1)
        until = u.ready_ticks
        if until > u.tick:
            gates_NG, codes_W2 = u.gates_NG.contiguous(), np.ascontiguousarray(u.codes_W2)
            arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            arrays |= {"temperature": heat_1, "codes": codes_W2, "h": self.h_8U}
            if self.ticks is not None:
                arrays["times"] = self.ticks
            call = native.Utterance(abi=ABI, ranks=1, first=u.tick, ticks=until - u.tick)
            call.given, call.base, call.window = u.given, u.base, len(codes_W2)
            call.workspace, call.gates = self._space.ctypes.data, gates_NG.data_ptr()
            for name, array in arrays.items():
                setattr(call, name, array.ctypes.data)
            status = self._library.wavernn_run_fused(
                self.isa.encode(), ctypes.byref(self._fused), ctypes.byref(call)
            )
            assert status == 0, f"the engine refused {self.isa}"
            u.codes_W2 = codes_W2
        return u.take(until)
