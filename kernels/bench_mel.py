"""How fast the log-mel is, beside librosa's on the same audio in the same run."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from wavernn.config import MelConfig
from wavernn.mel import POWER_EPSILON, LogMel

# name, recordings in the batch, seconds of each; None is one hop
_CASES: tuple[tuple[str, int, float | None], ...] = (
    ("1 frame", 1, None),
    ("1 s", 1, 1.0),
    ("60 s", 1, 60.0),
    ("16 x 1 s", 16, 1.0),
)


def bench_mel(repeats: int = 20, config: MelConfig | None = None) -> list[dict[str, Any]]:
    """Time `LogMel` on the CPU and librosa in turns; a plain record for each size of input.

    Times are medians over `repeats` in ms; `ratio` is librosa's time by ours. Without librosa its
    columns are None. Raises `ValueError` for less than one repeat.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    config = config or MelConfig()
    log_mel = LogMel(config)
    theirs = _librosa_log_mel(config) if importlib.util.find_spec("librosa") else None
    rows = []
    for case, B, seconds in _CASES:
        T = config.hop_samples if seconds is None else round(seconds * config.rate_hz)
        generator = torch.Generator().manual_seed(0)
        audio_BT = 0.1 * torch.randn(B, T, generator=generator)
        calls: list[Callable[[], object]] = [partial(log_mel, audio_BT)]
        if theirs is not None:
            calls.append(partial(theirs, audio_BT.numpy()))
        with torch.no_grad():
            times_ms = [statistics.median(times) for times in _alternate(calls, repeats)]
        audio_s = B * T / config.rate_hz
        other_ms = times_ms[1] if theirs is not None else None
        rows.append(
            {
                "bench": "mel",
                "case": case,
                "audio_s": audio_s,
                "threads": torch.get_num_threads(),
                "repeats": repeats,
                "p50_ms": times_ms[0],
                "audio_s_per_s": 1e3 * audio_s / times_ms[0],
                "librosa_p50_ms": other_ms,
                "librosa_audio_s_per_s": 1e3 * audio_s / other_ms if other_ms else None,
                "ratio": other_ms / times_ms[0] if other_ms else None,
            }
        )
    return rows


def _alternate(calls: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Time the calls in turns, after one call of each that doesn't count; ms of each."""
    times_ms: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(repeats):
        for times, call in zip(times_ms, calls, strict=True):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
    return times_ms


def _librosa_log_mel(config: MelConfig) -> Callable[[np.ndarray], np.ndarray]:
    """The same spectrogram by librosa [B, M, N], with the filterbank built beforehand as ours."""
    import librosa

    filters = librosa.filters.mel(
        sr=config.rate_hz,
        n_fft=config.fft_samples,
        n_mels=config.bands,
        fmin=config.low_hz,
        fmax=config.high_hz,
        htk=config.scale == "htk",
        norm="slaney" if config.norm == "slaney" else None,
    )
    side = (config.fft_samples - config.hop_samples) // 2
    log = np.log if config.log == "ln" else np.log10

    def compute(audio: np.ndarray) -> np.ndarray:
        spectrum = librosa.stft(
            np.pad(audio, ((0, 0), (side, side)), mode="reflect"),
            n_fft=config.fft_samples,
            hop_length=config.hop_samples,
            win_length=config.window_samples,
            center=False,
        )
        power = spectrum.real**2 + spectrum.imag**2
        mel = filters @ np.sqrt(power + np.float32(POWER_EPSILON))
        return np.asarray(log(np.maximum(mel, config.floor)))

    return compute
