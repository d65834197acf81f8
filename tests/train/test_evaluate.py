import logging
import shutil

import numpy as np
import pytest
import torch

from wavernn.audio import read_audio
from wavernn.checkpoint import Checkpoint
from wavernn.errors import BackendUnavailable, DataError
from wavernn.model import WaveRNN
from wavernn.train import baselines, metrics
from wavernn.train import evaluate as module
from wavernn.train.evaluate import choose, evaluate
from wavernn.train.features import build, find_recordings
from wavernn.train.validate import bits_per_sample, make_slices

RATE_HZ, HOP = 8_000, 64

# those of `wavernn eval --json`, of a voice and of any vocoder
BITS = """
    bits_per_sample bits_coarse bits_fine flac_bits bits_silence bits_voiced bits_below_flac
"""
KEYS = """
    mel_l1 mr_stft mcd_db f0_rmse_hz vuv_error pesq stoi silence_db silence_reference_db
    silence_above_db align align_reference align_ratio align_ratio_low align_ratio_high align_clips
    realtime_factor clips
"""


@pytest.fixture
def voice(quick):
    torch.manual_seed(0)
    config = quick()
    tensors = WaveRNN(config.model, config.mel).state_dict()
    return Checkpoint(config, tensors, {"held_out": ["clip2", "clip6"]})


