from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from wavernn.audio import read_audio
from wavernn.config import MelConfig
from wavernn.mel import LogMel
from wavernn.recording import doctor_recording

MEL = MelConfig()
RATE_HZ = MEL.rate_hz

Statistics = tuple[np.ndarray, np.ndarray]


@cache
def speech(rate_hz: int = RATE_HZ) -> np.ndarray:
    """Syllables with a gliding pitch and a hiss at their ends, -22 dBFS."""
    time_T = np.arange(4 * rate_hz) / rate_hz
    phase_T = 2 * np.pi * (170 * time_T - 8 * np.cos(2 * np.pi * 0.7 * time_T))
    count = int(0.42 * rate_hz / 210)
    tones = sum(np.sin(k * phase_T + k * k) * k**-0.8 for k in range(1, count + 1))
    hiss_T = np.random.default_rng(0).standard_normal(len(time_T))
    swell_T = np.maximum(np.sin(2 * np.pi * 2.3 * time_T), 0) ** 0.5
    end_T = np.maximum(np.sin(2 * np.pi * 2.3 * time_T - 2.5), 0)
    samples_T = tones * swell_T + hiss_T * end_T
    return np.asarray(0.08 * samples_T / samples_T.std() + 3e-4 * hiss_T)


def mel_of(samples_T: np.ndarray) -> np.ndarray:
    audio_BT = torch.from_numpy(np.array(samples_T, dtype=np.float32))[None]
    return np.asarray(LogMel(MEL)(audio_BT)[0].numpy())


def statistics(mel_NM: np.ndarray) -> Statistics:
    return mel_NM.mean(axis=0), mel_NM.std(axis=0)


STATISTICS = statistics(mel_of(speech()))


@pytest.mark.parametrize("known", [None, STATISTICS])
def test_a_good_recording_has_no_findings(known: Statistics | None) -> None:
    assert doctor_recording(speech(), RATE_HZ, MEL, known) == []


def test_real_clips_have_no_findings(speech_dir: Path) -> None:
    paths = sorted(speech_dir.glob("LJ*.flac"))[::30]
    given = statistics(np.concatenate([mel_of(read_audio(path, RATE_HZ)) for path in paths]))
    for path in paths:
        samples_T = read_audio(path, RATE_HZ)
        for known in (None, given):
            assert doctor_recording(samples_T, RATE_HZ, MEL, known) == []


def resampled(samples_T: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    return np.asarray(soxr.resample(samples_T, from_hz, to_hz))


FAULTS: dict[str, tuple[np.ndarray, int, list[str]]] = {
    "rate": (speech(48_000), 48_000, ["The rate is 48000 Hz"]),
    "telephone": (speech(8_000), 8_000, ["The rate is 8000 Hz", "There is nothing above "]),
    "upsampled": (resampled(speech(8_000), 8_000, RATE_HZ), RATE_HZ, ["There is nothing above "]),
    "offset": (speech() + 0.05, RATE_HZ, ["The samples have a constant offset of 0.050"]),
    "quiet": (0.03 * speech(), RATE_HZ, ["The speech"]),
    "pauses": (np.r_[speech(), np.zeros(40 * RATE_HZ)], RATE_HZ, ["Only "]),
    "silence": (np.zeros(RATE_HZ), RATE_HZ, ["The recording is silent."]),
    "nothing": (np.zeros(0), RATE_HZ, ["The recording is empty."]),
}


@pytest.mark.parametrize("known", [None, STATISTICS], ids=["alone", "statistics"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_recording_is_described(fault: str, known: Statistics | None) -> None:
    samples_T, rate_hz, starts = FAULTS[fault]
    sentences = doctor_recording(samples_T, rate_hz, MEL, known)
    assert len(sentences) == len(starts)
    for sentence, start in zip(sentences, starts, strict=True):
        assert sentence.startswith(start)


def test_a_clipped_recording_is_described() -> None:
    sentences = doctor_recording(np.clip(8 * speech(), -1, 1), RATE_HZ, MEL)
    assert any("of the samples are cut off at full scale" in sentence for sentence in sentences)


@pytest.mark.parametrize("samples", [1, 2, 100, 1000])
def test_a_short_recording_is_examined(samples: int) -> None:
    for samples_T in (np.full(samples, 0.5), speech()[9000 : 9000 + samples]):
        for known in (None, STATISTICS):
            assert all(s.endswith(".") for s in doctor_recording(samples_T, RATE_HZ, MEL, known))


def test_wrong_samples_are_refused() -> None:
    for samples_T in (np.zeros((2, 9)), np.array([np.inf])):
        with pytest.raises(ValueError, match="expected finite samples"):
            doctor_recording(samples_T, RATE_HZ, MEL)
