"""Speed of the native engine: windows of about 2 ms, beside what the machine could do.

Whatever else runs on a machine makes some windows slower and none faster, so the rate is that of
the best window; the 10th percentile beside it says how steady it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import Conditioning
from wavernn.kernels import roofs
from wavernn.kernels.cpu import LANES, Synthesizer
from wavernn.kernels.native import PARTS
from wavernn.mel import LogMel

WINDOW_S = 2e-3
WINDOWS = 150
# instruction sets that multiply and add bytes in one instruction
BYTE_PRODUCTS = ("avx512vnni", "neon")
# what the conditioner is timed on, and gate input comes from
FRAMES = 32


def window_samples(sample_s: float, hop: int) -> int:
    """Samples of a window of about WINDOW_S: whole conditioning steps, or an even part of one."""
    steps = round(WINDOW_S / (sample_s * hop))
    if steps:
        return hop * steps
    return max(d for d in range(1, hop + 1) if hop % d == 0 and (d == 1 or d * sample_s < WINDOW_S))


def gate_rows(voice: Checkpoint, streams: int, rows: int) -> torch.Tensor:
    """Gate input [B, rows, G] of a mel of noise, each stream's in memory of its own."""
    model = voice.model()
    generator = torch.Generator().manual_seed(0)
    noise_NM = torch.randn(FRAMES, voice.config.mel.bands, generator=generator)
    mel_NM = model.conditioner.mean_M + model.conditioner.deviation_M * noise_NM
    gates_NG = torch.cat(list(Conditioning(voice).push(mel_NM, last=True)))
    gates_NG = gates_NG[torch.arange(rows) % len(gates_NG)]
    return gates_NG.expand(streams, -1, -1).contiguous()


