"""What speaks the streams of an engine: lanes of one loop, or utterances one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.subscale import Order

if TYPE_CHECKING:
    from wavernn.channel import Channel

# streams that share one reading of the weights in a thread of the native engine
LANES_PER_THREAD = 16


class Lanes(Protocol):
    """The state of all channels of an engine in one backend, whose thread calls it."""

    def take(self, speaking: Sequence[Channel], frames: int) -> None:
        """Takes the next frames of channels; those that are fresh begin."""

    def speak(self) -> list[np.ndarray]:
        """Speaks what was taken: float32 samples [T] of each channel."""

    def end(self, channel: Channel) -> np.ndarray:
        """What a channel has to say after its last frame: float32 samples [T]."""

    def buffer_bytes(self) -> int:
        """Bytes of gate input that waits for the backend."""


def usual_lanes(voice: Checkpoint, threads: int) -> int:
    """Channels of a launch: utterances of subscale and fused voices take turns.

    An utterance is its own batch; a launch of several would be as long as theirs together, and a
    new stream would wait for it.
    """
    return LANES_PER_THREAD * threads if voice.config.model.plain else 1


def open_lanes(
    voice: Checkpoint,
    backend: str,
    format: str | None,
    threads: int,
    channels: int,
    frames: Sequence[int],
) -> Lanes:
    """Opens a backend for so many channels and launches of these frames.

    Raises BackendUnavailable.
    """
    model = voice.config.model
    if model.plain:
        loop = kernels.load(backend)(voice, channels, format, threads)
        return Streams(loop, voice, channels, frames)
    kind = kernels.load_subscale(backend, model.subscale, model.fused)
    return Utterances([kind(voice, format, threads) for _ in range(channels)], voice)


class Streams:
    """Channels as the streams of one loop."""

    def __init__(
        self,
        synthesizer: kernels.Synthesizer,
        voice: Checkpoint,
        channels: int,
        frames: Sequence[int],
    ) -> None:
        self.synthesizer = synthesizer
        self._hop_samples, self._channels = voice.config.mel.hop_samples, channels
        steps = self._hop_samples // voice.config.model.conditioning_hop_samples
        # the input of launches, by their length
        self._gates = {
            n: torch.zeros(channels, n * steps, voice.config.model.gate_rows) for n in frames
        }
        self._seed_B = np.zeros(channels, np.uint64)
        self._temperature_B = np.ones(channels, np.float32)
        self._taken: tuple[list[int], int] = [], 0

    def take(self, speaking: Sequence[Channel], frames: int) -> None:
        """Takes the next frames of channels; those that are fresh begin."""
        for channel in speaking:
            row = channel.row
            self._seed_B[row], self._temperature_B[row] = channel.seed, channel.temperature
            channel.take_gates(self._gates[frames][row].numpy())
        fresh = [channel.row for channel in speaking if channel.fresh]
        if fresh:
            self.synthesizer.reset(self._active(fresh))
        self._taken = [channel.row for channel in speaking], frames

    def speak(self) -> list[np.ndarray]:
        """Speaks what was taken: float32 samples [T] of each channel."""
        rows, frames = self._taken
        audio_BT = self.synthesizer.speak(
            self._gates[frames],
            frames * self._hop_samples,
            self._seed_B,
            self._active(rows),
            self._temperature_B,
        )
        # a row of its own, so that a reader who is behind keeps no whole launch
        return [np.array(audio_BT[row]) for row in rows]

    def _active(self, rows: Sequence[int]) -> np.ndarray:
        active_B = np.zeros(self._channels, bool)
        active_B[rows] = True
        return active_B

    def end(self, channel: Channel) -> np.ndarray:
        """Nothing: a stream is as far as its frames."""
        return np.empty(0, np.float32)

    def buffer_bytes(self) -> int:
        """Bytes of gate input that waits for the backend."""
        return sum(4 * gates_BNG.numel() for gates_BNG in self._gates.values())


class Utterances:
    """Channels that have an utterance of a subscale or fused voice each."""

    def __init__(
        self, synthesizers: Sequence[kernels.SubscaleSynthesizer], voice: Checkpoint
    ) -> None:
        self.synthesizers = synthesizers
        self._hop_samples, self._gate_rows = (
            voice.config.mel.hop_samples,
            voice.config.model.gate_rows,
        )
        self._steps = self._hop_samples // voice.config.model.conditioning_hop_samples
        self._taken: list[tuple[Channel, torch.Tensor]] = []

    def take(self, speaking: Sequence[Channel], frames: int) -> None:
        """Takes the next frames of channels; those that are fresh begin."""
        self._taken = []
        for channel in speaking:
            if channel.fresh:
                self.synthesizers[channel.row].reset()
            gates_NG = torch.empty(frames * self._steps, self._gate_rows)
            channel.take_gates(gates_NG.numpy())
            self._taken.append((channel, gates_NG))

    def speak(self) -> list[np.ndarray]:
        """Speaks what was taken: float32 samples [*] of each channel that came due."""
        spoken = [self._speak(channel, gates_NG) for channel, gates_NG in self._taken]
        # channels that are over are held no longer
        self._taken = []
        return spoken

    def _speak(self, channel: Channel, gates_NG: torch.Tensor, last: bool = False) -> np.ndarray:
        samples = len(gates_NG) // self._steps * self._hop_samples
        return self.synthesizers[channel.row].speak(
            gates_NG, samples, channel.seed, last, channel.temperature
        )

    def end(self, channel: Channel) -> np.ndarray:
        """What is late when the last frame is there: float32 samples [T]."""
        if channel.fresh:
            # it had no frames, and what is in its place is another's
            return np.empty(0, np.float32)
        return self._speak(channel, torch.empty(0, self._gate_rows), last=True)

    def buffer_bytes(self) -> int:
        """None: what waits is in the backend."""
        return 0


def delay_samples(voice: Checkpoint) -> int:
    """How far a stream is behind its mel frames, besides the conditioner's look-ahead."""
    return Order.of(voice.config.model).lookahead_samples
