"""A voice of random weights, a mel, and a way to run the command line."""

import sys
from collections import namedtuple

import numpy as np
import pytest
import torch

from wavernn import checkpoint
from wavernn.cli import main
from wavernn.config import Config, MelConfig, ModelConfig
from wavernn.kernels.bench import random_voice
from wavernn.mel import LogMel

Done = namedtuple("Done", "code out err")


@pytest.fixture(scope="session")
def voice(tmp_path_factory):
    """The path of a voice of random weights, as small as can be."""
    model = ModelConfig(hidden=16, projection=8, embedding=4, channels=8, layers=1)
    path = tmp_path_factory.mktemp("voice") / "small.safetensors"
    checkpoint.save(path, random_voice(Config("small", model=model)))
    return path


@pytest.fixture(scope="session")
def mel_NM():
    """A mel with syllables of noise, and digital silence between them."""
    T = 16_000
    beat_T = np.maximum(0, np.sin(2 * np.pi * 4 * np.arange(T) / 22_050))
    audio_T = 0.3 * beat_T * np.random.default_rng(0).uniform(-1, 1, T)
    return LogMel(MelConfig())(torch.from_numpy(audio_T.astype(np.float32))[None])[0].numpy()


@pytest.fixture
def wavernn(monkeypatch, capsys):
    """Runs a command in this process, as `main` does it: (code, out, err)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["wavernn", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return Done(stopped.value.code, *capsys.readouterr())

    return run
