"""Fundamental frequency by YIN (de Cheveigné and Kawahara 2002), with the cheapest path over time.

Letters: `L` lags in samples, `K` candidates of a frame, `S` samples of a frame.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# length of the window whose energy is compared with its shifted copy
WINDOW_SECONDS = 0.025
# K, local minima of a frame that the path may pass through
CANDIDATES = 5
# aperiodicity above which a frame costs less as unvoiced
UNVOICED_COST = 0.5
# of the energy of a window and its shifted copy, what their difference may have in a voiced frame
LARGEST_DIFFERENCE = 0.5
# of the energy of a frame, what both must hold; in the shadow of a click everything is alike
SMALLEST_ENERGY = 0.2
# costs of an octave: of a longer lag, of a step between two frames; and of a change of voicing
LAG_COST, STEP_COST, SWITCH_COST = 0.02, 0.3, 0.2
# a voiced frame is at most this much weaker than the loud ones of the clip, and above -80 dBFS
QUIETEST_SHARE, QUIETEST_RMS = 0.01, 1e-4
# above every cost that a path of voiced frames can have
FORBIDDEN = 9.0
# frames worked on at once, which bounds the memory
BLOCK_FRAMES = 1024


def pitch(
    samples_T: np.ndarray,
    rate_hz: int,
    hop_samples: int,
    low_hz: float = 60.0,
    high_hz: float = 500.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the fundamental in Hz, float64 [N], 0 where unvoiced, and which frames are voiced.

    Frame j is centred on sample j * hop + hop / 2, as a mel frame is; N = ceil(T / hop), at least
    1. Raises ValueError for samples that aren't one finite row, or a range of pitch that the rate
    can't hold.
    """
    samples_T = np.asarray(samples_T, dtype=np.float64)
    if samples_T.ndim != 1 or not np.isfinite(samples_T).all():
        raise ValueError(f"expected finite samples [T], got shape {list(samples_T.shape)} or NaN")
    if not (0 < low_hz < high_hz < rate_hz / 4 and hop_samples > 0):
        raise ValueError(
            f"expected 0 < low_hz < high_hz < rate_hz / 4 and a positive hop, "
            f"got {low_hz}, {high_hz}, {rate_hz}, {hop_samples}"
        )
    longest = int(np.ceil(rate_hz / low_hz)) + 2
    window = max(longest, int(WINDOW_SECONDS * rate_hz))
    # samples start .. start + window + lag count; they are centred at a lag in the middle
    start = (hop_samples - window - int(rate_hz / np.sqrt(low_hz * high_hz))) // 2
    frames_NS = _frames(samples_T, hop_samples, start, window + longest)
    blocks = [
        _candidates(frames_NS[n : n + BLOCK_FRAMES], window, int(rate_hz / high_hz))
        for n in range(0, len(frames_NS), BLOCK_FRAMES)
    ]
    cost_NK, lag_NK, rms_N = (np.concatenate(part) for part in zip(*blocks, strict=True))
    quiet_N = rms_N < max(QUIETEST_RMS, QUIETEST_SHARE * float(np.percentile(rms_N, 95)))
    cost_NK[quiet_N] = FORBIDDEN
    state_N = _cheapest_path(cost_NK, lag_NK)
    voiced_N = state_N < CANDIDATES
    lag_N = lag_NK[np.arange(len(state_N)), np.minimum(state_N, CANDIDATES - 1)]
    return np.where(voiced_N, rate_hz / lag_N, 0.0), voiced_N