@pytest.fixture
def perfect(monkeypatch, data):
    """A vocoder that gives the recording back, found by the number of its frames."""
    samples = [read_audio(path, RATE_HZ) for path in find_recordings(data).values()]
    by_frames = {-(-len(samples_T) // HOP): samples_T for samples_T in samples}

    class Perfect:
        def __init__(self, voice, backend, format, threads):
            self.voice = voice

        def synthesize(self, mel_NM, seed, temperature):
            assert (seed, temperature) == (0, 1.0)
            samples_T = by_frames[len(mel_NM)]
            return np.pad(samples_T, (0, len(mel_NM) * HOP - len(samples_T)))

    monkeypatch.setattr(module, "Vocoder", Perfect)


def test_the_result_has_the_promised_keys(voice, data, tmp_path):
    seen = []
    result = evaluate(
        voice,
        data,
        tmp_path / "cache",
        clips=1,
        backend="reference",
        progress=lambda *step: seen.append(step),
    )
    assert result.keys() == set((BITS + KEYS).split())
    assert result["clips"] == 1
    assert result["realtime_factor"] > 0
    assert result["mel_l1"] > 0
    known = [value for value in result.values() if value is not None]
    assert np.isfinite(known).all()
    assert {label for label, _, _ in seen} == {"features", "bits per sample", "copy synthesis"}
    # each ends with all of it done
    assert {label: (done, total) for label, done, total in seen} == {
        "features": (2, 2),
        "bits per sample": (2, 2),
        "copy synthesis": (1, 1),
    }


def test_a_perfect_vocoder_makes_no_error(voice, data, tmp_path, perfect):
    result = evaluate(voice, data, tmp_path / "cache", keep=tmp_path / "kept")
    assert result["clips"] == 2
    assert result["mel_l1"] == result["mr_stft"] == result["vuv_error"] == 0
    assert result["silence_db"] == result["silence_reference_db"] < -60
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "clip2.flac",
        "clip6.flac",
    ]
    recordings = find_recordings(data)
    for name in ("clip2", "clip6"):
        kept_T = read_audio(tmp_path / "kept" / f"{name}.flac", RATE_HZ)
        assert (kept_T == read_audio(recordings[name], RATE_HZ)).all()


def test_bits_are_of_all_held_out_clips(voice, data, tmp_path, perfect):
    result = evaluate(voice, data, tmp_path / "cache", clips=1, seconds_per_clip=0.3)
    recordings = {name: find_recordings(data)[name] for name in ("clip2", "clip6")}
    features = build(recordings, tmp_path / "cache", voice.config)
    model = voice.model()
    slices = make_slices(features, model, torch.device("cpu"))
    wanted = bits_per_sample(model, features, slices, np.arange(2), 0.3)
    assert result["clips"] == 1
    for key, value in wanted.items():
        assert result[key] == value


def test_clips_are_spread_over_the_recordings(voice, data, tmp_path, perfect):
    evaluate(voice, data, tmp_path, clips=3, every_clip=True, keep=tmp_path / "kept")
    names = sorted(path.stem for path in (tmp_path / "kept").iterdir())
    assert names == ["clip1", "clip4", "clip6"]
    result = evaluate(voice, data, tmp_path, clips=100, every_clip=True)
    assert result["clips"] == 8


def test_held_out_clips_are_chosen_where_there_are_any(voice, data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert list(choose(voice, data, False)) == ["clip2", "clip6"]
    assert "judging by 2 recordings that were held out from training" in caplog.text
    assert len(choose(voice, data, True)) == 8
    # the same recordings, seen from a folder above
    shutil.copytree(data, tmp_path / "corpus" / "wavs")
    assert list(choose(voice, tmp_path / "corpus", False)) == ["wavs/clip2", "wavs/clip6"]
    # other recordings
    (tmp_path / "other").mkdir()
    for name in ("clip2b", "myclip2", "clip1"):
        shutil.copy(data / "clip2.wav", tmp_path / "other" / f"{name}.wav")
    caplog.clear()
    assert list(choose(voice, tmp_path / "other", False)) == ["clip1", "clip2b", "myclip2"]
    assert "judging by all 3 recordings in" in caplog.text


def test_held_out_clips_of_a_folder_in_folders(quick, data, tmp_path):
    voice = Checkpoint(quick(), {}, {"held_out": ["a/clip2", "b/clip6"]})
    for folder in "ab":
        shutil.copytree(data, tmp_path / folder)
    assert list(choose(voice, tmp_path, False)) == ["a/clip2", "b/clip6"]
    assert list(choose(voice, tmp_path / "a", False)) == ["clip2", "clip6"]


def test_baselines_and_other_voices_are_judged_by_the_same_clips(
    quick, voice, data, tmp_path, perfect
):
    torch.manual_seed(1)
    config = quick("name=other", "model.pre_emphasis=0.5")
    other = Checkpoint(config, WaveRNN(config.model, config.mel).state_dict())
    kept = tmp_path / "kept"
    result = evaluate(
        voice, data, tmp_path, clips=1, keep=kept, baselines=True, others={"small": other}
    )
    made = baselines.speakers(voice.config.mel, 0)
    assert result.keys() == set((BITS + KEYS).split()) | {"baselines", "compare"}
    assert result["baselines"].keys() == made.keys()
    assert result["compare"].keys() == {"small"}
    assert result["compare"]["small"].keys() == set((BITS + KEYS).split())
    assert result["compare"]["small"]["bits_per_sample"] != result["bits_per_sample"]
    for name in made:
        row = result["baselines"][name]
        assert row.keys() == set(KEYS.split())
        assert row["clips"] == 1
        assert 0 < row["mel_l1"] < 1.5
    names = {path.name for path in kept.iterdir()}
    assert names == {"clip6.flac", "clip6.small.flac"} | {f"clip6.{name}.flac" for name in made}


def test_clips_with_a_transcript_are_aligned(voice, data, tmp_path, perfect, monkeypatch, caplog):
    class Fake:
        def words(self, text):
            return text.split()

        def unknown(self, words):
            return []

        def score(self, samples_T, rate_hz, words):
            return 0.5 + 0.01 * len(words)

    monkeypatch.setattr(module, "missing_aligner", lambda: None)
    monkeypatch.setattr(module, "Aligner", Fake)
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "clip2.txt").write_text("a few words")
    caplog.set_level(logging.INFO)
    result = evaluate(voice, tmp_path / "data", tmp_path / "cache")
    assert (result["align"], result["align_ratio"], result["align_clips"]) == (0.53, 1.0, 1)
    assert "not aligned: clip6 has no transcript" in caplog.text
    monkeypatch.setattr(module, "missing_aligner", lambda: "no aligner here")
    result = evaluate(voice, tmp_path / "data", tmp_path / "cache")
    assert (result["align"], result["align_clips"]) == (None, 0)
    assert "no aligner here" in caplog.text


def test_voices_that_cannot_be_compared_are_refused(quick, voice, data, tmp_path):
    own = voice.config.name
    for others, sentence in (
        ({"small": Checkpoint(quick("mel.bands=8"), {})}, f"small takes another mel than {own}"),
        ({own: voice}, f"two voices are called {own}; give one file another name"),
        ({"world": voice}, "a voice can't be called world, as another vocoder is; rename it"),
    ):
        with pytest.raises(DataError, match=sentence):
            evaluate(voice, data, tmp_path / "cache", others=others)
    assert not (tmp_path / "cache").exists()


def test_recordings_of_one_name_in_two_folders_are_told_apart(
    quick, voice, data, tmp_path, perfect
):
    for folder in "ab":
        shutil.copytree(data, tmp_path / "data" / folder)
    evaluate(voice, tmp_path / "data", tmp_path / "cache", clips=4, keep=tmp_path / "kept")
    names = sorted(path.stem for path in (tmp_path / "kept").iterdir())
    assert names == ["a_clip2", "a_clip6", "b_clip2", "b_clip6"]


def test_a_metric_that_no_clip_has_is_none(voice, tmp_path, monkeypatch, data, perfect):
    monkeypatch.setattr(
        metrics, "compare", lambda *args: {"mel_l1": 1.0, "pesq": None, "f0_rmse_hz": None}
    )
    result = evaluate(voice, data, tmp_path / "cache")
    assert (result["mel_l1"], result["pesq"], result["f0_rmse_hz"]) == (1.0, None, None)


def test_the_mean_is_over_the_clips_that_have_a_metric(voice, tmp_path, monkeypatch, data, perfect):
    values = iter([4.0, None, 1.0])
    monkeypatch.setattr(metrics, "compare", lambda *args: {"f0_rmse_hz": next(values)})
    result = evaluate(voice, data, tmp_path / "cache", clips=3, every_clip=True)
    assert result["f0_rmse_hz"] == 2.5


def test_metrics_without_their_package_are_announced(
    voice, data, tmp_path, perfect, monkeypatch, caplog
):
    monkeypatch.setattr(module, "missing_metrics", lambda: ["PESQ is left out"])
    evaluate(voice, data, tmp_path / "cache", clips=1)
    assert "PESQ is left out" in caplog.text


def test_what_cannot_be_done_is_refused_before_the_work(voice, data, tmp_path):
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match="clips must be at least 1, got 0"):
        evaluate(voice, data, cache, clips=0)
    with pytest.raises(BackendUnavailable, match="unknown backend abacus"):
        evaluate(voice, data, cache, backend="abacus")
    with pytest.raises(DataError, match=r"doesn't exist; give a folder"):
        evaluate(voice, tmp_path / "none", cache, backend="reference")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"can't make the folder .*file"):
        evaluate(voice, data, cache, backend="reference", keep=tmp_path / "file")
    assert not cache.exists()


def test_a_temperature_is_that_of_what_is_said(voice, data, tmp_path):
    results = [
        evaluate(voice, data, tmp_path / "cache", clips=1, temperature=temperature)
        for temperature in (1.0, 0.1)
    ]
    for key in BITS.split():
        assert results[0][key] == results[1][key]
    assert results[0]["mel_l1"] != results[1]["mel_l1"]
