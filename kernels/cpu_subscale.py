"""The native engine for subscale voices: the sub-tensors of one utterance as its lanes."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch

from wavernn.checkpoint import Checkpoint
from wavernn.errors import BackendUnavailable
from wavernn.kernels import check, native
from wavernn.kernels.cpu import unavailable as unavailable
from wavernn.kernels.native import ABI, UTTERANCE_PARTS
from wavernn.kernels.pace import Pace
from wavernn.kernels.pack import FORMATS
from wavernn.kernels.pack_context import split
from wavernn.kernels.packfile import packed
from wavernn.kernels.utterance import Utterance
from wavernn.model import LEVELS, SILENT_CODE


class Weights:
    """A packed voice in the form that the library takes."""

    def __init__(self, checkpoint: Checkpoint, format: str) -> None:
        # whose identity is its name here
        self.checkpoint = checkpoint
        lanes, context = split(packed(checkpoint, format))
        self.model, self._arrays = native.model_of(lanes)
        self.context, self._more = native.context_of(context)


# of voices that are open: each once, however many utterances are spoken with it
_opened: WeakValueDictionary[tuple[Callable[..., Any], int, str], Any] = WeakValueDictionary()
W = TypeVar("W")


def shared(kind: Callable[[Checkpoint, str], W], checkpoint: Checkpoint, format: str) -> W:
    """A voice's weights as `kind` makes them, which keeps the voice; the same ones while in use."""
    key = kind, id(checkpoint), format
    found: W | None = _opened.get(key)
    if found is None:
        found = _opened[key] = kind(checkpoint, format)
    return found


def checked(format: str | None, threads: int) -> str:
    """The format that is asked for; raises BackendUnavailable, or ValueError for the threads."""
    if format not in (None, *FORMATS):
        raise BackendUnavailable(
            f"the cpu engine has no format {format}; known: {', '.join(FORMATS)}"
        )
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    return format or FORMATS[0]


@cache
def _helpers(threads: int) -> ThreadPoolExecutor:
    """Threads that all utterances share, since none has to come."""
    return ThreadPoolExecutor(threads, "wavernn-lanes")


