"""What may be wrong with a recording that a voice is to repeat, or to learn from."""

from __future__ import annotations

import numpy as np

from wavernn.audio import resample
from wavernn.config import MelConfig
from wavernn.level import active_frames, frame_levels_db, level_db
from wavernn.mel import LogMel
from wavernn.scale import DB, LN10

FRAME_SECONDS = 0.012
# samples at the outermost value, this many in a row, are cut off
CLIPPED_RUN = 3
LARGEST_OFFSET = 0.005
LEAST_ACTIVE_SHARE = 0.2
# without statistics of the voice: what speech usually has
USUAL_DB = (-36.0, -12.0)
FAR_DB = 10.0
# natural speech stays above this at 8 kHz, against its strongest frequency; what resampling or a
# codec removed lies 86 dB and more below it
EMPTY_DB = -70.0
SPECTRUM_SAMPLES = 1024


def doctor_recording(
    samples_T: np.ndarray,
    rate_hz: int,
    config: MelConfig,
    statistics: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[str]:
    """Say in a sentence each what to know about a recording before the voice repeats it.

    Samples are floats in [-1, 1], mono, at their own rate; `statistics` are mean [M] and standard
    deviation [M] of the voice's training mels. An empty list means that nothing is wrong. Raises
    ValueError for another rank, or samples that aren't finite.
    """
    samples_T = np.asarray(samples_T, dtype=np.float64)
    if samples_T.ndim != 1 or not np.isfinite(samples_T).all():
        shape = list(samples_T.shape)
        raise ValueError(f"expected finite samples [T], got shape {shape} or NaN")
    frame = max(1, round(FRAME_SECONDS * rate_hz))
    active_N = active_frames(frame_levels_db(samples_T, frame))
    if not active_N.any():
        return ["The recording is empty." if not len(samples_T) else "The recording is silent."]
    active_T = np.repeat(active_N, frame)[: len(samples_T)]
    sentences = []
    if rate_hz != config.rate_hz:
        sentences.append(
            f"The rate is {rate_hz} Hz, but the voice works at {config.rate_hz} Hz, so the "
            "recording is resampled."
        )
    edge_hz = _edge_hz(samples_T, active_T, rate_hz)
    top_hz = min(config.high_hz, rate_hz / 2)
    if edge_hz < 0.85 * top_hz or rate_hz / 2 < 0.9 * config.high_hz:
        sentences.append(
            f"There is nothing above {min(edge_hz, rate_hz / 2):.0f} Hz, but the voice expects "
            f"sound up to {config.high_hz:.0f} Hz: it was recorded, coded or resampled at a lower "
            "rate, and will sound dull."
        )
    clipped = _clipped_share(samples_T)
    if clipped > 0:
        sentences.append(
            f"{100 * clipped:.2g} % of the samples are cut off at full scale; record it quieter."
        )
    offset = float(np.mean(samples_T))
    if abs(offset) > LARGEST_OFFSET:
        sentences.append(f"The samples have a constant offset of {offset:.3f}; subtract it.")
    share = float(np.mean(active_N))
    if share < LEAST_ACTIVE_SHARE:
        sentences.append(f"Only {100 * share:.0f} % of the recording is speech; cut the silence.")
    speech_db = level_db(samples_T[active_T] - offset)
    if statistics is None:
        low_db, high_db = USUAL_DB
        if not low_db <= speech_db <= high_db:
            sentences.append(
                f"The speech has {speech_db:.0f} dBFS; {low_db:.0f} to {high_db:.0f} is usual."
            )
    else:
        louder_db = _louder_db(samples_T, rate_hz, config, statistics)
        if abs(louder_db) > FAR_DB:
            sentences.append(
                f"The speech ({speech_db:.0f} dBFS) is {abs(louder_db):.0f} dB "
                f"{'louder' if louder_db > 0 else 'quieter'} than what the voice was trained on; "
                "bring it to that level."
            )
    return sentences


def _louder_db(
    samples_T: np.ndarray,
    rate_hz: int,
    config: MelConfig,
    statistics: tuple[np.ndarray, np.ndarray],
) -> float:
    """How much louder the speech is than that of the training data, median of bands."""
    import torch

    if rate_hz != config.rate_hz:
        samples_T = resample(samples_T, rate_hz, config.rate_hz)
    with torch.no_grad():
        audio_BT = torch.from_numpy(samples_T.astype(np.float32))[None]
        mel_NM = LogMel(config)(audio_BT)[0].numpy()
    active_N = active_frames(frame_levels_db(samples_T, config.hop_samples))
    if not active_N.any():
        return 0.0
    mean_M, deviation_M = statistics
    # one deviation above the mean has 16 % of all frames above it, 20 % of those without pauses
    above_M = np.percentile(mel_NM[active_N], 80, axis=0) - (mean_M + deviation_M)
    return float(np.median(above_M)) / (DB if config.log == "ln" else DB / LN10)


def _clipped_share(samples_T: np.ndarray) -> float:
    """Share of the samples that lie in runs at the outermost value, near full scale."""
    peak = float(np.abs(samples_T).max())
    if peak < 0.9:
        return 0.0
    outer_T = np.abs(samples_T) >= peak - 1e-4
    changes = np.flatnonzero(np.diff(np.pad(outer_T, 1).astype(np.int8)))
    lengths = changes[1::2] - changes[::2]
    return float(lengths[lengths >= CLIPPED_RUN].sum()) / len(samples_T)


def _edge_hz(samples_T: np.ndarray, active_T: np.ndarray, rate_hz: int) -> float:
    """Estimate the highest frequency with sound in it, from the mean spectrum of the speech."""
    size = SPECTRUM_SAMPLES
    T = max(len(samples_T), size)
    view_NS = np.lib.stride_tricks.sliding_window_view
    frames_NS = view_NS(np.pad(samples_T, (0, T - len(samples_T))), size)[:: size // 2]
    middle_N = view_NS(np.pad(active_T, (0, T - len(active_T))), size)[:: size // 2].any(axis=1)
    power_F = (np.abs(np.fft.rfft(frames_NS[middle_N] * np.hanning(size))) ** 2).mean(axis=0)
    full = np.flatnonzero(power_F > power_F.max() * 10.0 ** (EMPTY_DB / 10.0))
    # a click at the very edge leaves an empty spectrum, which says nothing
    return float(full[-1] * rate_hz / size) if full.size else rate_hz / 2
