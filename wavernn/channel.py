"""A stream of an engine: mel frames go in, samples come out, and neither side runs away.

All state is guarded by the engine's lock, which is held for moments only.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Protocol

import numpy as np
import torch

from wavernn.conditioning import BLOCK_FRAMES, Conditioning
from wavernn.vocoder import check_mel
from wavernn.waking import Waiting, wake


class Owner(Protocol):
    """What a channel asks of its engine."""

    lock: threading.Lock
    work: threading.Condition
    bands: int
    hop_samples: int
    max_frames: int
    max_samples: int

    def _release(self, channel: Channel) -> None: ...


class Channel:
    """One stream, from `Engine.open`; its methods may be called from any thread.

    Push mel frames [n, M] and say `end`; read float32 samples [T] in [-1, 1) until None. As a
    context manager it's cancelled where it isn't over.
    """

    def __init__(
        self, engine: Owner, row: int, seed: int, temperature: float, conditioning: Conditioning
    ) -> None:
        self._engine = engine
        self.row, self.seed, self.temperature = row, seed, temperature
        # samples that were handed to the reader
        self.samples = 0
        # when the first block was made, in seconds of time.perf_counter
        self.opened_s, self.first_audio_s = time.perf_counter(), math.nan
        self._mels: deque[np.ndarray] = deque()
        self._frames = 0
        self._ended = self._over = False
        self.cancelled = False
        self.failure: BaseException | None = None
        self._audio: deque[np.ndarray] = deque()
        self._waiting = 0
        self._wanted = 1
        # threads and tasks that wait, for room or for samples
        self._turn = threading.Condition(engine.lock)
        self._futures: list[Waiting] = []
        # what follows belongs to the engine's thread
        self.fresh = True
        # had nothing to do; when the next sample is due for who listens since it had
        self.idle, self.due_s = True, -math.inf
        self.made = 0
        self._conditioning = conditioning
        self._steps = conditioning.model.conditioner.steps_per_frame
        self._fed_last = False
        self._gates: deque[np.ndarray] = deque()
        self.gate_frames = 0

    # ---- the side that gives mel frames ----

    def push(self, mel_NM: np.ndarray, timeout: float | None = None) -> None:
        """Gives mel frames [n, M]; waits while `max_frames` of them are still to be spoken.

        Raises MelError for frames of the wrong shape or with values that aren't finite,
        TimeoutError when there's no room in time, ValueError after `end`.
        """
        for piece in self._pieces(mel_NM):
            room = partial(self._has_room, len(piece))
            with self._engine.lock:
                if not self._turn.wait_for(room, timeout):
                    raise TimeoutError(f"the channel had no room for mel frames in {timeout} s")
                self._take_in(piece)

    async def apush(self, mel_NM: np.ndarray) -> None:
        """Does what `push` does without blocking the event loop."""
        for piece in self._pieces(mel_NM):
            while True:
                with self._engine.lock:
                    if self._has_room(len(piece)):
                        self._take_in(piece)
                        break
                    future = self._future()
                await future

    def end(self) -> None:
        """Says that no more frames will come; what follows the last one is silence."""
        with self._engine.lock:
            self._ended = True
            self._engine.work.notify()

    @property
    def waiting_frames(self) -> int:
        """Mel frames that are still to be taken by the engine."""
        return self._frames

    def _pieces(self, mel_NM: np.ndarray) -> list[np.ndarray]:
        mel = check_mel(mel_NM, self._engine.bands)
        # its own memory, so that the caller may write to his, and none is kept for long
        size = min(self._engine.max_frames, 2 * BLOCK_FRAMES)
        return [mel[i : i + size].copy() for i in range(0, len(mel), size)]

    def _has_room(self, frames: int) -> bool:
        return self._over or self._frames + frames <= self._engine.max_frames

    def _take_in(self, piece: np.ndarray) -> None:
        if self._ended:
            raise ValueError("frames came after the end of the stream; open another channel")
        if not self._over:
            self._mels.append(piece)
            self._frames += len(piece)
            self._engine.work.notify()

    # ---- the side that takes samples ----

    def read(self, timeout: float | None = None, at_least: int = 1) -> np.ndarray | None:
        """Takes all samples made since: float32 [T], or None when the stream is over.

        Waits for `at_least` samples, for as many as fit in the channel, or for the end. Raises
        TimeoutError, and RuntimeError where the engine has failed.
        """
        with self._engine.lock:
            self._wanted = at_least
            if not self._turn.wait_for(self._has_samples, timeout):
                raise TimeoutError(f"the channel gave no samples in {timeout} s")
            return self._take_out()

    async def aread(self, at_least: int = 1) -> np.ndarray | None:
        """Does what `read` does without blocking the event loop."""
        while True:
            with self._engine.lock:
                self._wanted = at_least
                if self._has_samples():
                    return self._take_out()
                future = self._future()
            await future

    def _has_samples(self) -> bool:
        wanted = min(self._wanted, self._engine.max_samples)
        return self._over or self._waiting >= wanted

    def _take_out(self) -> np.ndarray | None:
        if self.failure is not None:
            raise RuntimeError("the engine has failed") from self.failure
        if not self._audio:
            return None
        samples_T: np.ndarray = np.concatenate(self._audio)
        self._audio.clear()
        self._waiting = 0
        self.samples += len(samples_T)
        self._engine.work.notify()
        return samples_T

    def __iter__(self) -> Iterator[np.ndarray]:
        while (samples_T := self.read()) is not None:
            yield samples_T

    async def __aiter__(self) -> AsyncIterator[np.ndarray]:
        while (samples_T := await self.aread()) is not None:
            yield samples_T

    def cancel(self) -> None:
        """Gives the channel back at once; what was made and not read is dropped."""
        with self._engine.lock:
            if not self._over:
                self.cancelled = True
            self._audio.clear()
            self._waiting = 0
            self.finish()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cancel()

    # ---- the engine's side, under its lock ----

    def wants_samples(self) -> bool:
        """True where a chunk can be made: frames are there and the reader isn't behind."""
        if self._over or self._waiting >= self._engine.max_samples:
            return False
        return self.gate_frames > 0 or self._frames > 0 or (self._ended and not self._fed_last)

    def block_waits(self) -> bool:
        """True where there are frames for a whole block of the conditioner, or the last ones."""
        return not self._fed_last and (self._ended or self._frames >= self._to_a_block())

    def take_frames(self) -> tuple[np.ndarray, bool] | None:
        """Takes the next frames for the conditioner, and whether they are the last; None if none.

        As many as complete a block of the network, where so many are there.
        """
        if self._fed_last or (not self._frames and not self._ended):
            return None
        want, taken = self._to_a_block(), []
        while want and self._mels:
            piece = self._mels.popleft()
            if len(piece) > want:
                self._mels.appendleft(piece[want:])
                piece = piece[:want]
            taken.append(piece)
            want -= len(piece)
            self._frames -= len(piece)
        self._fed_last = self._ended and not self._frames
        self._wake()
        empty = np.empty((0, self._engine.bands), np.float32)
        return np.concatenate(taken) if taken else empty, self._fed_last

    def _to_a_block(self) -> int:
        there = len(self._conditioning.mel_NM) - self._conditioning.history
        return BLOCK_FRAMES + self._conditioning.lookahead - there

    def deliver(self, samples_T: np.ndarray, now_s: float) -> list[Waiting]:
        """Hands a chunk, which may be empty, over to the reader; returns the tasks to `wake`."""
        self.made += len(samples_T)
        if self._over or not len(samples_T):
            return []
        if math.isnan(self.first_audio_s):
            self.first_audio_s = now_s
        self._audio.append(samples_T)
        self._waiting += len(samples_T)
        if not self._has_samples():
            return []
        self._turn.notify_all()
        waiting, self._futures = self._futures, []
        return waiting

    def finished(self) -> bool:
        """True where all that was pushed was taken, and nobody ended the stream."""
        return self._fed_last and not self.gate_frames and not self._over

    def fail(self, error: BaseException) -> None:
        """Ends the stream with the engine's failure."""
        self.failure = error
        self.finish()

    def finish(self) -> None:
        """Ends the stream; what was made can still be read."""
        if not self._over:
            self._over = True
            self._mels.clear()
            self._engine._release(self)
        self._wake()

    # ---- the engine's thread, without the lock ----

    def condition(self, mel_NM: np.ndarray, last: bool) -> None:
        """Runs the conditioner on frames that were taken."""
        for gates_NG in self._conditioning.push(torch.from_numpy(mel_NM), last):
            # cut and copied some times, which torch would take longer for
            self._gates.append(gates_NG.numpy())
            self.gate_frames += len(gates_NG) // self._steps

    def take_gates(self, out_NG: np.ndarray) -> None:
        """Writes the gate input of the next frames to `out_NG` [n, G]."""
        self.gate_frames -= len(out_NG) // self._steps
        place = 0
        while place < len(out_NG):
            gates_NG = self._gates.popleft()
            here = min(len(gates_NG), len(out_NG) - place)
            out_NG[place : place + here] = gates_NG[:here]
            if here < len(gates_NG):
                self._gates.appendleft(gates_NG[here:])
            place += here

    # ---- waking ----

    def _future(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        # without those of tasks that were cancelled
        self._futures = [waiting for waiting in self._futures if not waiting[1].done()]
        self._futures.append((loop, future))
        return future

    def _wake(self) -> None:
        self._turn.notify_all()
        wake(self._futures)
        self._futures = []
