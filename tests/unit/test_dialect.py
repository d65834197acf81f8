import dataclasses
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from wavernn.audio import read_audio
from wavernn.config import MEL_PRESETS, MelConfig
from wavernn.dialect import Finding, Statistics, recognise
from wavernn.errors import MelError
from wavernn.mel import LogMel
from wavernn.scale import SCALES, to_voice

MEL = MelConfig()
RATE_HZ = MEL.rate_hz
LN10 = math.log(10)
FLOOR = math.log(1e-5)

Change = Callable[[np.ndarray], np.ndarray]


def db(mel_NM: np.ndarray, reference: float = 0.0) -> np.ndarray:
    return 20 / LN10 * mel_NM - reference


def normalised(low: float, high: float, reference: float) -> Change:
    def change(mel_NM: np.ndarray) -> np.ndarray:
        share = np.clip((db(mel_NM, reference) + 100) / 100, 0, 1)
        return np.asarray(low + (high - low) * share)

    return change


# name of the scale: what another front end does to the mel that is ours
FOREIGN: dict[str, Change] = {
    "log10": lambda mel_NM: mel_NM / LN10,
    "db": db,
    "db-20": lambda mel_NM: db(mel_NM, 20),
    "unit": normalised(0, 1, 0),
    "unit-20": normalised(0, 1, 20),
    "symmetric": normalised(-4, 4, 0),
    "symmetric-20": normalised(-4, 4, 20),
    "symmetric1": normalised(-1, 1, 0),
    "symmetric1-20": normalised(-1, 1, 20),
    "ln-power": lambda mel_NM: 2 * mel_NM,
    "ln-int16": lambda mel_NM: mel_NM + math.log(32768),
    "magnitude": np.exp,
    "power": lambda mel_NM: np.exp(2 * mel_NM),
}


def white(samples: int, level: float = 1.0) -> np.ndarray:
    return level * np.random.default_rng(0).standard_normal(samples)


@cache
def speech(rate_hz: int = RATE_HZ, seconds: float = 4.0, level: float = 0.1) -> np.ndarray:
    """Syllables with a gliding pitch, a spectral slope, a hiss at their ends, and pauses."""
    time_T = np.arange(int(seconds * rate_hz)) / rate_hz
    phase_T = 2 * np.pi * (170 * time_T - 8 * np.cos(2 * np.pi * 0.7 * time_T))
    tones = sum(
        np.sin(k * phase_T + k * k) * k**-0.8 * (1 + np.cos(k / 3 + 9 * np.sin(2 * time_T)))
        for k in range(1, int(0.42 * rate_hz / 210))
    )
    swell_T = np.maximum(np.sin(2 * np.pi * 2.3 * time_T), 0) ** 0.5
    hiss_T = np.maximum(np.sin(2 * np.pi * 2.3 * time_T - 2.5), 0) * white(len(time_T))
    pause_T = np.abs(time_T % 2 - 1) > 0.15
    samples_T = (tones * swell_T + hiss_T) * pause_T
    return np.asarray(level * samples_T / samples_T.std() + white(len(time_T), 3e-4))


log_mel = cache(LogMel)


def mel_of(samples_T: np.ndarray, config: MelConfig = MEL) -> np.ndarray:
    audio_BT = torch.from_numpy(np.array(samples_T, dtype=np.float32))[None]
    return np.asarray(log_mel(config)(audio_BT)[0].numpy())


def statistics(mel_NM: np.ndarray) -> Statistics:
    return mel_NM.mean(axis=0), mel_NM.std(axis=0)


SPEECH_NM = mel_of(speech())
STATISTICS = statistics(SPEECH_NM)


def test_our_own_mel_fits_and_stays_as_it_is() -> None:
    for given in (None, STATISTICS):
        found = recognise(SPEECH_NM, MEL, given)
        assert found.dialect == "ln"
        assert found.fits
        assert found.sentence.startswith(f"The mel fits: {len(SPEECH_NM)} frames, natural log")
        same_bits(found, SPEECH_NM, SPEECH_NM)


def same_bits(found: Finding, array: np.ndarray, mel_NM: np.ndarray) -> None:
    assert found.convert is not None
    made_NM = found.convert(array)
    assert made_NM.dtype == np.float32
    assert np.array_equal(made_NM, mel_NM)


@pytest.mark.parametrize("leading", [(), (1,), (1, 1)])
def test_either_order_of_axes_is_taken(leading: tuple[int, ...]) -> None:
    for array in (SPEECH_NM, SPEECH_NM.T):
        shaped = array.reshape(leading + array.shape)
        found = recognise(shaped, MEL)
        assert found.fits
        same_bits(found, shaped, SPEECH_NM)
    assert f"stored as {[80, len(SPEECH_NM)]}" in recognise(SPEECH_NM.T, MEL).sentence


