"""How fast a file with a mel becomes a WAV file, and what takes the time."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavernn import synthesis
from wavernn.audio import write_audio
from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import Conditioning
from wavernn.kernels.bench import bench, machine
from wavernn.kernels.bench_cpu import one_thread
from wavernn.kernels.example import example_mel
from wavernn.melfile import write_mel
from wavernn.vocoder import Vocoder


class TimedConditioning(Conditioning):
    """A conditioner that adds up the seconds it takes."""

    spent_s = 0.0

    def push(self, mel_NM: torch.Tensor, last: bool = False) -> Iterator[torch.Tensor]:
        """Does what `Conditioning.push` does."""
        blocks = super().push(mel_NM, last)
        while True:
            started = time.perf_counter()
            rows = next(blocks, None)
            self.spent_s += time.perf_counter() - started
            if rows is None:
                return
            yield rows


def speak_file(vocoder: Vocoder, source: Path, out: Path) -> dict[str, float]:
    """Does what `wavernn synth` does with an open voice; seconds of each part and of the whole."""
    vocoder.conditioning = conditioning = TimedConditioning(vocoder.voice)
    cpu_s, times = time.process_time(), [time.perf_counter()]
    mel_NM = synthesis.input_mel(source, vocoder.voice)
    times.append(time.perf_counter())
    samples_T = np.concatenate(list(vocoder.stream([mel_NM])))
    times.append(time.perf_counter())
    write_audio(out, samples_T, vocoder.rate_hz)
    times.append(time.perf_counter())
    read_s, stream_s, write_s = np.diff(times).tolist()
    conditioner_s = conditioning.spent_s
    return {
        "read_s": read_s,
        "conditioner_s": conditioner_s,
        "loop_s": stream_s - conditioner_s,
        "write_s": write_s,
        "total_s": times[-1] - times[0],
        "cpu_s": time.process_time() - cpu_s,
    }


def bench_file(
    voice: Checkpoint,
    backend: str = "auto",
    format: str | None = None,
    threads: int = 1,
    seconds: float = 60.0,
) -> dict[str, Any]:
    """Speaks a mel of so many seconds from file to file, with torch on one thread.

    `realtime_factor` is of the whole by the clock, `loop_realtime_factor` that of `wavernn bench`
    for the loop alone; `shares` are parts of the whole. Where `cpu_s` is well below `total_s`, the
    machine was busy with other things.
    """
    config = voice.config.mel
    frames = max(math.ceil(seconds * config.rate_hz / config.hop_samples), 1)
    made_s = frames * config.hop_samples / config.rate_hz
    with tempfile.TemporaryDirectory() as folder, one_thread():
        source, out = Path(folder) / "mel.safetensors", Path(folder) / "speech.wav"
        write_mel(source, example_mel(voice, frames), config)
        started = time.perf_counter()
        vocoder = Vocoder(voice, backend, format, threads)
        open_s = time.perf_counter() - started
        parts = speak_file(vocoder, source, out)
        row = bench(voice, backend, 1, format=format, threads=threads)
    total_s, cpu_s = parts.pop("total_s"), parts.pop("cpu_s")
    return machine() | {
        "bench": "end to end",
        **{key: row[key] for key in ("backend", "isa", "format", "recipe", "threads")},
        "seconds": made_s,
        "open_s": open_s,
        "total_s": total_s,
        "cpu_s": cpu_s,
        "realtime_factor": made_s / total_s,
        "loop_realtime_factor": row["realtime_factor"],
        "parts": parts,
        "shares": {name.removesuffix("_s"): spent / total_s for name, spent in parts.items()},
    }
