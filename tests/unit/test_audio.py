import errno
import io
import os

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from wavernn import audio, files
from wavernn.audio import (
    FORMATS,
    de_emphasis,
    decode,
    encode,
    pack_audio,
    pre_emphasis,
    read_audio,
    write_audio,
)
from wavernn.errors import AudioError

ALL_16_BIT = np.arange(-32768, 32768).astype(np.int16)
NOISE = np.random.default_rng(0).permutation(ALL_16_BIT)


def sine(hz, rate_hz, seconds=1.0, level=0.5):
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def peak_hz(samples_T, rate_hz):
    spectrum = np.abs(np.fft.rfft(samples_T * np.hanning(len(samples_T))))
    return np.argmax(spectrum) * rate_hz / len(samples_T)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_every_16_bit_value_survives_a_file(tmp_path, suffix):
    path = tmp_path / f"all.{suffix}"
    write_audio(path, ALL_16_BIT, 22_050)
    samples_T = read_audio(path, 22_050)
    assert samples_T.dtype == np.float32
    assert (samples_T * 32768 == ALL_16_BIT).all()
    write_audio(path, samples_T, 22_050)
    assert (read_audio(path, 22_050) == samples_T).all()
    assert soundfile.info(path).subtype == "PCM_16"


def test_ogg_keeps_the_length_and_the_tone_of_a_long_recording(tmp_path):
    path = tmp_path / "tone.OGG"
    write_audio(path, sine(440, 22_050, 30), 22_050)
    samples_T = read_audio(path, 22_050)
    assert len(samples_T) == 30 * 22_050
    assert abs(peak_hz(samples_T, 22_050) - 440) < 1


def test_float_samples_are_rounded_and_clipped(tmp_path):
    write_audio(tmp_path / "a.wav", np.array([2.0, -2.0, 1.4 / 32768, -1.6 / 32768]), 8000)
    samples_T = read_audio(tmp_path / "a.wav", 8000)
    assert (samples_T * 32768 == [32767, -32768, 1, -2]).all()


@pytest.mark.parametrize("to_hz", [16_000, 22_050, 24_000])
@pytest.mark.parametrize(("from_hz", "channels"), [(8_000, 1), (44_100, 2), (48_000, 2)])
def test_other_rates_and_channels_are_converted(tmp_path, from_hz, channels, to_hz):
    path = tmp_path / "tone.wav"
    samples_TC = np.stack([sine(1000, from_hz)] * channels, axis=1)
    soundfile.write(path, samples_TC, from_hz)
    samples_T = read_audio(path, to_hz)
    assert abs(len(samples_T) - to_hz) <= 1
    assert abs(peak_hz(samples_T, to_hz) - 1000) <= to_hz / len(samples_T)
    middle_T = samples_T[to_hz // 4 : to_hz // 2]
    assert abs(np.abs(middle_T).max() - 0.5) < 0.01


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([[0.5, -0.25], [0.25, 0.25]]), 8000)
    assert (read_audio(tmp_path / "a.wav", 8000) == [0.125, 0.25]).all()


@pytest.mark.parametrize("to_hz", [4_000, 8_000, 22_050])
@pytest.mark.parametrize("T", [1, 2, 3])
def test_a_few_samples_are_enough(tmp_path, T, to_hz):
    write_audio(tmp_path / "a.wav", np.full(T, 0.5), 8000)
    samples_T = read_audio(tmp_path / "a.wav", to_hz)
    assert len(samples_T) >= 1
    assert np.isfinite(samples_T).all()


def test_an_open_file_can_be_read(tmp_path):
    packed = pack_audio(ALL_16_BIT, 8000, "flac")
    assert (read_audio(io.BytesIO(packed), 8000) * 32768 == ALL_16_BIT).all()
    for junk in (b"no audio", b"", packed[:50]):
        with pytest.raises(AudioError, match="the upload is not an audio file"):
            read_audio(io.BytesIO(junk), 8000)


@pytest.mark.parametrize("claimed", [0, 2**36 - 1])
def test_a_false_length_in_the_header_does_no_harm(tmp_path, claimed):
    packed = bytearray(pack_audio(NOISE, 8000, "flac"))
    # the 36 bits of STREAMINFO that hold the number of samples, 0 for unknown
    packed[21] = packed[21] & 0xF0 | claimed >> 32
    packed[22:26] = (claimed & 0xFFFFFFFF).to_bytes(4, "big")
    (tmp_path / "a.flac").write_bytes(packed)
    for source in (tmp_path / "a.flac", io.BytesIO(packed)):
        assert (read_audio(source, 8000) * 32768 == NOISE).all()


