"""Microphone to speech as it's heard: mel by frame, channel by channel, with its deadlines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from wavernn.channel import Channel
from wavernn.checkpoint import Checkpoint
from wavernn.config import MelConfig
from wavernn.deadlines import Deadlines, Delay
from wavernn.engine import Engine
from wavernn.mel import LogMel, StreamingLogMel

# microphones aren't in step
SPREAD_S = 0.01


class Analysis:
    """Turns microphone samples into the mel frames of `LogMel`, bit for bit, as they come."""

    def __init__(self, config: MelConfig) -> None:
        self._stream = StreamingLogMel(_log_mel(config))

    def push(self, samples_T: np.ndarray) -> np.ndarray:
        """Takes float samples [T], limited to [-1, 1]; returns the frames [n, M] now known.

        Raises MelError for samples that aren't finite.
        """
        return self._stream.push(np.clip(samples_T, -1.0, 1.0)).numpy()

    def flush(self) -> np.ndarray:
        """Ends the recording: returns its last frames [n, M] and starts anew."""
        return self._stream.flush().numpy()


@lru_cache(maxsize=16)
def _log_mel(config: MelConfig) -> LogMel:
    return LogMel(config)


class Microphone(Protocol):
    """Where samples come from, and where they go to."""

    frame_samples: int
    # what each channel said, in pieces
    said: list[list[np.ndarray]]

    def frames(self, number: int) -> AsyncIterator[tuple[np.ndarray, float]]:
        """Frames of samples [T] of channel `number`, each with the time of its arrival."""
        ...

    def play(self, number: int, samples_T: np.ndarray) -> None:
        """Takes what channel `number` said."""
        ...

    def report(self) -> dict[str, Any]:
        """What else there is to say about it."""
        ...


class FileMicrophone:
    """A recording as if it was spoken now, on channels that begin at times spread over 10 ms."""

    def __init__(
        self, samples_T: np.ndarray, rate_hz: int, frame_samples: int, channels: int
    ) -> None:
        self.samples_T, self.rate_hz, self.frame_samples = samples_T, rate_hz, frame_samples
        self.said: list[list[np.ndarray]] = [[] for _ in range(channels)]
        # a moment for opening the channels
        self._start_s = time.perf_counter() + 0.01

    async def frames(self, number: int) -> AsyncIterator[tuple[np.ndarray, float]]:
        """Gives each frame when its last sample would have been spoken."""
        start_s = self._start_s + SPREAD_S * number / len(self.said)
        for begin in range(0, len(self.samples_T), self.frame_samples):
            frame_T = self.samples_T[begin : begin + self.frame_samples]
            due_s = start_s + (begin + len(frame_T)) / self.rate_hz
            await asyncio.sleep(max(due_s - time.perf_counter(), 0.0))
            yield frame_T, due_s

    def play(self, number: int, samples_T: np.ndarray) -> None:
        """Keeps what was said."""
        self.said[number].append(samples_T)

    def report(self) -> dict[str, Any]:
        """Says nothing."""
        return {}


async def speak_live(
    engine: Engine,
    microphone: Microphone,
    number: int,
    seed: int,
    temperature: float,
) -> Deadlines:
    """Says again what one channel of a microphone hears, until it ends."""
    config = engine.voice.config
    deadlines = Deadlines(Delay.of(config))
    with engine.open(seed, temperature) as channel:
        listening = asyncio.create_task(
            listen(channel, Analysis(config.mel), microphone.frames(number), deadlines)
        )
        try:
            async for samples_T in channel:
                deadlines.said(len(samples_T), time.perf_counter())
                microphone.play(number, samples_T)
            await listening
        finally:
            listening.cancel()
    return deadlines


async def listen(
    channel: Channel,
    analysis: Analysis,
    frames: AsyncIterator[tuple[np.ndarray, float]],
    deadlines: Deadlines,
) -> None:
    """Gives a channel the mel of what a microphone hears, and its end."""
    try:
        async for samples_T, arrived_s in frames:
            deadlines.heard(len(samples_T), arrived_s)
            if len(mel_NM := analysis.push(samples_T)):
                await channel.apush(mel_NM)
        deadlines.ended(time.perf_counter())
        if len(mel_NM := analysis.flush()):
            await channel.apush(mel_NM)
    finally:
        channel.end()


def run(
    voice: Checkpoint,
    microphone: Callable[[], Microphone],
    channels: int,
    seed: int = 0,
    temperature: float = 1.0,
    backend: str = "auto",
    format: str | None = None,
    threads: int = 1,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Speaks what a microphone hears on so many channels; what the first one said, and a report.

    Channel i has the seed `seed + i`. `microphone` is called within the event loop. Raises
    BackendUnavailable.
    """

    async def all_channels(engine: Engine) -> tuple[Microphone, list[Deadlines]]:
        source = microphone()
        streams = [
            speak_live(engine, source, i, (seed + i) % (1 << 64), temperature)
            for i in range(channels)
        ]
        return source, await asyncio.gather(*streams)

    with Engine(voice, backend, format, threads, channels) as engine:
        _warm_up(engine)
        source, found = asyncio.run(all_channels(engine))
        stats = engine.stats()
    delay = Delay.of(voice.config)
    whole = Deadlines(delay)
    for deadlines in found:
        whole.merge(deadlines)
    rows = [deadlines.report()["process_ms"] for deadlines in found]
    said_T = np.concatenate(source.said[0] or [np.zeros(0, np.float32)])
    return said_T, {
        "channels": channels,
        "rate_hz": delay.rate_hz,
        "seconds": found[0].heard_samples / delay.rate_hz,
        "delay": delay.table(source.frame_samples),
        **whole.report(),
        "worst_channel_p99_ms": max((row["p99"] for row in rows if row["p99"]), default=None),
        "loop_s": stats["loop_s"],
        "conditioner_s": stats["other_s"],
        **source.report(),
    }


def _warm_up(engine: Engine) -> None:
    """Speaks a few frames, so that what happens once only doesn't count."""
    mel = engine.voice.config.mel
    frames = Analysis(mel)
    frames.push(np.zeros(4 * mel.fft_samples, np.float32))
    with engine.open() as channel:
        channel.push(frames.flush())
        channel.end()
        for _ in channel:
            pass
