"""How loud a recording is, frame by frame, and where it is silent."""

from __future__ import annotations

import numpy as np

# digital silence counts as this, so that every level is a number
LOWEST_DB = -120.0
# a recording whose loud frames are weaker than this holds nothing but silence
ALL_SILENT_DB = -60.0
# frames this close to the loud ones carry the speech
ACTIVE_RANGE_DB = 25.0


def level_db(samples: np.ndarray) -> float:
    """Root mean square of samples [...] in dB of full scale, at least LOWEST_DB."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if np.size(samples) else 0.0
    return 10.0 * float(np.log10(max(power, 10.0 ** (LOWEST_DB / 10.0))))


def frame_levels_db(samples_T: np.ndarray, frame_samples: int) -> np.ndarray:
    """`level_db` of each frame, float64 [N], N = ceil(T / frame_samples); the last may be short."""
    start_N = np.arange(0, len(samples_T), frame_samples)
    if not len(start_N):
        return np.zeros(0)
    sums_N = np.add.reduceat(np.square(samples_T, dtype=np.float64), start_N)
    power_N = sums_N / np.diff(np.append(start_N, len(samples_T)))
    return np.asarray(10.0 * np.log10(np.maximum(power_N, 10.0 ** (LOWEST_DB / 10.0))))


def silent_frames(level_N: np.ndarray) -> np.ndarray:
    """Find the frames that are silent, and between silent ones, from levels in dB; bool [N].

    Silent is below -50 dBFS, or within 6 dB of the weakest frames of a noisy recording, but at
    least 30 dB below the loud ones; so a steady sound has no silence.
    """
    if not len(level_N):
        return np.zeros(0, dtype=bool)
    quiet, loud = np.percentile(level_N, [5, 95])
    if loud < ALL_SILENT_DB:
        return np.ones(len(level_N), dtype=bool)
    silent_N = level_N < min(max(-50.0, quiet + 6.0), loud - 30.0)
    # the neighbours of speech hold its tails
    padded = np.pad(silent_N, 1, constant_values=True)
    return np.asarray(padded[:-2] & silent_N & padded[2:])


def active_frames(level_N: np.ndarray) -> np.ndarray:
    """Find the frames that carry the speech, from levels in dB; bool [N], none in silence."""
    if not len(level_N):
        return np.zeros(0, dtype=bool)
    loud = np.percentile(level_N, 95)
    return np.asarray((level_N >= loud - ACTIVE_RANGE_DB) & (level_N >= ALL_SILENT_DB))
