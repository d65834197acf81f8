"""How many streams of a voice this machine speaks in real time, measured with the engine itself."""

from __future__ import annotations

import time

import numpy as np

from wavernn.checkpoint import Checkpoint
from wavernn.engine import Engine
from wavernn.kernels.example import example_mel
from wavernn.lanes import usual_lanes

# of speech that each stream is given, and rounds of which the best counts
SECONDS, ROUNDS = 1.0, 3
# Of what the engine does alone, what streams may take together: HTTP, the interpreter's lock and
# streams that begin at the same moment want the rest; see serve/README.md.
SHARE = 0.6


def measure(
    voice: Checkpoint,
    backend: str = "auto",
    format: str | None = None,
    threads: int = 1,
    lanes: int | None = None,
) -> float:
    """Seconds of speech a second of all lanes together, conditioner and queues included.

    Raises BackendUnavailable.
    """
    lanes = lanes or usual_lanes(voice, threads)
    mel = voice.config.mel
    frames = max(round(SECONDS * mel.rate_hz / mel.hop_samples), 1)
    mel_NM = example_mel(voice, frames)
    made_s = lanes * frames * mel.hop_samples / mel.rate_hz
    with Engine(voice, backend, format, threads, lanes, ahead_s=2 * SECONDS) as engine:
        best_s = min(_round(engine, lanes, mel_NM) for _ in range(ROUNDS))
    return made_s / best_s


def _round(engine: Engine, lanes: int, mel_NM: np.ndarray) -> float:
    channels = [engine.open(seed) for seed in range(lanes)]
    started_s = time.perf_counter()
    for channel in channels:
        channel.push(mel_NM)
        channel.end()
    for channel in channels:
        for _ in channel:
            pass
    return time.perf_counter() - started_s


def channels_for(realtime_factor: float, share: float = SHARE) -> int:
    """How many streams get real time each out of a measured factor; at least 1."""
    return max(int(share * realtime_factor), 1)
