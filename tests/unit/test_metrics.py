import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from wavernn.audio import read_audio
from wavernn.config import MelConfig
from wavernn.level import LOWEST_DB, active_frames, frame_levels_db, level_db, silent_frames
from wavernn.train.metrics import METRICS, compare, missing_metrics, pitch_errors
from wavernn.train.spectral import log_mel, mcd_db, mel_l1, mr_stft

MEL = MelConfig()
RATE_HZ = MEL.rate_hz
PERFECT = {"mel_l1": 0, "mr_stft": 0, "mcd_db": 0, "f0_rmse_hz": 0, "vuv_error": 0}


def noise(samples: int, level: float, seed: int = 0) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(samples)


def speech(seconds: float = 2.0, f0_hz: float = 160.0) -> np.ndarray:
    """Syllables of a harmonic tone between pauses with a noise floor at -64 dBFS."""
    time_T = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tones = sum(np.sin(2 * np.pi * f0_hz * k * time_T + k * k) / k for k in range(1, 40))
    syllable_T = (np.sin(2 * np.pi * 1.5 * time_T) > -0.3).astype(float)
    edge = np.hanning(441) / np.hanning(441).sum()
    return np.asarray(
        0.1 * tones * np.convolve(syllable_T, edge, "same") + noise(len(time_T), 6e-4)
    )


SPEECH_T = speech()


def test_a_recording_equals_itself() -> None:
    scores = compare(SPEECH_T, SPEECH_T, MEL)
    assert tuple(scores) == METRICS
    assert {key: scores[key] for key in PERFECT} == PERFECT
    assert scores["silence_db"] == scores["silence_reference_db"]


def test_pesq_and_stoi_know_a_perfect_copy() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    scores = compare(SPEECH_T, SPEECH_T, MEL)
    assert scores["pesq"] == pytest.approx(4.644, abs=0.001)
    assert scores["stoi"] == pytest.approx(1.0, abs=1e-6)


def test_every_distance_grows_with_noise() -> None:
    hiss_T = noise(len(SPEECH_T), 1.0, 1)
    levels = (0.0, 1e-3, 1e-2, 1e-1)
    rows = [compare(SPEECH_T, SPEECH_T + level * hiss_T, MEL) for level in levels]
    for key in ("mel_l1", "mr_stft", "mcd_db", "vuv_error", "silence_db"):
        values = [row[key] for row in rows]
        assert values == sorted(values, key=lambda value: value or 0.0), key
        assert values[0] != values[-1], key
    assert len({row["silence_reference_db"] for row in rows}) == 1
    if not missing_metrics():
        for key in ("pesq", "stoi"):
            values = [row[key] for row in rows]
            assert values == sorted(values, key=lambda value: -(value or 0.0)), key


def test_a_gain_of_6_db_moves_the_log_mel_by_ln_2() -> None:
    loud_T = 0.2 * noise(RATE_HZ, 1.0)
    scores = compare(loud_T, 2 * loud_T, MEL)
    assert scores["mel_l1"] == pytest.approx(math.log(2), abs=1e-4)
    # the level is no part of the cepstral distortion
    assert scores["mcd_db"] == pytest.approx(0, abs=1e-3)
    assert scores["mr_stft"] == pytest.approx(1 + math.log(2), abs=1e-3)


def test_mel_l1_is_in_natural_logarithms_whatever_the_voice_stores() -> None:
    natural = log_mel(SPEECH_T, MEL)
    decimal = log_mel(SPEECH_T, MelConfig(log="log10"))
    assert mel_l1(natural, decimal) < 1e-6


def test_the_cepstral_distortion_of_a_cosine_is_its_root_mean_square() -> None:
    M, height = 80, 0.7
    flat_NM = np.zeros((5, M))
    for m in (1, 7, 24):
        wave_NM = flat_NM + height * np.cos(np.pi * m * (np.arange(M) + 0.5) / M)
        expected_db = 20 / math.log(10) * height / math.sqrt(2)
        assert mcd_db(flat_NM, wave_NM) == pytest.approx(expected_db)
    assert mcd_db(flat_NM, flat_NM + 3.0) == pytest.approx(0, abs=1e-9)
    # finer than 24 coefficients resolve
    assert mcd_db(flat_NM, flat_NM + np.cos(np.pi * 60 * (np.arange(M) + 0.5) / M)) == (
        pytest.approx(0, abs=1e-9)
    )
    assert mcd_db(flat_NM[:0], flat_NM[:0]) is None
    assert mcd_db(flat_NM[:, :1], flat_NM[:, :1]) is None