@pytest.mark.parametrize("scale", FOREIGN)
def test_a_foreign_scale_is_recognised_and_undone(scale: str) -> None:
    array = FOREIGN[scale](SPEECH_NM.astype(np.float64))
    found = recognise(array, MEL, STATISTICS)
    assert (found.dialect, found.fits) == (scale, False)
    assert SCALES[scale].what in found.sentence
    assert found.convert is not None
    # what was cut off at the ends of a normalised range stays lost
    kept_NM = to_voice(array, scale, MEL) > FLOOR
    if "-20" in scale or scale in ("unit", "symmetric", "symmetric1"):
        kept_NM &= (db(SPEECH_NM) > -79.9) & (db(SPEECH_NM) < -0.1)
    assert kept_NM.mean() > 0.8
    assert np.abs(found.convert(array) - SPEECH_NM)[kept_NM].max() < 1e-4
    turned = array.T[None]
    assert np.array_equal(found.convert(turned), found.convert(array))


@pytest.mark.parametrize("scale", ["unit-20", "symmetric-20", "symmetric1-20"])
def test_an_unknown_reference_level_is_not_guessed(scale: str) -> None:
    found = recognise(FOREIGN[scale](SPEECH_NM), MEL)
    assert (found.dialect, found.fits, found.convert) == ("reference", False, None)
    assert f"convert them as {scale.removesuffix('-20')} or {scale}" in found.sentence
    # librosa's power_to_db(ref=np.max)
    relative = np.maximum(db(SPEECH_NM) - db(SPEECH_NM).max(), -80)
    assert recognise(relative, MEL, STATISTICS).dialect == "reference"


def test_values_scaled_by_their_own_statistics_are_named() -> None:
    mean_M, deviation_M = STATISTICS
    found = recognise((SPEECH_NM - mean_M) / deviation_M, MEL, STATISTICS)
    assert (found.dialect, found.fits, found.convert) == ("standardised", False, None)
    assert "statistics of the front end" in found.sentence


def test_a_voice_in_log10_takes_log10_and_refuses_ln() -> None:
    config = dataclasses.replace(MEL, log="log10")
    decimal_NM = mel_of(speech(), config)
    found = recognise(decimal_NM, config)
    assert (found.dialect, found.fits) == ("log10", True)
    same_bits(found, decimal_NM, decimal_NM)
    found = recognise(SPEECH_NM, config)
    assert (found.dialect, found.fits) == ("ln", False)
    assert found.convert is not None
    assert np.abs(found.convert(SPEECH_NM) - decimal_NM).max() < 1e-5


def test_a_lower_floor_is_raised() -> None:
    deep_NM = mel_of(np.r_[speech(), np.zeros(9000)], dataclasses.replace(MEL, floor=1e-9))
    found = recognise(deep_NM, MEL)
    assert found.fits
    assert "values below -11.513 are raised to it" in found.sentence
    same_bits(found, deep_NM, np.maximum(deep_NM, np.float32(FLOOR)))


def test_minus_infinity_is_mended_and_nan_is_not() -> None:
    array = SPEECH_NM.copy()
    array[3:5] = -np.inf
    found = recognise(array, MEL)
    assert (found.dialect, found.fits) == ("not-finite", False)
    assert "160 of" in found.sentence
    assert found.convert is not None
    assert (found.convert(array)[3:5] == np.float32(FLOOR)).all()
    for value in (np.nan, np.inf):
        array[7, 7] = value
        found = recognise(array, MEL)
        assert (found.dialect, found.fits, found.convert) == ("not-finite", False, None)
        assert "161 of" in found.sentence


@pytest.mark.parametrize("value", [0.0, 1.0, -4.0, -100.0, -5.0])
def test_a_constant_is_no_mel(value: float) -> None:
    found = recognise(np.full((40, 80), value), MEL)
    assert (found.dialect, found.fits, found.convert) == ("constant", False, None)


@pytest.mark.parametrize(
    ("shape", "dialect", "part"),
    [
        ((200, 100), "bands", "so 100 bands"),
        ((128, 301), "bands", "so 128 bands"),
        ((7, 81), "bands", "so 7 bands"),
        ((80,), "shape", "shape [80]"),
        ((2, 80, 9), "shape", "shape [2, 80, 9]"),
        ((0, 80), "shape", "shape [0, 80]"),
        ((80, 0), "shape", "shape [80, 0]"),
        ((), "shape", "shape []"),
    ],
)
def test_a_wrong_shape_is_named(shape: tuple[int, ...], dialect: str, part: str) -> None:
    found = recognise(np.full(shape, -5.0), MEL)
    assert (found.dialect, found.fits, found.convert) == (dialect, False, None)
    assert part in found.sentence
    assert "[frames, 80] or [80, frames]" in found.sentence


def test_what_is_not_a_number_is_refused() -> None:
    for array in (np.full((9, 80), "x"), np.full((9, 80), None), np.ones((9, 80), complex)):
        assert recognise(array, MEL).dialect == "shape"


def test_values_of_no_known_kind_are_refused() -> None:
    found = recognise(np.random.default_rng(0).uniform(5, 30, (50, 80)), MEL)
    assert (found.dialect, found.fits, found.convert) == ("unknown", False, None)


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(MelError, match="unknown mel scale 'bel'; known: ln, log10"):
        to_voice(SPEECH_NM, "bel", MEL)


