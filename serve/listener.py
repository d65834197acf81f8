"""One stream as its listener hears it: blocks of samples, and how well they came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor

import numpy as np

from wavernn.channel import Channel
from wavernn.errors import WaveRNNError
from wavernn.serve.errors import ApiError
from wavernn.serve.metrics import CANCELLED, DONE, ERROR, REFUSED, TIMEOUT, Metrics

# the most that is waited for at a time, so that samples come in no larger pieces than they must
LARGEST_BLOCK_S = 0.2
# The least, after the first blocks of a stream: were it less for listeners who have little left to
# hear, a machine at its limit would be slowed down by sending small packets to all of them.
SMALLEST_BLOCK_S, FIRST_BLOCKS = 0.04, 12


class Listener:
    """A channel with its metrics; iterating gives blocks of samples, float32 [T].

    A block is as large as half of what the listener still has to hear: the first ones come as
    soon as they are made, and later ones cost fewer packets.

    There is no pacing by the clock. The engine serves who is least ahead first, so that a client
    who wants a file takes no one's time, and gives its channel back sooner than if it were held
    to real time; a client who doesn't read is stopped by the socket's buffers and the channel's.
    """

    def __init__(
        self, channel: Channel, rate_hz: int, metrics: Metrics, voice: str, transport: str
    ) -> None:
        self.channel = channel
        self._rate_hz, self._metrics = rate_hz, metrics
        self._labels = voice, transport
        self._audio_s = metrics.audio_s.labels(voice, transport)
        self._opened_s = time.perf_counter()
        # when the first sample was heard, put off by each underrun
        self._started_s: float | None = None
        self._underrun_s = 0.0
        self._blocks = 0
        self._complete = False
        self._feeding: asyncio.Future[None] | None = None

    def feed(self, mel_NM: np.ndarray) -> None:
        """Gives a whole mel [N, M] while samples are read."""
        self._feeding = asyncio.ensure_future(self._push(mel_NM))

    def feed_from(self, pieces: Iterator[np.ndarray], workers: Executor) -> None:
        """Gives mel pieces [n, M] as a worker's thread makes them, while samples are read.

        An exception there ends the iteration with it.
        """
        loop = asyncio.get_running_loop()
        self._feeding = loop.run_in_executor(workers, _push_all, self.channel, pieces)

    async def __aiter__(self) -> AsyncIterator[np.ndarray]:
        """Yields until the end of the stream; raises what feeding raised."""
        while True:
            asked_s = time.perf_counter()
            samples_T = await self.channel.aread(self._at_least(asked_s))
            if samples_T is None:
                break
            self._note(len(samples_T), asked_s)
            yield samples_T
        if self._feeding is not None:
            await self._feeding
        self._complete = not self.channel.cancelled

    def _at_least(self, now_s: float) -> int:
        if self._started_s is None:
            return 1
        lead_s = self.channel.samples / self._rate_hz - (now_s - self._started_s)
        least_s = SMALLEST_BLOCK_S * min(self._blocks / FIRST_BLOCKS, 1)
        return max(1, int(self._rate_hz * min(max(lead_s / 2, least_s), LARGEST_BLOCK_S)))

    def _note(self, samples: int, asked_s: float) -> None:
        now_s = time.perf_counter()
        self._audio_s.inc(samples / self._rate_hz)
        if self._started_s is None:
            self._started_s = now_s
            self._metrics.first_audio_s.labels(*self._labels).observe(now_s - self._opened_s)
            return
        due_s = self._started_s + (self.channel.samples - samples) / self._rate_hz
        if now_s > due_s:
            # a reader who came late himself wasn't kept waiting until then
            self._underrun_s += now_s - max(due_s, asked_s)
            self._started_s += now_s - due_s

    def close(self, error: BaseException | None) -> None:
        """Gives the channel back, and notes how the stream ended."""
        self.channel.cancel()
        if self._feeding is not None:
            self._feeding.cancel()
            self._feeding.add_done_callback(_look_at)
        reason = _reason(error, self._complete)
        self._metrics.streams.labels(*self._labels, reason).inc()
        if self._started_s is not None:
            self._metrics.underrun_s.labels(*self._labels).observe(self._underrun_s)
        if reason == DONE and self.channel.samples:
            spent_s = time.perf_counter() - self._opened_s
            factor = self.channel.samples / self._rate_hz / spent_s
            self._metrics.realtime_factor.labels(*self._labels).observe(factor)

    async def _push(self, mel_NM: np.ndarray) -> None:
        try:
            await self.channel.apush(mel_NM)
            self.channel.end()
        except BaseException:
            # wakes the reader, who then raises it
            self.channel.cancel()
            raise


def _reason(error: BaseException | None, complete: bool) -> str:
    match error:
        case None:
            return DONE if complete else CANCELLED
        case asyncio.CancelledError() | GeneratorExit():
            return CANCELLED
        case TimeoutError():
            return TIMEOUT
        case WaveRNNError():
            return REFUSED
        case ApiError() if error.status < 500:
            return REFUSED
    return ERROR


def _look_at(done: asyncio.Future[None]) -> None:
    """Keeps asyncio from telling of an exception that nobody waits for any more."""
    if not done.cancelled():
        done.exception()


def _push_all(channel: Channel, pieces: Iterator[np.ndarray]) -> None:
    try:
        push_pieces(channel, pieces)
        channel.end()
    except BaseException:
        # wakes the reader, who then raises it
        channel.cancel()
        raise


def push_pieces(channel: Channel, pieces: Iterator[np.ndarray]) -> None:
    """Pushes mel pieces [n, M], for as long as anybody listens; waits, so call it in a thread."""
    try:
        for mel_NM in pieces:
            channel.push(mel_NM)
            if channel.cancelled:
                break
    finally:
        # a generator may hold things that it frees at its end
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
