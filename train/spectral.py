"""Distances between the spectra of two recordings: small when they sound alike.

Beside the package's letters, `F` is the bins of a transform and `D` the cepstral coefficients.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from wavernn.config import MelConfig
from wavernn.mel import LogMel

# transform, hop, window in samples (Yamamoto et al. 2020, table 1)
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
# powers are raised to this before the root and the logarithm
LOWEST_POWER = 1e-8
# half a step of 16 bit: what stays below is digital silence
HALF_STEP = 0.5 / 32768
# D, cepstral coefficients from the first on
COEFFICIENTS = 24


def mr_stft(reference_T: np.ndarray, test_T: np.ndarray) -> float | None:
    """Measure the multi-resolution STFT distance (Yamamoto et al. 2020, equations 3 to 6).

    The mean over three resolutions of spectral convergence, | |X| - |Y| |_F / | |X| |_F, plus the
    mean absolute difference of the natural logarithms; X is the reference. At least 0; None where
    there are no samples, or the reference is digital silence. Recordings have equal lengths.
    """
    if not len(reference_T) or np.abs(reference_T).max() < HALF_STEP:
        return None
    total = 0.0
    for transform, hop, window in RESOLUTIONS:
        x_FN = _magnitude(reference_T, transform, hop, window)
        y_FN = _magnitude(test_T, transform, hop, window)
        convergence = torch.linalg.norm(x_FN - y_FN) / torch.linalg.norm(x_FN)
        total += float(convergence + (x_FN.log() - y_FN.log()).abs().mean())
    return total / len(RESOLUTIONS)


def _magnitude(samples_T: np.ndarray, transform: int, hop: int, window: int) -> Tensor:
    samples = torch.from_numpy(np.asarray(samples_T, dtype=np.float64))
    # reflection at the ends needs more samples than half a transform
    samples = torch.nn.functional.pad(samples, (0, max(0, transform - len(samples))))
    window_S = torch.hann_window(window, dtype=torch.float64)
    spectrum_FN = torch.stft(samples, transform, hop, window, window_S, return_complex=True)
    return torch.clamp(spectrum_FN.abs().square(), min=LOWEST_POWER).sqrt()


def log_mel(samples_T: np.ndarray, config: MelConfig) -> np.ndarray:
    """Compute the log-mel spectrogram of a recording, natural logarithm, float64 [N, M]."""
    with torch.no_grad():
        audio_BT = torch.from_numpy(np.array(samples_T, dtype=np.float32))[None]
        mel_NM = LogMel(config)(audio_BT)[0].double().numpy()
    return np.asarray(mel_NM * (math.log(10.0) if config.log == "log10" else 1.0))


def mel_l1(reference_NM: np.ndarray, test_NM: np.ndarray) -> float:
    """Average the absolute difference of natural-log mels over all frames and bands."""
    return float(np.abs(reference_NM - test_NM).mean())


def mcd_db(reference_NM: np.ndarray, test_NM: np.ndarray) -> float | None:
    """Measure the mel-cepstral distortion of natural-log magnitude mels in dB (Kubichek 1993).

    With log|H| = c_0 + sum c_m cos(m w), the mean over frames of 10 / ln 10 sqrt(2 sum dc_m^2),
    m = 1 .. 24: the root mean square distance, over the mel axis, of the smoothed envelopes
    without their level. Frames are compared in order, without warping. None without frames, or
    with a single band.
    """
    N, M = reference_NM.shape
    D = min(COEFFICIENTS, M - 1)
    if not N or not D:
        return None
    order_D = np.arange(1, D + 1)
    cosine_MD = 2.0 / M * np.cos(np.pi / M * np.outer(np.arange(M) + 0.5, order_D))
    difference_ND = (reference_NM - test_NM) @ cosine_MD
    return float(10.0 / math.log(10.0) * np.sqrt(2.0 * (difference_ND**2).sum(axis=1)).mean())