@pytest.mark.parametrize("kind", [*FORMATS, "mp3"])
def test_damaged_bytes_give_samples_or_a_sentence(tmp_path, kind, capfd):
    random = np.random.default_rng(0)
    path = tmp_path / "a"
    soundfile.write(path, sine(300, 8000, 0.3), 8000, format=kind.upper())
    packed = path.read_bytes()
    for _ in range(100):
        damaged = bytearray(packed[: random.integers(1, len(packed))])
        for place in random.integers(0, min(len(damaged), 80), 3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        for source in (path, io.BytesIO(damaged)):
            try:
                assert np.abs(read_audio(source, 8000)).max() <= 1
            except AudioError as error:
                assert "\n" not in str(error)
    # the decoder of mp3 may warn by itself, but no callback of ours may have failed
    assert "Traceback" not in capfd.readouterr().err


def float_wav(path, samples_T):
    soundfile.write(path, np.array(samples_T), 8000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "a.wav doesn't exist; give the path of an audio file"),
        (lambda path: path.mkdir(), "a.wav is a folder; give the path of an audio file"),
        (lambda path: path.write_bytes(b""), r"a.wav is empty \(0 bytes\)"),
        (lambda path: path.write_text("hello"), "a.wav is not an audio file .*convert it to wav"),
        (
            lambda path: path.write_bytes(pack_audio(NOISE, 8000, "flac")[:9000]),
            "a.wav is not an audio file that libsndfile can read .*flac decoder lost sync",
        ),
        (lambda path: soundfile.write(path, np.zeros(0), 8000), "a.wav holds no samples"),
        (lambda path: float_wav(path, [0.0, np.nan]), "a.wav holds NaN or infinite samples"),
        (lambda path: float_wav(path, [0.0, -np.inf]), "a.wav holds NaN or infinite samples"),
        (lambda path: float_wav(path, [0.0, -3e4]), "samples up to 30000, expected at most 1"),
    ],
    ids=["missing", "folder", "empty", "text", "cut", "no samples", "nan", "inf", "scale"],
)
def test_what_cannot_be_read_is_named_in_a_sentence(tmp_path, make, sentence):
    path = tmp_path / "a.wav"
    make(path)
    with pytest.raises(AudioError, match=sentence) as raised:
        read_audio(path, 8000)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(errno.EACCES, "denied"), "can't be opened: no permission to read it"),
        (OSError(errno.EIO, "Input/output error"), "can't be read: Input/output error"),
    ],
)
def test_a_file_that_cannot_be_opened_is_named(tmp_path, monkeypatch, error, sentence):
    def refuse(*args):
        raise error

    # root may open anything, so a mode of 000 wouldn't do
    monkeypatch.setattr(audio, "open", refuse, raising=False)
    with pytest.raises(AudioError, match=sentence):
        read_audio(tmp_path / "a.wav", 8000)


def test_a_rate_must_be_positive(tmp_path):
    with pytest.raises(AudioError, match="must be positive, got 0 Hz"):
        read_audio(tmp_path / "a.wav", 0)
    with pytest.raises(AudioError, match="must be positive, got -1 Hz"):
        write_audio(tmp_path / "a.wav", ALL_16_BIT, -1)