class Synthesizer:
    """The samples of one utterance in C++; see `kernels.SubscaleSynthesizer`.

    With several threads each has a part of the lanes, and they wait for each other once a tick;
    where one alone turns out to be faster, calls have one (`pace`).
    """

    # logits of a byte
    levels: tuple[int, ...] = (LEVELS,)

    def __init__(
        self,
        checkpoint: Checkpoint,
        format: str | None = None,
        threads: int = 1,
        isa: str | None = None,
    ) -> None:
        self.format, config = checked(format, threads), checkpoint.config.model
        self.isa = isa or native.isa()
        self.threads = min(threads, config.subscale)
        self._library = native.library()
        self._weights = shared(Weights, checkpoint, self.format)
        self._model, self._context = self._weights.model, self._weights.context
        self.pre_emphasis, self.reach = config.pre_emphasis, 1 << config.context_layers
        self.utterance = Utterance(config)
        # the tick from which on all lanes are at work
        self._all_begun = (config.subscale - 1) * self.utterance.order.lag_steps
        # the calling thread runs a part as well
        self._pool = _helpers(self.threads - 1) if self.threads > 1 else None
        self.pace = Pace(self.threads)
        self._meeting = native.zeros(4 * native.MEETING)
        # lanes of two threads share no line of the cache
        shape = config.subscale, 2, self._model.half
        self.h_U2H = native.zeros(4 * math.prod(shape)).view(np.float32).reshape(shape)
        self.code_U2 = np.empty((config.subscale, 2), np.uint8)
        self.memory_1 = np.zeros(1)
        self.workspace_bytes: int = self._library.wavernn_utterance_bytes(
            self.isa.encode(), self._model, self._context, self.threads
        )
        self._space = native.zeros(self.workspace_bytes)
        # ticks of UTTERANCE_PARTS are added to it, where it's set
        self.ticks: np.ndarray | None = None
        self.reset()

    def count_ticks(self) -> None:
        """From here on, adds the time of each part of `UTTERANCE_PARTS` to `ticks`."""
        self.ticks = np.zeros(len(UTTERANCE_PARTS), np.uint64)

    def reset(self) -> None:
        """Puts the utterance back to its start."""
        self.utterance.reset()
        self.h_U2H[:] = 0
        self.code_U2[:] = SILENT_CODE
        self.memory_1[:] = 0
        # what the lanes remember of their context is made anew from columns without samples
        self._fresh = True

    def run(
        self,
        gates_NG: torch.Tensor,
        uniform_T2: np.ndarray,
        last: bool = False,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Takes conditioning and draws of the next T samples; uint8 codes [*, 2] that came due."""
        check.check_uniform(uniform_T2[None], 1)
        self._give(gates_NG, len(uniform_T2), uniform_T2, last)
        return self._advance(temperature, {"uniform": self.utterance.drawn_W2})

    def speak(
        self,
        gates_NG: torch.Tensor,
        samples: int,
        seed: int,
        last: bool = False,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Takes conditioning of the next samples; float32 audio [*] in [-1, 1) that came due."""
        self._give(gates_NG, samples, None, last)
        codes_T2 = self._advance(temperature, {"seed": np.array([seed], np.uint64)})
        audio_T = np.empty(len(codes_T2), np.float32)
        self._library.wavernn_de_emphasis(
            codes_T2.ctypes.data,
            len(codes_T2),
            self.pre_emphasis,
            self.memory_1.ctypes.data,
            audio_T.ctypes.data,
        )
        return audio_T

    def score(self, gates_NG: torch.Tensor, codes_T2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes an utterance's codes instead of drawing, from its start: logits [T, Q] each."""
        T = check.check_codes(codes_T2[None], 1)
        self.reset()
        self._give(gates_NG, T, codes_T2, True)
        logits_2TQ = np.empty((2, T, *self.levels), np.float32)
        self._advance(1.0, {"known": self.utterance.drawn_W2, "logits": logits_2TQ})
        return logits_2TQ[0], logits_2TQ[1]

    def _give(
        self, gates_NG: torch.Tensor, samples: int, drawn_T2: np.ndarray | None, last: bool
    ) -> None:
        if gates_NG.dtype != torch.float32 or gates_NG.device.type != "cpu":
            raise ValueError(
                f"expected gate input as float32 on the CPU, got {gates_NG.dtype} on "
                f"{gates_NG.device}"
            )
        self.utterance.give(gates_NG, samples, drawn_T2, last)

    def _advance(self, temperature: float, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """Runs all ticks that can be run; the codes [T, 2] that came due."""
        u = self.utterance
        heat_1 = check.check_temperature(temperature, 1)
        until, first = u.ready_ticks, -self.reach if self._fresh else u.tick
        if until > u.tick:
            self._fresh = False
            gates_NG, codes_W2 = u.gates_NG.contiguous(), np.ascontiguousarray(u.codes_W2)
            arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            arrays |= {"temperature": heat_1, "codes": codes_W2, "h": self.h_U2H}
            arrays |= {"code": self.code_U2, "meeting": self._meeting, "workspace": self._space}
            if self.ticks is not None:
                arrays["times"] = self.ticks
            threads, calls = self.pace.threads(), []
            for rank in range(threads):
                call = native.Utterance(abi=ABI, rank=rank, ranks=threads, first=first)
                call.ticks, call.given, call.base = until - first, u.given, u.base
                call.window = len(codes_W2)
                call.gates = gates_NG.data_ptr()
                for name, array in arrays.items():
                    setattr(call, name, array.ctypes.data)
                calls.append(call)
            started = time.perf_counter()
            self._together(calls)
            if first > self._all_begun:
                self.pace.note(threads, until - first, time.perf_counter() - started)
            u.codes_W2 = codes_W2
        return u.take(until)

    def _together(self, calls: list[native.Utterance]) -> None:
        """Runs calls at once, the first in this thread, which waits for none that hasn't begun."""
        self._meeting[:] = 0
        others = [self._pool.submit(self._enter, call) for call in calls[1:]] if self._pool else []
        self._enter(calls[0])
        for other in others:
            if not other.cancel():
                other.result()

    def _enter(self, call: native.Utterance) -> None:
        status = self._library.wavernn_run_utterance(
            self.isa.encode(),
            ctypes.byref(self._model),
            ctypes.byref(self._context),
            ctypes.byref(call),
        )
        assert status == 0, f"the engine refused {self.isa}"