def test_the_stft_distance_is_that_of_auraloss() -> None:
    auraloss = pytest.importorskip("auraloss")
    theirs = auraloss.freq.MultiResolutionSTFTLoss()
    for test_T in (
        SPEECH_T + noise(len(SPEECH_T), 0.01, 1),
        0.5 * SPEECH_T,
        np.roll(SPEECH_T, 300),
    ):
        pair = [torch.from_numpy(samples_T)[None, None] for samples_T in (test_T, SPEECH_T)]
        # theirs keeps its windows in single precision
        assert mr_stft(SPEECH_T, test_T) == pytest.approx(float(theirs(*pair)), rel=1e-5)


def test_a_pitch_2_percent_higher_is_2_percent_of_error() -> None:
    rmse_hz, vuv = pitch_errors(speech(f0_hz=200.0), speech(f0_hz=204.0), RATE_HZ, 256)
    assert rmse_hz == pytest.approx(4.0, rel=0.05)
    assert vuv < 0.03


def test_voicing_errors_are_counted_over_all_frames() -> None:
    tone_T = 0.2 * np.sign(np.sin(2 * np.pi * 150 * np.arange(RATE_HZ) / RATE_HZ))
    half_T = np.where(np.arange(RATE_HZ) < RATE_HZ // 2, tone_T, noise(RATE_HZ, 0.1))
    rmse_hz, vuv = pitch_errors(tone_T, half_T, RATE_HZ, 256)
    assert vuv == pytest.approx(0.5, abs=0.04)
    assert rmse_hz is not None
    assert pitch_errors(noise(RATE_HZ, 0.1), tone_T, RATE_HZ, 256)[0] is None


def test_noise_in_pauses_is_measured_where_the_reference_is_silent() -> None:
    scores = compare(SPEECH_T, SPEECH_T + noise(len(SPEECH_T), 0.01, 1), MEL)
    assert scores["silence_reference_db"] == pytest.approx(-64.4, abs=0.5)
    assert scores["silence_db"] == pytest.approx(-40, abs=0.3)
    # what the test does in speech doesn't count
    loud_T = np.where(np.abs(SPEECH_T) > 0.01, 1.5 * SPEECH_T, SPEECH_T)
    assert compare(SPEECH_T, loud_T, MEL)["silence_db"] == pytest.approx(-64.4, abs=0.5)


def test_a_steady_sound_has_no_silence() -> None:
    for level in (0.002, 0.3):
        assert not silent_frames(frame_levels_db(noise(RATE_HZ, level), 256)).any()


def test_a_quiet_recording_keeps_its_speech() -> None:
    silent_N = silent_frames(frame_levels_db(SPEECH_T, 256))
    assert 0.2 < silent_N.mean() < 0.6
    hushed_N = silent_frames(frame_levels_db(0.03 * SPEECH_T, 256))
    assert (hushed_N <= silent_N).all()
    assert hushed_N.any()


def test_levels_are_in_db_of_full_scale() -> None:
    assert level_db(np.full(9, 0.1)) == pytest.approx(-20)
    assert level_db(np.zeros(9)) == level_db(np.zeros(0)) == LOWEST_DB
    assert frame_levels_db(np.r_[np.ones(4), np.zeros(4), 0.1], 4) == pytest.approx([0, -120, -20])
    assert not len(frame_levels_db(np.zeros(0), 4))
    assert not len(silent_frames(np.zeros(0)))
    assert not len(active_frames(np.zeros(0)))


@pytest.mark.parametrize("samples", [0, 1, 2, 100, 255, 257, 1500, 6000])
def test_short_recordings_give_numbers_or_none(samples: int) -> None:
    check(compare(SPEECH_T[3000 : 3000 + samples], 0.9 * SPEECH_T[3000 : 3000 + samples], MEL))


@pytest.mark.parametrize(
    ("reference_T", "test_T"),
    [
        (np.zeros(RATE_HZ), np.zeros(RATE_HZ)),
        (np.zeros(len(SPEECH_T)), SPEECH_T),
        (SPEECH_T, np.zeros(len(SPEECH_T))),
        (np.full(RATE_HZ, 0.1), np.full(RATE_HZ, 0.1)),
        (noise(RATE_HZ, 0.2, 1), noise(RATE_HZ, 0.2, 2)),
        (noise(RATE_HZ, 1e-6, 1), noise(RATE_HZ, 1e-6, 2)),
        (np.eye(1, RATE_HZ, 5000)[0], SPEECH_T),
        (np.r_[SPEECH_T, np.zeros(25 * RATE_HZ)], np.r_[SPEECH_T, np.zeros(25 * RATE_HZ)]),
    ],
    ids=["silence", "reference", "test", "constant", "noise", "faint", "click", "long pause"],
)
def test_odd_recordings_give_numbers_or_none(reference_T: np.ndarray, test_T: np.ndarray) -> None:
    check(compare(reference_T, test_T, MEL))


def check(scores: dict[str, float | None]) -> None:
    assert tuple(scores) == METRICS
    for key, value in scores.items():
        assert value is None or (type(value) is float and math.isfinite(value)), key


def test_undefined_scores_are_none() -> None:
    assert set(compare(np.zeros(0), SPEECH_T, MEL).values()) == {None}
    silence = compare(np.zeros(RATE_HZ), np.zeros(RATE_HZ), MEL)
    assert silence["silence_db"] == silence["silence_reference_db"] == LOWEST_DB
    assert silence["mel_l1"] == silence["vuv_error"] == 0
    for key in ("mr_stft", "mcd_db", "f0_rmse_hz", "pesq", "stoi"):
        assert silence[key] is None


def test_the_longer_recording_is_cut() -> None:
    longer_T = np.concatenate([SPEECH_T, np.ones(5000)])
    assert compare(SPEECH_T, longer_T, MEL) == compare(longer_T, SPEECH_T, MEL)
    assert compare(SPEECH_T, longer_T, MEL) == compare(SPEECH_T, SPEECH_T, MEL)


@pytest.mark.parametrize("config", [MEL, MelConfig(rate_hz=16_000, hop_samples=200)])
def test_single_precision_is_taken(config: MelConfig) -> None:
    reference_T = SPEECH_T.astype(np.float32)
    check(compare(reference_T, 0.9 * reference_T, config))


def test_wrong_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="the reference must be finite samples"):
        compare(np.zeros((2, 100)), SPEECH_T, MEL)
    with pytest.raises(ValueError, match="the test must be finite samples"):
        compare(SPEECH_T, np.array([np.nan]), MEL)


def test_a_missing_package_is_said_and_its_score_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.setitem(sys.modules, "pystoi", None)
    first, second = missing_metrics()
    assert "pesq isn't installed" in first
    assert "pystoi isn't installed" in second
    scores = compare(SPEECH_T, SPEECH_T, MEL)
    assert scores["pesq"] is None
    assert scores["stoi"] is None
    assert scores["mel_l1"] == 0


def test_real_speech_is_closer_to_a_clean_copy_than_to_a_coarse_one(speech_dir: Path) -> None:
    path = min(speech_dir.glob("LJ*.flac"))
    reference_T = read_audio(path, RATE_HZ)[: 4 * RATE_HZ]
    fine = compare(reference_T, np.round(reference_T * 2**11) / 2**11, MEL)
    coarse = compare(reference_T, np.round(reference_T * 2**7) / 2**7, MEL)
    for key in ("mel_l1", "mr_stft", "mcd_db", "vuv_error"):
        assert (fine[key] or 0.0) < (coarse[key] or 0.0), key
    assert fine["silence_reference_db"] is not None
    assert -80 < fine["silence_reference_db"] < -40
