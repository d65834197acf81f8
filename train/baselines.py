"""The vocoders that a voice is to beat: Griffin-Lim from the same mel, WORLD from the recording.

Beside the package's letters, `F` is the bins of a transform.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from wavernn.config import MelConfig
from wavernn.mel import mel_filterbank

NAMES = ("griffin_lim", "world")
# of the search for magnitudes, and of the one for phases
MAGNITUDE_STEPS, PHASE_STEPS = 200, 60
# how far a phase goes beyond its last change (Perraudin et al. 2013, section 3: alpha = 0.99)
MOMENTUM = 0.99
SMALLEST = 1e-10
# of WORLD; its own default
FRAME_MS = 5.0


def griffin_lim(mel_NM: np.ndarray, config: MelConfig, seed: int = 0) -> np.ndarray:
    """Turn a log-mel [N, M] into float32 samples [N * hop] in [-1, 1] without a model.

    Magnitudes are the non-negative ones whose mel is nearest; phases are found by the fast
    Griffin-Lim algorithm (Perraudin et al. 2013, algorithm 2), from random ones of the seed.
    """
    power = 10.0 if config.log == "log10" else float(np.e)
    magnitude_NF = _magnitudes(power ** torch.from_numpy(np.array(mel_NM, np.float64)), config)
    # torch centres frame n on sample n * hop, a mel frame is centred half a hop later; so it's
    # given a frame more at each end, and what lies outside is cut off
    magnitude_FN = pad(magnitude_NF.T[None], (1, 1), mode="replicate")[0]
    hop, N = config.hop_samples, len(mel_NM)
    window_S = torch.hann_window(config.window_samples, dtype=torch.float64)
    sizes = (config.fft_samples, hop, config.window_samples, window_S)

    def samples(spectrum_FN: Tensor) -> Tensor:
        return torch.istft(spectrum_FN, *sizes, length=(N + 1) * hop)

    random = torch.Generator().manual_seed(seed % (1 << 63))
    angle_FN = 2 * torch.pi * torch.rand(magnitude_FN.shape, generator=random, dtype=torch.float64)
    target_FN = torch.polar(magnitude_FN, angle_FN)
    before_FN = torch.zeros_like(target_FN)
    for _ in range(PHASE_STEPS):
        # short clips can't be mirrored at the ends
        possible_FN = torch.stft(
            samples(target_FN), *sizes, pad_mode="constant", return_complex=True
        )
        ahead_FN = possible_FN + MOMENTUM * (possible_FN - before_FN)
        target_FN = magnitude_FN * ahead_FN / ahead_FN.abs().clamp(min=SMALLEST)
        before_FN = possible_FN
    start = hop - hop // 2
    samples_T = samples(target_FN)[start : start + N * hop]
    return np.asarray(samples_T.clamp(-1.0, 1.0).float().numpy())


def _magnitudes(mel_NM: Tensor, config: MelConfig) -> Tensor:
    """Find magnitudes [N, F], at least 0, whose mel is nearest to a linear one.

    Multiplicative steps (Lee and Seung 2001, equation 4) keep them positive.
    """
    filters_MF = torch.from_numpy(mel_filterbank(config))
    product_FF, wanted_NF = filters_MF.T @ filters_MF, mel_NM @ filters_MF
    # bins that no filter sees start, and stay, at 0
    magnitude_NF = wanted_NF / product_FF.sum(0).clamp(min=SMALLEST)
    for _ in range(MAGNITUDE_STEPS):
        magnitude_NF = magnitude_NF * wanted_NF / (magnitude_NF @ product_FF).clamp(min=SMALLEST)
    return magnitude_NF


def world(samples_T: np.ndarray, rate_hz: int) -> np.ndarray:
    """Take a recording apart and put it together by WORLD (Morise et al. 2016); float32 [T].

    Pitch by Harvest, envelope by CheapTrick, aperiodicity by D4C, all at their own defaults, so
    it's told more than a mel holds. Raises ImportError without the package.
    """
    package = world_package()
    if package is None:
        raise ImportError("pyworld isn't installed")
    samples_T = np.ascontiguousarray(samples_T, dtype=np.float64)
    f0_N, time_N = package.harvest(samples_T, rate_hz, frame_period=FRAME_MS)
    envelope_NF = package.cheaptrick(samples_T, f0_N, time_N, rate_hz)
    aperiodicity_NF = package.d4c(samples_T, f0_N, time_N, rate_hz)
    made_T = package.synthesize(f0_N, envelope_NF, aperiodicity_NF, rate_hz, FRAME_MS)
    made_T = np.pad(made_T, (0, max(0, len(samples_T) - len(made_T))))[: len(samples_T)]
    return np.clip(made_T, -1.0, 1.0).astype(np.float32)


def world_package() -> ModuleType | None:
    """The functions of pyworld, or None where it isn't installed."""
    found = importlib.util.find_spec("pyworld")
    if found is None or not found.submodule_search_locations:
        return None
    # its own __init__ wants pkg_resources, which setuptools no longer has; all of WORLD is in the
    # compiled module beside it
    folder = list(found.submodule_search_locations)
    spec = importlib.machinery.PathFinder.find_spec("pyworld", folder)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def missing() -> list[str]:
    """Say in a sentence each which vocoders can't be run here, and what to install."""
    if world_package() is not None:
        return []
    return [
        "WORLD is left out, since the package pyworld isn't installed: pip install 'wavernn[eval]'"
    ]


def speakers(
    config: MelConfig, seed: int
) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """The vocoders that can be run here, by name: from a mel [N, M] and its recording [T]."""
    made = {"griffin_lim": lambda mel_NM, samples_T: griffin_lim(mel_NM, config, seed)}
    if world_package() is not None:
        made["world"] = lambda mel_NM, samples_T: world(samples_T, config.rate_hz)
    return made
