"""Many streams of one voice at once: channels that come and go, lanes that are dealt anew.

A channel is a stream's state and lives as long as the stream; a lane is a place in a launch of the
sample loop. One thread deals the lanes once a launch, of a few frames, to the channels that have
frames and whose readers aren't behind, the most urgent first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from wavernn.channel import Channel
from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import BLOCK_FRAMES, Conditioning
from wavernn.cost import channel_bytes
from wavernn.errors import EngineBusy
from wavernn.lanes import delay_samples, open_lanes, usual_lanes
from wavernn.vocoder import check_draws
from wavernn.waking import Waiting, wake

# Frames of a launch: one for a stream that begins, two when all are under way, four where all are
# this far ahead of who listens. Longer launches cost less, but a new stream waits for their end.
SHORT_FRAMES, MIDDLE_FRAMES, LONG_FRAMES = 1, 2, 4
CALM_S = 0.1


@dataclass
class Totals:
    """What an engine has done since it was opened."""

    streams: int = 0
    refused: int = 0
    cancelled: int = 0
    launches: int = 0
    samples: int = 0
    # seconds in the sample loop, and of its thread's work besides
    loop_s: float = 0.0
    other_s: float = 0.0


class Engine:
    """Runs up to `channels` streams of a voice, up to `lanes` of them in a launch.

    `ahead_s` bounds what is made before it's read, `input_s` the mel frames that wait, both a
    channel. Raises BackendUnavailable.
    """

    def __init__(
        self,
        voice: Checkpoint,
        backend: str = "auto",
        format: str | None = None,
        threads: int = 1,
        channels: int = 16,
        lanes: int | None = None,
        ahead_s: float = 1.0,
        input_s: float = 30.0,
    ) -> None:
        if min(channels, lanes or 1) < 1:
            raise ValueError(f"expected at least 1 channel and lane, got {channels} and {lanes}")
        mel = voice.config.mel
        self.voice = voice
        self.rate_hz, self.hop_samples, self.bands = mel.rate_hz, mel.hop_samples, mel.bands
        self.channels = channels
        self.lanes = min(channels, lanes or usual_lanes(voice, threads))
        self.delay_samples = delay_samples(voice)
        self.max_samples = max(round(ahead_s * mel.rate_hz), mel.hop_samples)
        self.max_frames = max(round(input_s * mel.rate_hz / mel.hop_samples), BLOCK_FRAMES)
        lengths = SHORT_FRAMES, MIDDLE_FRAMES, LONG_FRAMES
        self._speakers = open_lanes(voice, backend, format, threads, channels, lengths)
        self._model = voice.model()
        self._feeder = ThreadPoolExecutor(1, "wavernn-feeder") if threads > 1 else None
        self.totals = Totals()
        self.failure: BaseException | None = None
        self.lock = threading.Lock()
        # the engine's thread waits for frames, room or the end; others for channels to be over
        self.work = threading.Condition(self.lock)
        self._idle = threading.Condition(self.lock)
        self._free = list(range(channels))[::-1]
        self._open: dict[int, Channel] = {}
        # in the present launch; and over, but perhaps still in it
        self._running: list[Channel] = []
        self._over: list[Channel] = []
        self._draining = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="wavernn-engine", daemon=True)
        self._thread.start()

    def open(self, seed: int = 0, temperature: float = 1.0) -> Channel:
        """Opens a stream; never waits.

        Raises EngineBusy where all channels are taken or the engine is closing, ValueError for a
        seed outside 0..2^64-1 or a temperature that isn't positive and finite.
        """
        check_draws(seed, temperature)
        conditioning = Conditioning(self.voice, self._model)
        with self.lock:
            if self.failure is not None:
                raise RuntimeError("the engine has failed") from self.failure
            if self._draining or self._stopped:
                raise EngineBusy("the engine is closing and takes no more streams")
            if not self._free:
                self.totals.refused += 1
                raise EngineBusy(f"all {self.channels} channels are taken; try again in a moment")
            row = self._free.pop()
            channel = Channel(self, row, seed, temperature, conditioning)
            self._open[row] = channel
            self.totals.streams += 1
        return channel

    def close(self, drain: bool = False, timeout: float | None = None) -> None:
        """Ends the engine; with `drain`, open streams may come to their end first.

        What isn't over after `timeout` seconds is cancelled.
        """
        with self.lock:
            self._draining = True
            if drain:
                self._idle.wait_for(lambda: not self._open, timeout)
            left = list(self._open.values())
        for c in left:
            c.cancel()
        with self.lock:
            self._stopped = True
            self.work.notify()
        self._thread.join()
        if self._feeder:
            self._feeder.shutdown()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def stats(self) -> dict[str, float]:
        """What is open and running now, and `Totals`."""
        with self.lock:
            return {
                "channels": self.channels,
                "channels_open": len(self._open),
                "draining": self._draining,
                "lanes": self.lanes,
                "lanes_busy": len(self._running),
                "channels_ready": sum(c.wants_samples() for c in self._open.values()),
                **vars(self.totals),
            }

    def buffer_bytes(self) -> int:
        """The most bytes that queues and gate input hold, besides what the backend does."""
        launch = LONG_FRAMES * self.hop_samples
        # what is late comes at once at the end
        queues = 4 * (self.max_samples + launch + self.delay_samples)
        queues += 4 * self.bands * (self.max_frames + BLOCK_FRAMES)
        each = queues + 4 * launch + channel_bytes(self.voice.config)
        return self.channels * each + self._speakers.buffer_bytes()

    # ---- the engine's thread ----

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            with self.lock:
                self.failure, self._running = error, []
                for channel in list(self._open.values()):
                    channel.fail(error)
            raise

    def _turn(self) -> bool:
        """Makes one launch, or waits for something to do; False when the engine is closed."""
        with self.lock:
            self._running = []
            self._give_back()
            ready = []
            for channel in self._open.values():
                if channel.wants_samples():
                    ready.append(channel)
                else:
                    channel.idle = True
            if not ready and not self._stopped:
                self.work.wait()
                return True
            if self._stopped:
                return False
            started_s = time.perf_counter()
            for channel in ready:
                # the time in which a stream had nothing to do isn't made up for
                if channel.idle:
                    channel.idle = False
                    channel.due_s = max(channel.due_s, started_s)
            ready.sort(key=lambda channel: channel.due_s)
            self._running = ready[: self.lanes]
            fed = [(c, c.take_frames()) for c in self._running if not c.gate_frames]
        _feed(fed)
        speaking = [channel for channel in self._running if channel.gate_frames]
        loop_s = self._launch(speaking, started_s) if speaking else 0.0
        loop_s += self._end([channel for channel in self._running if channel.finished()])
        with self.lock:
            self.totals.loop_s += loop_s
            self.totals.other_s += time.perf_counter() - started_s - loop_s
        return True

    def _launch(self, speaking: list[Channel], now_s: float) -> float:
        """Speaks the next frames of some channels; returns the seconds in the sample loop."""
        frames = self._length(speaking, now_s)
        self._speakers.take(speaking, frames)
        with self.lock:
            low = [c for c in speaking if c.gate_frames < LONG_FRAMES and c.block_waits()]
            fed = [(c, c.take_frames()) for c in low]
        started_s = time.perf_counter()
        # what the next launches need is made beside this one, where there's a thread for it
        ahead = self._feeder.submit(_feed, fed) if self._feeder and fed else None
        spoken = self._speakers.speak()
        done_s = time.perf_counter()
        if ahead:
            ahead.result()
        else:
            _feed(fed)
        self._deliver(zip(speaking, spoken, strict=True), done_s)
        with self.lock:
            self.totals.launches += 1
        return done_s - started_s

    def _end(self, channels: list[Channel]) -> float:
        """Speaks what channels have left and ends them; returns the seconds in the sample loop."""
        started_s = time.perf_counter()
        spoken = [(channel, self._speakers.end(channel)) for channel in channels]
        done_s = time.perf_counter()
        self._deliver(spoken, done_s)
        with self.lock:
            for channel in channels:
                channel.finish()
        return done_s - started_s

    def _deliver(self, spoken: Iterable[tuple[Channel, np.ndarray]], done_s: float) -> None:
        waiting: list[Waiting] = []
        with self.lock:
            for channel, samples_T in spoken:
                channel.fresh = False
                channel.due_s += len(samples_T) / self.rate_hz
                waiting += channel.deliver(samples_T, done_s)
                self.totals.samples += len(samples_T)
        wake(waiting)

    def _length(self, speaking: list[Channel], now_s: float) -> int:
        """The frames of the next launch."""
        there = min(channel.gate_frames for channel in speaking)
        begun = min(channel.made for channel in speaking) >= LONG_FRAMES * self.hop_samples
        ahead_s = min(channel.due_s for channel in speaking) - now_s
        if there >= LONG_FRAMES and ahead_s > CALM_S:
            return LONG_FRAMES
        return MIDDLE_FRAMES if there >= MIDDLE_FRAMES and begun else SHORT_FRAMES

    # ---- under the lock ----

    def _release(self, channel: Channel) -> None:
        """Takes a channel that is over back, once no launch uses its row."""
        if channel.cancelled:
            self.totals.cancelled += 1
        self._over.append(channel)
        if channel not in self._running:
            self._give_back()
        self.work.notify()

    def _give_back(self) -> None:
        for channel in [c for c in self._over if c not in self._running]:
            self._over.remove(channel)
            del self._open[channel.row]
            self._free.append(channel.row)
        if not self._open:
            self._idle.notify_all()


def _feed(fed: Sequence[tuple[Channel, tuple[np.ndarray, bool] | None]]) -> None:
    """Runs the conditioner of channels on frames that were taken from them."""
    for channel, frames in fed:
        if frames is not None:
            channel.condition(*frames)
