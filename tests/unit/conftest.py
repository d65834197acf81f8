"""A small voice of random weights, and signals that resemble speech."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wavernn import checkpoint
from wavernn.checkpoint import Checkpoint
from wavernn.config import Config, MelConfig, ModelConfig, PruneConfig
from wavernn.kernels.bench import random_voice
from wavernn.mel import LogMel


@pytest.fixture(scope="session")
def voice() -> Checkpoint:
    """A voice of the usual mel whose every part is as small as it can be."""
    model = ModelConfig(hidden=16, projection=8, embedding=4, channels=8, layers=1)
    prune = PruneConfig(block_rows=4, block_columns=4, density={"R_u": 0.5})
    made = random_voice(Config("small", model=model, prune=prune))
    return Checkpoint(made.config, made.tensors, {"steps": 7, "data_licence": "none"})


@pytest.fixture
def voice_path(voice: Checkpoint, tmp_path: Path) -> Path:
    path = tmp_path / "voice.safetensors"
    checkpoint.save(path, voice)
    return path


@pytest.fixture(scope="session")
def speech_T() -> np.ndarray:
    """1.5 s at 22 050 Hz: syllables with a gliding pitch, noise between them, a pause."""
    random = np.random.default_rng(0)
    time_T = np.arange(33_075) / 22_050
    phase_T = 2 * np.pi * np.cumsum(110 + 30 * np.sin(2 * np.pi * 0.7 * time_T)) / 22_050
    voiced_T = np.zeros_like(time_T)
    for n in range(1, 40):
        formants = sum(np.exp(-(((110 * n - hz) / 300) ** 2)) for hz in (500, 1500, 2500))
        voiced_T += (0.02 + formants) / n * np.sin(n * phase_T)
    beat_T = np.sin(2 * np.pi * 3.0 * time_T)
    noise_T = random.normal(size=time_T.size)
    speech_T = voiced_T * np.maximum(0, beat_T) ** 2 + 0.03 * noise_T * np.maximum(0, -beat_T) ** 4
    speech_T *= np.sin(2 * np.pi * 0.5 * time_T) > -0.8
    return (0.5 * speech_T / np.abs(speech_T).max() + 1e-4 * noise_T).astype(np.float32)


@pytest.fixture(scope="session")
def speech_NM(speech_T: np.ndarray) -> np.ndarray:
    """The mel of `speech_T` that the voice takes."""
    return LogMel(MelConfig())(torch.from_numpy(speech_T)[None])[0].numpy()
