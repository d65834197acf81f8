"""How close a made recording is to the one it should be: the numbers of `wavernn eval`.

None stands where a number isn't defined (nothing voiced, no silence, too short) or its package
isn't there; no value is ever NaN.
"""

from __future__ import annotations

import importlib
import math
import warnings
from types import ModuleType

import numpy as np

from wavernn.config import MelConfig
from wavernn.level import frame_levels_db, level_db, silent_frames
from wavernn.train.pitch import pitch
from wavernn.train.spectral import HALF_STEP, log_mel, mcd_db, mel_l1, mr_stft

METRICS = (
    "mel_l1",
    "mr_stft",
    "mcd_db",
    "f0_rmse_hz",
    "vuv_error",
    "pesq",
    "stoi",
    "silence_db",
    "silence_reference_db",
)
# wideband PESQ is defined at this rate only (ITU-T P.862.2)
PESQ_RATE_HZ = 16_000
# a longer recording is scored in equal parts, since PESQ holds a bounded number of utterances
PESQ_SECONDS = 20.0


def compare(reference_T: np.ndarray, test_T: np.ndarray, mel: MelConfig) -> dict[str, float | None]:
    """Score a recording against its reference: a value for every name in METRICS.

    Both are floats in [-1, 1] at mel.rate_hz; the longer one is cut to the length of the shorter.
    mel_l1, mr_stft, mcd_db: see `spectral`; mcd_db leaves out the frames that are silent in the
    reference. f0_rmse_hz, vuv_error: see `pitch_errors`. pesq: MOS-LQO, wideband, 1.0 .. 4.6.
    stoi: 0 .. 1. silence_db and silence_reference_db: level of the recording and of the reference,
    in dBFS, where the reference is silent. Raises ValueError for another rank, or samples that
    aren't finite.
    """
    reference_T, test_T = _samples(reference_T, "reference"), _samples(test_T, "test")
    T = min(len(reference_T), len(test_T))
    if not T:
        return dict.fromkeys(METRICS)
    reference_T, test_T = reference_T[:T], test_T[:T]
    rate_hz, hop = mel.rate_hz, mel.hop_samples
    reference_NM, test_NM = log_mel(reference_T, mel), log_mel(test_T, mel)
    silent_N = silent_frames(frame_levels_db(reference_T, hop))
    silent_T = np.repeat(silent_N, hop)[:T]
    f0_rmse_hz, vuv_error = pitch_errors(reference_T, test_T, rate_hz, hop)
    some = bool(silent_N.any())
    return {
        "mel_l1": mel_l1(reference_NM, test_NM),
        "mr_stft": mr_stft(reference_T, test_T),
        "mcd_db": mcd_db(reference_NM[~silent_N], test_NM[~silent_N]),
        "f0_rmse_hz": f0_rmse_hz,
        "vuv_error": vuv_error,
        "pesq": pesq(reference_T, test_T, rate_hz),
        "stoi": stoi(reference_T, test_T, rate_hz),
        "silence_db": level_db(test_T[silent_T]) if some else None,
        "silence_reference_db": level_db(reference_T[silent_T]) if some else None,
    }


def _samples(samples_T: np.ndarray, name: str) -> np.ndarray:
    samples_T = np.asarray(samples_T, dtype=np.float64)
    if samples_T.ndim != 1 or not np.isfinite(samples_T).all():
        shape = list(samples_T.shape)
        raise ValueError(f"the {name} must be finite samples [T], got shape {shape} or NaN")
    return samples_T


def pitch_errors(
    reference_T: np.ndarray, test_T: np.ndarray, rate_hz: int, hop_samples: int
) -> tuple[float | None, float]:
    """Compare two recordings of equal length by `pitch`: RMSE in Hz, share of voicing errors.

    The first is over the frames that are voiced in both, None if there are none; the second is
    the share of all frames that are voiced in one only.
    """
    reference_N, reference_voiced_N = pitch(reference_T, rate_hz, hop_samples)
    test_N, test_voiced_N = pitch(test_T, rate_hz, hop_samples)
    both_N = reference_voiced_N & test_voiced_N
    difference = (reference_N - test_N)[both_N]
    rmse_hz = float(np.sqrt(np.mean(difference**2))) if both_N.any() else None
    return rmse_hz, float(np.mean(reference_voiced_N != test_voiced_N))


def _package(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def missing_metrics() -> list[str]:
    """Say in a sentence each which scores can't be computed here, and what to install."""
    return [
        f"{name} is left out, since the package {package} isn't installed: "
        "pip install 'wavernn[eval]'"
        for name, package in (("PESQ", "pesq"), ("STOI", "pystoi"))
        if _package(package) is None
    ]


def pesq(reference_T: np.ndarray, test_T: np.ndarray, rate_hz: int) -> float | None:
    """Predict the mean opinion score, wideband (ITU-T P.862.2), after resampling to 16 kHz.

    None without the package, in digital silence, below a quarter of a second, or where no speech
    is found.
    """
    import soxr

    package = _package("pesq")
    if package is None or min(np.abs(reference_T).max(), np.abs(test_T).max()) < HALF_STEP:
        return None
    pair_2T = [
        soxr.resample(samples_T, rate_hz, PESQ_RATE_HZ) for samples_T in (reference_T, test_T)
    ]
    parts = max(1, math.ceil(len(reference_T) / rate_hz / PESQ_SECONDS))
    scores = []
    for part_2T in zip(*(np.array_split(samples, parts) for samples in pair_2T), strict=True):
        # a part that is silent divides by zero
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            score = float(
                package.pesq(PESQ_RATE_HZ, *part_2T, "wb", on_error=package.PesqError.RETURN_VALUES)
            )
        # an error is a negative number
        if score > 0:
            scores.append(score)
    return float(np.mean(scores)) if scores else None


def stoi(reference_T: np.ndarray, test_T: np.ndarray, rate_hz: int) -> float | None:
    """Predict intelligibility, 0 .. 1 (Taal et al. 2011).

    None without the package, in digital silence, or with less than 0.4 s of speech.
    """
    package = _package("pystoi")
    if (
        package is None
        or min(np.abs(reference_T).max(), np.abs(test_T).max()) < HALF_STEP
        or len(reference_T) < 0.4 * rate_hz
    ):
        return None
    with warnings.catch_warnings():
        # it warns and returns 1e-5 when too few frames of speech are left
        warnings.simplefilter("error", RuntimeWarning)
        try:
            score = float(package.stoi(reference_T, test_T, rate_hz))
        except RuntimeWarning:
            return None
    return score if math.isfinite(score) else None