@pytest.mark.parametrize(
    ("name", "samples_T", "sentence"),
    [
        ("a.xyz", np.zeros(3), "unknown audio format 'xyz'; known: wav, flac, ogg"),
        ("a", np.zeros(3), "unknown audio format ''; known"),
        ("no/a.wav", np.zeros(3), "the folder .*no doesn't exist; make it first"),
        ("folder.wav", np.zeros(3), "folder.wav is a folder; give the path of the file"),
        ("a.wav", np.zeros(0), r"must have shape \[samples\], got \[0\]"),
        ("a.wav", np.zeros((3, 2)), r"must have shape \[samples\], got \[3, 2\]"),
        ("a.wav", np.array([0.0, np.nan]), "samples are NaN or infinite"),
        ("a.wav", np.zeros(3, np.int32), r"floats in \[-1, 1\] or int16, got int32"),
    ],
)
def test_what_cannot_be_written_is_named_in_a_sentence(tmp_path, name, samples_T, sentence):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioError, match=sentence):
        write_audio(tmp_path / name, samples_T, 8000)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.wav"]


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "a.wav"
    write_audio(path, ALL_16_BIT, 8000)
    before = path.read_bytes()

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files if call == "open" else os, call, fail, raising=call != "open")
    with pytest.raises(AudioError, match=r"a.wav can't be written: No space left on device"):
        write_audio(path, ALL_16_BIT[:100], 8000)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_audio(tmp_path / "a.wav", ALL_16_BIT, 8000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", FORMATS)
def test_packed_bytes_are_those_of_the_file(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    write_audio(path, ALL_16_BIT, 16_000)
    assert soundfile.info(path).samplerate == 16_000
    # an ogg stream carries a random serial number
    if kind != "ogg":
        assert path.read_bytes() == pack_audio(ALL_16_BIT, 16_000, kind)


def test_codes_of_every_16_bit_value():
    codes_T2 = encode(ALL_16_BIT)
    assert codes_T2.dtype == np.uint8
    assert (codes_T2[:, 0] == np.repeat(np.arange(256), 256)).all()
    assert (codes_T2[:, 1] == np.tile(np.arange(256), 256)).all()
    samples_T = decode(codes_T2)
    assert samples_T.dtype == np.float32
    assert (samples_T.astype(np.float64) * 32768 == ALL_16_BIT).all()
    for dtype in (np.float32, np.float64):
        assert (encode(samples_T.astype(dtype)) == codes_T2).all()


def test_codes_keep_leading_axes_round_and_clip():
    samples = np.array([[0.0, 1.5, -1.5], [0.6 / 32768, 0.4 / 32768, -0.6 / 32768]])
    codes = encode(samples)
    assert codes.tolist() == [
        [[128, 0], [255, 255], [0, 0]],
        [[128, 1], [128, 0], [127, 255]],
    ]
    assert decode(codes).shape == (2, 3)


def test_codes_of_unusable_samples_are_refused():
    with pytest.raises(AudioError, match="NaN or infinite"):
        encode(np.array([np.nan]))
    with pytest.raises(AudioError, match=r"floats in .* or int16, got int64"):
        encode(np.array([5]))


def filtered(function, samples_T, a, cuts, memory):
    parts, start = [], 0
    for stop in [*sorted(cuts), len(samples_T)]:
        part_T, memory = function(samples_T[start:stop], a, memory)
        parts.append(part_T)
        start = stop
    return np.concatenate(parts), memory


@pytest.mark.parametrize("function", [pre_emphasis, de_emphasis])
@given(T=st.integers(0, 500), cuts=st.lists(st.integers(0, 500), max_size=9), a=st.floats(0, 0.99))
def test_emphasis_is_bit_equal_however_it_is_cut(function, T, cuts, a):
    samples_T = np.random.default_rng(T).standard_normal(T)
    whole_T, memory = function(samples_T, a, 0.3)
    cuts = [min(cut, T) for cut in cuts]
    cut_T, cut_memory = filtered(function, samples_T, a, cuts, 0.3)
    assert whole_T.dtype == np.float64
    assert whole_T.tobytes() == cut_T.tobytes()
    assert memory == cut_memory


def test_emphasis_follows_its_equation():
    x_T = np.random.default_rng(0).uniform(-1, 1, 50)
    y_T, last_x = pre_emphasis(x_T, 0.85, 0.25)
    assert y_T[0] == x_T[0] - 0.85 * 0.25
    assert (y_T[1:] == x_T[1:] - 0.85 * x_T[:-1]).all()
    assert last_x == x_T[-1]
    restored_T, last_x = de_emphasis(y_T, 0.85, 0.25)
    np.testing.assert_allclose(restored_T, x_T, rtol=0, atol=1e-14)
    assert last_x == restored_T[-1]


def test_no_emphasis_changes_nothing():
    x_T = np.random.default_rng(0).uniform(-1, 1, 50)
    assert (pre_emphasis(x_T, 0.0)[0] == x_T).all()
    assert (de_emphasis(x_T, 0.0)[0] == x_T).all()


def test_the_modelled_signal_comes_back_to_within_its_rounding(tmp_path):
    x_T = sine(300, 22_050, 0.5)
    codes_T2 = encode(pre_emphasis(x_T, 0.85)[0])
    restored_T, _ = de_emphasis(decode(codes_T2), 0.85)
    # an error of half a step, summed up over 1 + a + a^2 + ...
    assert np.abs(restored_T - x_T).max() <= 0.5 / 32768 / (1 - 0.85) + 1e-12
