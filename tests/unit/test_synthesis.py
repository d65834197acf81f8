from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from wavernn.audio import FORMATS, read_audio
from wavernn.config import MelConfig
from wavernn.errors import AudioError, MelError
from wavernn.mel import LogMel
from wavernn.melfile import SUFFIXES, write_mel
from wavernn.scale import SCALES
from wavernn.synthesis import check_target, examine, input_mel, to_file, to_stdout
from wavernn.vocoder import Vocoder

CONFIG = MelConfig()


def as_scale(mel_NM, name):
    """The mel in the values of another project."""
    scale = SCALES[name]
    values = (mel_NM - scale.offset) / scale.slope if scale.logged else np.exp(mel_NM / scale.slope)
    limits = {"unit": (0, 1), "symmetric": (-4, 4), "symmetric1": (-1, 1)}
    return np.clip(values, *limits.get(name.removesuffix("-20"), (None, None))).astype(np.float32)


def test_a_recording_becomes_its_mel(tmp_path, voice, speech_T, speech_NM):
    soundfile.write(tmp_path / "a.wav", speech_T, 22_050, subtype="FLOAT")
    assert (input_mel(tmp_path / "a.wav", voice) == speech_NM).all()


@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (48_000, 2)])
def test_a_recording_of_another_rate_is_resampled(tmp_path, voice, rate_hz, channels):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate_hz // 4) / rate_hz)
    soundfile.write(tmp_path / "a.flac", np.stack([tone] * channels, 1), rate_hz)
    audio_T = read_audio(tmp_path / "a.flac", 22_050)
    mel_NM = input_mel(tmp_path / "a.flac", voice)
    assert len(mel_NM) == -(-22_050 // 4 // 256)
    assert (mel_NM == LogMel(CONFIG)(torch.from_numpy(audio_T)[None])[0].numpy()).all()


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".NPY"])
def test_a_mel_file_is_taken_as_it_is(tmp_path, voice, speech_NM, suffix):
    path = tmp_path / f"a{suffix}"
    write_mel(path, speech_NM, CONFIG)
    mel_NM = input_mel(path, voice)
    assert mel_NM.dtype == np.float32
    assert (mel_NM == speech_NM).all()
    assert examine(path, voice)[0]


@pytest.mark.parametrize("shape", ["bands first", "batch of one", "float64", "int"])
def test_a_mel_in_another_layout_is_brought_into_ours(tmp_path, voice, speech_NM, shape):
    laid_out = {
        "bands first": speech_NM.T,
        "batch of one": speech_NM.T[None],
        "float64": speech_NM.astype(np.float64),
        "int": speech_NM.round().astype(np.int64),
    }[shape]
    np.save(tmp_path / "a.npy", laid_out)
    expected_NM = speech_NM.round() if shape == "int" else speech_NM
    assert (input_mel(tmp_path / "a.npy", voice) == expected_NM).all()


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_few_frames_and_silence_are_enough(tmp_path, voice, speech_NM, frames):
    for mel_NM in (speech_NM[:frames], np.full((frames, 80), CONFIG.floor_value, np.float32)):
        np.save(tmp_path / "a.npy", mel_NM)
        assert (input_mel(tmp_path / "a.npy", voice) == mel_NM).all()


@pytest.mark.parametrize("name", ["log10", "ln-power", "ln-int16", "magnitude", "power"])
def test_another_dialect_is_refused_by_name(tmp_path, voice, speech_NM, name):
    np.save(tmp_path / "a.npy", as_scale(speech_NM, name))
    sentence = f"a.npy doesn't fit this voice: The values .* are {SCALES[name].what}, but the voice"
    with pytest.raises(MelError, match=f"{sentence} takes .*; convert them as {name}"):
        input_mel(tmp_path / "a.npy", voice)
    fits, findings = examine(tmp_path / "a.npy", voice)
    assert not fits
    assert findings[0].endswith(f"convert them as {name}.")


@pytest.mark.parametrize("name", ["db", "unit"])
def test_a_reference_level_is_told_by_the_statistics_of_the_voice(tmp_path, voice, speech_NM, name):
    np.save(tmp_path / "a.npy", as_scale(speech_NM, name))
    own = {"mean_M": speech_NM.mean(0), "deviation_M": speech_NM.std(0)}
    tensors = {f"conditioner.{k}": torch.from_numpy(v) for k, v in own.items()}
    trained = replace(voice, tensors={**voice.tensors, **tensors})
    with pytest.raises(MelError, match=f"but the voice takes .*; convert them as {name}"):
        input_mel(tmp_path / "a.npy", trained)