class Windows:
    """Times calls of `speak` on the first `streams` streams of any backend's synthesizer."""

    def __init__(self, voice: Checkpoint, synthesizer: kernels.Synthesizer, streams: int) -> None:
        self.voice, self.synthesizer = voice, synthesizer
        self.hop = voice.config.model.conditioning_hop_samples
        self.streams, self.B = streams, len(synthesizer.state()["sample"])
        self.active_B = None if streams == self.B else np.arange(self.B) < streams
        self.seed_B = np.arange(self.B, dtype=np.uint64)

    def times(self, samples: int, count: int) -> np.ndarray:
        """Seconds of each of `count` windows of `samples` samples, after two that don't count."""
        # a window may begin within a row
        rows = gate_rows(self.voice, self.B, samples // self.hop + 2)
        self.synthesizer.reset()
        spent_W = np.empty(count + 2)
        for place in range(count + 2):
            started = time.perf_counter()
            self.synthesizer.speak(rows, samples, self.seed_B, self.active_B)
            spent_W[place] = time.perf_counter() - started
        return spent_W[2:]

    def samples(self) -> int:
        """The samples of a window of about WINDOW_S."""
        sample_s = self.times(1, 5).min()
        if self.hop * sample_s < 5 * WINDOW_S:
            # without what a call costs
            sample_s = self.times(self.hop, 5).min() / self.hop
        return window_samples(sample_s, self.hop)

    def parts(self, samples: int, count: int) -> dict[str, float]:
        """Microseconds a step spends in each of `native.PARTS`, in the best of `count` windows.

        For the native engine, whose loop is then cut where its parts meet: their sum is the time
        of that loop's step, not of the uncut one's.
        """
        assert isinstance(self.synthesizer, Synthesizer)
        rows = gate_rows(self.voice, self.B, samples // self.hop + 2)
        best_s, ticks = float("inf"), np.ones(len(PARTS))
        self.synthesizer.reset()
        for _ in range(count):
            self.synthesizer.count_ticks()
            started = time.perf_counter()
            self.synthesizer.speak(rows, samples, self.seed_B, self.active_B)
            spent_s = time.perf_counter() - started
            if spent_s < best_s and self.synthesizer.ticks is not None:
                best_s, ticks = spent_s, self.synthesizer.ticks.astype(np.float64)
        self.synthesizer.ticks = None
        step_us = 1e6 * best_s / samples * ticks / ticks.sum()
        return {f"{part}_us": float(us) for part, us in zip(PARTS, step_us, strict=True)}


def work_of(synthesizer: Synthesizer, hidden: int) -> roofs.Work:
    """What a step of a synthesizer's loop reads and multiplies."""
    arrays, int8 = synthesizer._arrays, synthesizer.format == "int8"
    index = sum(array.nbytes for name, array in arrays.items() if name.endswith(".columns"))
    blocks = [array for name, array in arrays.items() if name.endswith(".blocks")]
    # an int16 weight takes the room of two where bytes have a dot product of their own; elsewhere
    # bytes are widened, and it takes no more than they
    wide = int8 and synthesizer.isa in BYTE_PRODUCTS
    multiplies = sum(array.nbytes if wide else array.size for array in blocks)
    # rows of c_{t-1} and f_{t-1}, 3H each, and of c_t, 3H/2
    row = (2 if int8 else 4) * 15 * hidden // 2
    return roofs.Work(synthesizer.weight_bytes, index, row, multiplies)


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch use one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
@torch.no_grad()
def front_us(voice: Checkpoint, repeats: int = 5) -> dict[str, float]:
    """Microseconds per sample of what runs before the loop, on one thread: conditioner, mel."""
    config = voice.config.mel
    conditioning, log_mel = Conditioning(voice), LogMel(config)
    mel_NM = conditioning.model.conditioner.mean_M.expand(FRAMES, -1)
    audio_1T = torch.zeros(1, FRAMES * config.hop_samples)
    spent_s = []
    for _ in range(repeats):
        conditioning.reset()
        started = time.perf_counter()
        for _ in conditioning.push(mel_NM, last=True):
            pass
        middle = time.perf_counter()
        log_mel(audio_1T)
        spent_s.append((middle - started, time.perf_counter() - middle))
    conditioner_us, mel_us = 1e6 * np.min(spent_s, axis=0) / audio_1T.shape[1]
    return {"conditioner_us": float(conditioner_us), "mel_us": float(mel_us)}


def measure(
    voice: Checkpoint,
    synthesizer: Synthesizer,
    streams: int,
    windows: int = WINDOWS,
    front: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Times the first `streams` streams of a synthesizer: keys of `wavernn bench --json`.

    `samples_per_s` and `realtime_factor` are those of the best window, `p10`, `p50_ms` and
    `p99_ms` percentiles of a window's time in ms, the first the time that a tenth stays below;
    parts are microseconds a step, `conditioner_us` and `mel_us` a sample of one stream.
    """
    config, threads = voice.config, synthesizer.threads
    rate_hz = config.mel.rate_hz
    timed = Windows(voice, synthesizer, streams)
    samples = timed.samples()
    spent_W = timed.times(samples, windows)
    p10_ms, p50_ms, p99_ms = (1e3 * np.percentile(spent_W, [10, 50, 99])).tolist()
    samples_per_s = streams * samples / float(spent_W.min())
    split = synthesizer.split_rows and streams < threads
    work = work_of(synthesizer, config.model.hidden)
    limits = roofs.measure(synthesizer.isa)
    most, bound = roofs.roof(limits, work, synthesizer.format, streams, threads, LANES, split)
    parts = {"step_us": 1e6 * streams / samples_per_s}
    # threads would book into the same ticks at once
    if threads == 1:
        parts |= timed.parts(samples, max(windows // 5, 3))
    return {
        "backend": "cpu",
        "kernel": "rows over threads" if split else "streams over threads",
        "isa": synthesizer.isa,
        "format": synthesizer.format,
        "recipe": config.name,
        "nonzeros": sum(int(torch.count_nonzero(w)) for w in voice.model().matrices().values()),
        "streams": streams,
        "threads": threads,
        "samples_per_s": samples_per_s,
        "realtime_factor": samples_per_s / rate_hz,
        "p10": p10_ms,
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "chunk_ms": 1e3 * samples / rate_hz,
        "roof": most,
        "roof_share": samples_per_s / most,
        "bound": bound,
        "parts": parts | (front_us(voice) if front is None else front),
        "bytes": work.bytes(1),
    }