def _frames(samples_T: np.ndarray, hop_samples: int, start: int, size: int) -> np.ndarray:
    """View frames [N, S] of `size` samples, frame j from sample j * hop + start; zeros outside."""
    T = len(samples_T)
    N = max(1, -(-T // hop_samples))
    padded = np.zeros((N - 1) * hop_samples + size)
    first = max(0, start)
    part_T = samples_T[first : start + len(padded)]
    padded[first - start : first - start + len(part_T)] = part_T
    return sliding_window_view(padded, size)[::hop_samples]


def _candidates(
    frames_NS: np.ndarray, window: int, shortest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the cheapest lags: cost [N, K], lag in samples [N, K], root mean square level [N]."""
    S = frames_NS.shape[1]
    L = S - window
    frames_NS = frames_NS - frames_NS.mean(axis=1, keepdims=True)
    energy_NS = np.cumsum(np.pad(frames_NS**2, ((0, 0), (1, 0))), axis=1)
    rms_N = np.sqrt(energy_NS[:, -1] / S)
    # equation 6: d(lag) = r_t(0) + r_{t+lag}(0) - 2 r_t(lag), r by Fourier transform
    size = 1 << (S - 1).bit_length()
    spectrum = np.fft.rfft(frames_NS, size) * np.fft.rfft(frames_NS[:, :window], size).conj()
    correlation_NL = np.fft.irfft(spectrum, size)[:, :L]
    energy_NL = energy_NS[:, window : window + L] - energy_NS[:, :L]
    difference_NL = np.maximum(energy_NL[:, :1] + energy_NL - 2 * correlation_NL, 0.0)
    # equation 8: divided by its mean over all shorter lags
    d_NL = np.ones_like(difference_NL)
    sums_NL = np.cumsum(difference_NL[:, 1:], axis=1)
    d_NL[:, 1:] = difference_NL[:, 1:] * np.arange(1, L) / np.maximum(sums_NL, 1e-12)
    # step 5: local minima, each moved to the bottom of the parabola through three lags
    left, middle, right = d_NL[:, :-2], d_NL[:, 1:-1], d_NL[:, 2:]
    curve = left - 2 * middle + right
    lowest = (middle <= left) & (middle < right)
    shift = np.where(lowest, 0.5 * (left - right) / np.where(lowest, curve, 1.0), 0.0)
    bottom = np.maximum(middle - 0.25 * (left - right) * shift, 0.0)
    # every multiple of the period fits as well, so the shorter one has to win
    cost = bottom + LAG_COST * np.log2(np.arange(1, L - 1) / shortest)
    both_NL = energy_NL[:, :1] + energy_NL
    alike = (difference_NL <= LARGEST_DIFFERENCE * both_NL) & (
        both_NL >= SMALLEST_ENERGY * energy_NS[:, -1:]
    )
    cost[~(lowest & alike[:, 1:-1])] = FORBIDDEN
    cost[:, : shortest - 1] = FORBIDDEN
    best_NK = np.argpartition(cost, CANDIDATES, axis=1)[:, :CANDIDATES]
    lag_NK = best_NK + 1 + np.take_along_axis(shift, best_NK, axis=1)
    return np.take_along_axis(cost, best_NK, axis=1), lag_NK, rms_N


def _cheapest_path(cost_NK: np.ndarray, lag_NK: np.ndarray) -> np.ndarray:
    """Choose a candidate per frame, or K for unvoiced, by dynamic programming; int [N]."""
    N, K = cost_NK.shape
    octave_NK = np.log2(lag_NK)
    cost = np.pad(cost_NK, ((0, 0), (0, 1)), constant_values=UNVOICED_COST)
    # from the state of the middle axis to that of the last
    step = np.full((N, K + 1, K + 1), SWITCH_COST)
    step[1:, :K, :K] = STEP_COST * np.abs(octave_NK[1:, None, :] - octave_NK[:-1, :, None])
    step[:, K, K] = 0.0
    came_from = np.zeros((N, K + 1), dtype=np.int64)
    total = cost[0]
    for n in range(1, N):
        paths = total[:, None] + step[n]
        came_from[n] = paths.argmin(axis=0)
        total = paths.min(axis=0) + cost[n]
    state_N = np.empty(N, dtype=np.int64)
    state_N[-1] = total.argmin()
    for n in range(N - 1, 0, -1):
        state_N[n - 1] = came_from[n, state_N[n]]
    return state_N