def with_value(mel_NM, value):
    changed_NM = mel_NM.copy()
    changed_NM[3, 5] = value
    return changed_NM


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m[:, :79], r"shape \[130, 79\].*the voice takes \[frames, 80\]"),
        (lambda m: m[0], r"The array has shape \[80\].*the voice takes \[frames, 80\]"),
        (lambda m: m[:0], r"The array has shape \[0, 80\]; the voice takes"),
        (lambda m: np.float32(3), r"The array has shape \[\]"),
        (lambda m: np.stack([m, m]), r"The array has shape \[2, 130, 80\]"),
        (lambda m: with_value(m, np.nan), "1 of 10400 values are NaN or infinite"),
        (lambda m: with_value(m, np.inf), "1 of 10400 values are NaN or infinite"),
        (lambda m: m.astype(complex), "The array holds complex128 values, not numbers"),
        (lambda m: m.astype(str), "The array holds <U.* values, not numbers"),
        (lambda m: m * 0 + 5, "All values are 5, which no recording gives"),
        (lambda m: m * 1000, "are no known kind of mel|are decibels"),
    ],
)
def test_an_array_that_is_no_mel_is_refused(tmp_path, voice, speech_NM, change, sentence):
    np.save(tmp_path / "a.npy", change(speech_NM))
    with pytest.raises(MelError, match=rf"a\.npy doesn't fit this voice: .*{sentence}") as raised:
        input_mel(tmp_path / "a.npy", voice)
    assert "\n" not in str(raised.value)
    assert not examine(tmp_path / "a.npy", voice)[0]


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        ({"hop_samples": 200}, "hop_samples is 200 in the specification, but the voice takes 256"),
        ({"sr": 16_000}, "sr is 16000 in the specification, but the voice takes 22050; resample"),
        ({"fmax": 11_025.0}, "fmax is 11025 in the specification, but the voice takes 8000"),
        ({"hop_length": 300, "n_fft": 2048}, "hop_length is 300 .* n_fft is 2048 "),
    ],
)
def test_a_declared_mismatch_is_refused(tmp_path, voice, speech_NM, declared, sentence):
    np.savez(tmp_path / "a.npz", mel=speech_NM, **declared)
    with pytest.raises(MelError, match=rf"a\.npz doesn't fit this voice: {sentence}"):
        input_mel(tmp_path / "a.npz", voice)
    fits, findings = examine(tmp_path / "a.npz", voice)
    assert not fits
    assert len(findings) == len(declared) + 1


def test_a_recording_is_examined_at_its_own_rate(tmp_path, voice, speech_T):
    soundfile.write(tmp_path / "a.wav", speech_T, 22_050)
    assert examine(tmp_path / "a.wav", voice)[0]
    soundfile.write(tmp_path / "b.wav", speech_T[::2], 11_025)
    fits, findings = examine(tmp_path / "b.wav", voice)
    assert fits
    assert findings[0].startswith("The rate is 11025 Hz, but the voice works at 22050 Hz")
    soundfile.write(tmp_path / "c.wav", np.zeros(5000), 22_050)
    assert examine(tmp_path / "c.wav", voice) == (True, ["The recording is silent."])


def test_what_cant_be_read_is_an_audio_error(tmp_path, voice):
    (tmp_path / "a.txt").write_text("hello")
    for call in (input_mel, examine):
        with pytest.raises(AudioError, match=r"a\.txt is not an audio file"):
            call(tmp_path / "a.txt", voice)
        with pytest.raises(AudioError, match=r"b\.wav doesn't exist"):
            call(tmp_path / "b.wav", voice)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_holds_all_of_it_at_the_rate_of_the_voice(tmp_path, voice, speech_NM, suffix):
    out, seen = tmp_path / f"a.{suffix}", []
    vocoder = Vocoder(voice, "reference")
    sentence = to_file(vocoder, [speech_NM[:2], speech_NM[2:3]], out, 5, 1.0, seen.append)
    assert sentence.startswith(f"{out}: 0.03 s of speech in ")
    assert (soundfile.info(out).samplerate, soundfile.info(out).frames) == (22_050, 768)
    assert seen == sorted(seen) and seen[-1] == 768
    if suffix != "ogg":
        expected_T = vocoder.synthesize(speech_NM[:3], 5)
        assert np.abs(read_audio(out, 22_050) - expected_T).max() <= 0.5 / 32768


def test_a_stream_is_what_the_file_holds(tmp_path, voice, speech_NM, capfdbinary):
    mel_NM = speech_NM[40:44]
    vocoder = Vocoder(voice, "reference")
    to_file(vocoder, [mel_NM], tmp_path / "a.wav", 1, 1.0)
    capfdbinary.readouterr()
    to_stdout(vocoder.stream([mel_NM], 1))
    streamed_T = np.frombuffer(capfdbinary.readouterr().out, "<i2")
    assert len(streamed_T) == 1024
    assert (streamed_T == soundfile.read(tmp_path / "a.wav", dtype="int16")[0]).all()


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("a.mp4", r"unknown audio format '\.mp4' of .*; known: wav, flac, ogg"),
        ("a", "unknown audio format '' of .*; known: wav, flac, ogg"),
        ("gone/a.wav", "the folder .*gone doesn't exist; make it first"),
        ("folder.wav", r"folder\.wav is a folder; give the path of the file to write"),
    ],
)
def test_an_impossible_target_is_refused_before_the_work(
    tmp_path, voice, speech_NM, place, sentence
):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioError, match=sentence):
        check_target(tmp_path / place)
    with pytest.raises(AudioError, match=sentence):
        to_file(Vocoder(voice, "reference"), _untouched(), tmp_path / place, 0, 1.0)


def _untouched():
    raise AssertionError("the mel was asked for")
    yield


def test_an_interrupted_synthesis_leaves_no_file(tmp_path, voice, speech_NM):
    def interrupt(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vocoder = Vocoder(voice, "reference")
        to_file(vocoder, [speech_NM[:2]], tmp_path / "a.wav", 0, 1.0, interrupt)
    assert not list(tmp_path.iterdir())
