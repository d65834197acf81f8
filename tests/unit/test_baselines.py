import math
import sys

import numpy as np
import pytest

from wavernn.config import MelConfig
from wavernn.mel import mel_filterbank
from wavernn.train.baselines import NAMES, PHASE_STEPS, griffin_lim, missing, speakers, world
from wavernn.train.metrics import compare
from wavernn.train.pitch import pitch
from wavernn.train.spectral import log_mel, mel_l1

MEL = MelConfig()


def test_griffin_lim_says_the_mel_it_was_given(speech_T):
    mel_NM = log_mel(speech_T, MEL)
    made_T = griffin_lim(mel_NM, MEL)
    assert made_T.dtype == np.float32
    assert len(made_T) == len(mel_NM) * MEL.hop_samples
    assert np.abs(made_T).max() <= 1
    scores = compare(speech_T, made_T, MEL)
    assert scores["mel_l1"] < 0.15
    assert scores["vuv_error"] < 0.1
    assert scores["f0_rmse_hz"] < 5


def test_griffin_lim_is_no_weaker_than_that_of_librosa(speech_T):
    librosa = pytest.importorskip("librosa")
    mel_NM = log_mel(speech_T, MEL)
    magnitude_FN = librosa.util.nnls(mel_filterbank(MEL), np.exp(mel_NM.T))
    # in time with a mel, as ours is
    padded_FN = np.pad(magnitude_FN, ((0, 0), (1, 1)), mode="edge")
    theirs_T = librosa.griffinlim(
        padded_FN, n_iter=PHASE_STEPS, hop_length=MEL.hop_samples, random_state=0
    )[MEL.hop_samples // 2 :]
    T = len(speech_T)
    ours, theirs = (
        mel_l1(mel_NM, log_mel(made_T[:T], MEL)) for made_T in (griffin_lim(mel_NM, MEL), theirs_T)
    )
    assert 0.5 * theirs < ours < 1.1 * theirs


def test_griffin_lim_is_in_time_with_its_mel():
    click_T = np.eye(1, 8192, 4000)[0]
    made_T = griffin_lim(log_mel(click_T, MEL), MEL)
    centre = (np.arange(len(made_T)) * made_T**2).sum() / (made_T**2).sum()
    assert centre == pytest.approx(4000, abs=MEL.hop_samples / 2)


def test_griffin_lim_is_a_function_of_mel_and_seed(speech_T):
    mel_NM = log_mel(speech_T[:8000], MEL)
    assert (griffin_lim(mel_NM, MEL, 1) == griffin_lim(mel_NM, MEL, 1)).all()
    assert (griffin_lim(mel_NM, MEL, 1) != griffin_lim(mel_NM, MEL, 2)).any()
    assert np.isfinite(griffin_lim(mel_NM, MEL, 2**64 - 1)).all()


@pytest.mark.parametrize(
    "config",
    [
        MelConfig(log="log10", floor=1e-5),
        MelConfig(rate_hz=16_000, hop_samples=200, window_samples=800, high_hz=8000),
        MelConfig(bands=20, norm="none", scale="htk"),
    ],
    ids=["log10", "16 kHz", "few bands"],
)
def test_griffin_lim_takes_other_mels(speech_T, config):
    natural = MelConfig(**{**vars(config), "log": "ln"})
    mel_NM = log_mel(speech_T, natural)
    stored_NM = mel_NM / math.log(10) if config.log == "log10" else mel_NM
    made_T = griffin_lim(stored_NM, config)
    assert mel_l1(mel_NM, log_mel(made_T, natural)) < 0.3


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_and_silent_mels_give_sound(frames):
    quiet_T = griffin_lim(np.full((frames, 80), math.log(1e-5)), MEL)
    assert len(quiet_T) == frames * MEL.hop_samples
    assert np.abs(quiet_T).max() < 1e-3


def test_world_keeps_length_and_pitch(speech_T):
    if missing():
        pytest.skip(missing()[0])
    made_T = world(speech_T, MEL.rate_hz)
    assert made_T.shape == speech_T.shape
    assert made_T.dtype == np.float32
    f0_N, voiced_N = pitch(speech_T, MEL.rate_hz, MEL.hop_samples)
    made_N, made_voiced_N = pitch(made_T, MEL.rate_hz, MEL.hop_samples)
    both_N = voiced_N & made_voiced_N
    assert both_N.sum() > 20
    assert np.abs(f0_N - made_N)[both_N].mean() < 5


def test_a_missing_package_is_said_and_its_vocoder_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyworld", None)
    (sentence,) = missing()
    assert "pyworld isn't installed" in sentence
    assert list(speakers(MEL, 0)) == ["griffin_lim"]
    with pytest.raises(ImportError, match="pyworld isn't installed"):
        world(np.zeros(1000), 22_050)


def test_the_vocoders_have_the_promised_names():
    assert set(speakers(MEL, 0)) <= set(NAMES)