def odd_recordings(rate_hz: int) -> dict[str, np.ndarray]:
    said_T = speech(rate_hz, 2.0)
    T = len(said_T)
    time_T = np.arange(T) / rate_hz
    hiss_T = white(T)
    shaped = np.fft.rfft(hiss_T) / np.sqrt(np.arange(T // 2 + 1) + 1)
    pink_T = np.fft.irfft(shaped, T)
    pink_T /= pink_T.std()
    square_T = np.sign(np.sin(2 * np.pi * 110 * time_T))
    return {
        "speech": said_T,
        "whisper": 0.01 * said_T,
        "nearly nothing": 1e-4 * said_T,
        "loud": np.clip(10 * said_T, -1, 1),
        "beyond full scale": 8 * said_T,
        "noisy": said_T + 0.03 * hiss_T,
        "drowned": said_T + 0.2 * hiss_T,
        "loud and noisy": np.clip(8 * said_T + 0.3 * hiss_T, -1, 1),
        "in pink noise": said_T + 0.05 * pink_T,
        "faint noise": 1e-3 * hiss_T,
        "full noise": np.clip(hiss_T, -1, 1),
        "clipped noise": np.sign(hiss_T),
        "pink noise": 0.2 * pink_T,
        "gated": np.where(np.abs(np.sin(2 * np.pi * 2.3 * time_T)) > 0.5, said_T, 0),
        "fast": said_T[::2],
        "slow": np.repeat(said_T, 2),
        "8 bit": np.round(said_T * 127) / 127,
        "offset": said_T + 0.3,
        "tone": 0.9 * np.sin(2 * np.pi * 1000 * time_T),
        "chirp": 0.9 * np.sin(2 * np.pi * (50 + 1000 * time_T) * time_T),
        "square": 0.9 * square_T,
        "square syllables": square_T * np.maximum(np.sin(2 * np.pi * 2 * time_T), 0),
        "clicks": (np.arange(T) % 3000 == 0).astype(float),
        "silence": np.zeros(T),
        "one sample": said_T[:1],
        "one frame": said_T[5000:5100],
        "few frames": said_T[5000:8000],
    }


VOICES = {
    **MEL_PRESETS,
    "decimal": dataclasses.replace(MEL, log="log10"),
    "no norm": dataclasses.replace(MEL, norm="none"),
    "htk": dataclasses.replace(MEL, scale="htk"),
}


@pytest.mark.parametrize("voice", VOICES)
def test_no_true_mel_is_refused(voice: str) -> None:
    config = VOICES[voice]
    for name, samples_T in odd_recordings(config.rate_hz).items():
        mel_NM = mel_of(samples_T, config)
        for given in (None, statistics(mel_of(speech(config.rate_hz, 2.0), config))):
            found = recognise(mel_NM, config, given)
            assert found.fits, (name, found.sentence)
            same_bits(found, mel_NM, mel_NM)


def test_no_piece_of_a_true_mel_is_refused() -> None:
    for frames in (1, 2, 5, 19, 20, 40):
        for start in range(0, len(SPEECH_NM) - frames, 7):
            piece_NM = SPEECH_NM[start : start + frames]
            assert recognise(piece_NM, MEL, STATISTICS).fits, (frames, start)


def test_a_level_far_from_the_training_data_is_mentioned() -> None:
    found = recognise(SPEECH_NM - 3, MEL, STATISTICS)
    assert found.fits
    assert "dB quieter than the voice's training data" in found.sentence


@cache
def clips(speech_dir: Path, step: int, seconds: float) -> list[np.ndarray]:
    paths = sorted(speech_dir.glob("LJ*.flac"))[::step]
    return [mel_of(read_audio(path, RATE_HZ)[: int(seconds * RATE_HZ)]) for path in paths]


def test_no_mel_of_a_real_clip_is_refused(speech_dir: Path) -> None:
    mels = clips(speech_dir, 1, 1.0)
    given = statistics(np.concatenate(mels))
    for number, mel_NM in enumerate(mels):
        frame = number % len(mel_NM)
        for array in (mel_NM, mel_NM.T[None], mel_NM[frame : frame + 1], mel_NM[-30:]):
            for known in (None, given):
                found = recognise(array, MEL, known)
                assert found.fits, found.sentence


def test_powers_that_were_cut_off_cannot_be_mended(speech_dir: Path) -> None:
    for mel_NM in clips(speech_dir, 60, 5):
        found = recognise(np.maximum(2 * mel_NM, FLOOR), MEL)
        assert (found.dialect, found.fits, found.convert) == ("ln-power", False, None)
        assert "were cut off" in found.sentence


@pytest.mark.parametrize("scale", FOREIGN)
def test_foreign_mels_of_real_clips_are_recognised(speech_dir: Path, scale: str) -> None:
    mels = clips(speech_dir, 12, 5)
    given = statistics(np.concatenate(mels))
    for mel_NM in mels:
        array = FOREIGN[scale](mel_NM.astype(np.float64))
        assert recognise(array, MEL, given).dialect == scale
        assert not recognise(array, MEL).fits
