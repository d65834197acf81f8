"""A mel to measure a voice with: real speech where it fits, noise with the voice's statistics."""

from __future__ import annotations

import numpy as np

from wavernn.checkpoint import Checkpoint
from wavernn.melfile import read_mel
from wavernn.specification import declared_mismatch
from wavernn.voices import FOLDER

DEMO = FOLDER / "samples" / "demo.npz"
# frames over which noise is averaged: about a syllable
SMOOTH_FRAMES = 9


def example_mel(voice: Checkpoint, frames: int) -> np.ndarray:
    """A mel [N, M] of so many frames: the shipped sentence over and over, if the voice takes it.

    Other voices, and copies without the sentence, get noise of their mean and deviation in each
    band, smooth in time.
    """
    config = voice.config.mel
    if DEMO.exists():
        speech_NM, declared = read_mel(DEMO)
        if not declared_mismatch(declared, config):
            return np.resize(speech_NM, (frames, config.bands)).astype(np.float32)
    noise_NM = np.random.default_rng(0).standard_normal((frames + SMOOTH_FRAMES, config.bands))
    sums_NM = noise_NM.cumsum(0)
    # of variance 1 again
    smooth_NM = (sums_NM[SMOOTH_FRAMES:] - sums_NM[:-SMOOTH_FRAMES]) / SMOOTH_FRAMES**0.5
    mean_M, deviation_M = (
        voice.tensors[f"conditioner.{name}"].numpy() for name in ("mean_M", "deviation_M")
    )
    return np.asarray(mean_M + deviation_M * smooth_NM, np.float32)
