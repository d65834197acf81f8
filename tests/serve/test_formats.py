import io
import struct
import sys
import threading
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from wavernn.serve import formats
from wavernn.serve.formats import FORMATS, Encoder, UnavailableFormat, wav_header

RATE_HZ = 22_050
LOSSY = ("opus", "mp3", "aac")
# in samples; the last is a channel's turn of the engine
BLOCKS = {"ones": (1,), "sevens": (7,), "mixed": (3, 1000, 0, 220, 64), "whole": (1 << 30,)}


def require(name: str) -> None:
    if name not in ("wav", "pcm"):
        pytest.importorskip("av", reason="only wav and pcm can be made without av")


def speech(seconds: float = 1.0) -> np.ndarray:
    """A gliding voice: 30 harmonics in four syllables a second, and noise 40 dB below."""
    t = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    phase = 2 * np.pi * (120 * t + 15 * t**2)
    voice = sum(np.sin(k * phase) / k for k in range(1, 31))
    noise = np.random.default_rng(7).standard_normal(t.size)
    return (0.2 * voice * np.sin(4 * np.pi * t) ** 2 + 0.002 * noise).astype(np.float32)


def cut(samples: np.ndarray, sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    start = 0
    for size in cycle(sizes):
        if start >= samples.size:
            return
        yield samples[start : start + size]
        start += size


def made(
    name: str,
    samples: np.ndarray,
    out_rate_hz: int | None = None,
    total: int | None = None,
    sizes: tuple[int, ...] = (220,),
) -> bytes:
    require(name)
    encoder = Encoder(name, RATE_HZ, out_rate_hz, total)
    parts = [encoder.encode(block) for block in cut(samples, sizes)]
    return b"".join(parts) + encoder.finish()


def decoded(name: str, data: bytes) -> tuple[np.ndarray, int]:
    """Samples in [-1, 1] and their rate, from FFmpeg's decoder."""
    av = pytest.importorskip("av")
    if name == "pcm":
        return np.frombuffer(data, "<i2") / 32768, RATE_HZ
    with av.open(io.BytesIO(data)) as file:
        frames = list(file.decode(audio=0))
    parts = [frame.to_ndarray().ravel() for frame in frames]
    samples = np.concatenate(parts)
    scale = 32768 if samples.dtype == np.int16 else 1
    return samples / scale, frames[0].sample_rate


def values(samples: np.ndarray) -> np.ndarray:
    return np.rint(samples * 32768.0).clip(-32768, 32767).astype(np.int16)


def test_the_table_has_the_names_and_types_of_openai():
    assert {name: format.mime for name, format in FORMATS.items()} == {
        "wav": "audio/wav",
        "pcm": "audio/pcm",
        "flac": "audio/flac",
        "opus": "audio/opus",
        "mp3": "audio/mpeg",
        "aac": "audio/aac",
    }


def test_wav_of_known_length_is_what_the_standard_library_writes():
    samples = speech(0.3)
    file = io.BytesIO()
    with wave.open(file, "wb") as expected:
        expected.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        expected.writeframes(values(samples).tobytes())
    assert made("wav", samples, total=samples.size) == file.getvalue()


@pytest.mark.parametrize("total", [None, 1 << 31])
def test_a_size_that_is_unknown_or_beyond_4_gib_is_all_ones_in_both_places(total: int | None):
    header = wav_header(RATE_HZ, total)
    assert len(header) == 44
    assert struct.unpack("<I", header[4:8]) == struct.unpack("<I", header[40:44]) == (0xFFFFFFFF,)
    assert wav_header(RATE_HZ, 1000)[4:8] == struct.pack("<I", 2036)


def test_one_header_comes_with_the_first_call_and_no_other():
    encoder = Encoder("wav", RATE_HZ)
    assert len(encoder.encode(np.zeros(0, np.float32))) == 44
    assert len(encoder.encode(np.zeros(5, np.float32))) == 10
    assert encoder.finish() == b""


@pytest.mark.parametrize("name", ["pcm", "wav", "flac"])
def test_lossless_formats_hold_the_rounded_samples(name: str):
    half = 0.5 / 32768
    edges = np.array([1, -1, 1.5, -1.5, half, 3 * half, -half, -3 * half, 0.25], np.float32)
    samples = np.concatenate([edges, speech(0.4)])
    result, rate_hz = decoded(name, made(name, samples))
    assert rate_hz == RATE_HZ
    expected = values(samples)
    assert expected[:8].tolist() == [32767, -32768, 32767, -32768, 0, 2, 0, -2]
    np.testing.assert_array_equal(result * 32768, expected)


@pytest.mark.parametrize("out_rate_hz", [None, 8_000, 24_000, 44_100])
@pytest.mark.parametrize("name", ["wav", "pcm", "flac"])
def test_bytes_are_the_same_however_samples_are_cut(name: str, out_rate_hz: int | None):
    samples = speech(0.7)[:-3]
    results = {made(name, samples, out_rate_hz, None, sizes) for sizes in BLOCKS.values()}
    assert len(results) == 1


@pytest.mark.parametrize("name", LOSSY)
def test_codecs_give_as_many_samples_however_theirs_are_cut(name: str):
    samples = speech(0.7)[:-3]
    lengths = {decoded(name, made(name, samples, sizes=s))[0].size for s in BLOCKS.values()}
    assert len(lengths) == 1


@pytest.mark.parametrize("out_rate_hz", [8_000, 16_000, 24_000, 48_000])
def test_another_rate_is_the_whole_signal_resampled(out_rate_hz: int):
    soxr = pytest.importorskip("soxr")
    samples = speech(0.5)
    expected = values(soxr.resample(samples, RATE_HZ, out_rate_hz, quality="HQ"))
    result = np.frombuffer(made("pcm", samples, out_rate_hz), "<i2")
    assert result.size == expected.size
    # soxr's other form rounds its sums in another order
    assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("samples", [0, 1, 2, 59, 221, 22_049])
@pytest.mark.parametrize("out_rate_hz", [None, 8_000, 24_000, 48_000])
@pytest.mark.parametrize("known", [True, False])
def test_the_number_of_samples_is_the_nearest(samples: int, out_rate_hz: int | None, known: bool):
    total = samples if known else None
    encoder = Encoder("wav", RATE_HZ, out_rate_hz, total)
    data = b"".join(encoder.encode(block) for block in cut(speech()[:samples], (100,)))
    data += encoder.finish()
    expected = 44 + 2 * int(samples * (out_rate_hz or RATE_HZ) / RATE_HZ + 0.5)
    assert len(data) == expected
    assert encoder.content_length == (expected if known else None)
    if known:
        with wave.open(io.BytesIO(data)) as file:
            assert file.getnframes() == (expected - 44) / 2


@pytest.mark.parametrize("out_rate_hz", [None, 24_000])
@pytest.mark.parametrize("fed", [0, 900, 1100, 5000])
def test_sizes_stay_true_when_more_or_fewer_samples_come(fed: int, out_rate_hz: int | None):
    samples = speech()[4000 : 4000 + fed]
    data = made("wav", samples, out_rate_hz, total=1000)
    with wave.open(io.BytesIO(data)) as file:
        result = np.frombuffer(file.readframes(1 << 20), "<i2")
    assert len(data) == 44 + 2 * result.size
    free = np.frombuffer(made("pcm", samples, out_rate_hz), "<i2")
    count = min(free.size, result.size)
    np.testing.assert_array_equal(result[:count], free[:count])
    assert not result[count:].any()


def test_flac_tells_its_length_where_it_is_known():
    soundfile = pytest.importorskip("soundfile")
    samples = speech(0.5)
    data = made("flac", samples, 24_000, samples.size)
    result, rate_hz = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate_hz == 24_000
    pcm = np.frombuffer(made("pcm", samples, 24_000), "<i2")
    np.testing.assert_array_equal(result, pcm)


# the most that a decoder may give beyond the input, as it doesn't know of the codec's delay
@pytest.mark.parametrize(("name", "beyond_s"), [("opus", 0.0), ("mp3", 0.08), ("aac", 0.10)])
@pytest.mark.parametrize("out_rate_hz", [None, 16_000, 48_000])
def test_codecs_give_back_the_signal(name: str, beyond_s: float, out_rate_hz: int | None):
    soxr = pytest.importorskip("soxr")
    samples = speech(1.5)
    result, rate_hz = decoded(name, made(name, samples, out_rate_hz))
    reference = soxr.resample(samples, RATE_HZ, rate_hz)
    beyond = result.size - reference.size
    assert -1 <= beyond <= beyond_s * rate_hz * (1 if out_rate_hz is None else 1.4)
    inner = reference[: result.size - 4000]
    lag = np.correlate(result, inner, "valid").argmax()
    assert np.corrcoef(result[lag : lag + inner.size], inner)[0, 1] > 0.98


@pytest.mark.parametrize("name", LOSSY)
def test_the_signal_of_a_codec_is_not_late_by_more_than_its_delay(name: str):
    click = np.zeros(RATE_HZ, np.float32)
    click[8000:8040] = 0.9
    result, rate_hz = decoded(name, made(name, click))
    late_s = np.abs(result).argmax() / rate_hz - 8000 / RATE_HZ
    # opus tells decoders of its delay
    assert -0.001 <= late_s <= {"opus": 0.003, "mp3": 0.06, "aac": 0.055}[name]


def test_a_rate_that_a_codec_lacks_is_raised_to_its_next():
    require("opus")
    assert Encoder("opus", 22_050).rate_hz == 24_000
    assert Encoder("opus", 96_000).rate_hz == 48_000
    assert Encoder("mp3", 22_050).rate_hz == 22_050
    assert Encoder("flac", 22_050).rate_hz == 22_050


@pytest.mark.parametrize(
    ("name", "rate_hz", "sentence"),
    [
        ("opus", 22_050, r"opus can't have 22050 Hz; ask for one of 8000, 12000, .*48000"),
        ("mp3", 96_000, r"mp3 can't have 96000 Hz"),
        ("wav", 7_999, r"8000 to 48000 Hz was expected, got 7999"),
        ("pcm", 48_001, r"8000 to 48000 Hz was expected, got 48001"),
        ("pcm", 0, r"8000 to 48000 Hz was expected, got 0"),
    ],
)
def test_a_rate_that_cannot_be_had_is_refused(name: str, rate_hz: int, sentence: str):
    require(name)
    with pytest.raises(UnavailableFormat, match=sentence):
        Encoder(name, RATE_HZ, rate_hz)


def test_an_unknown_format_is_refused_with_the_known_ones():
    with pytest.raises(UnavailableFormat, match=r"'ogg'; known: wav, pcm, flac, opus, mp3, aac"):
        Encoder("ogg", RATE_HZ)


def test_without_av_only_wav_and_pcm_are_made(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for name in ("wav", "pcm"):
        assert formats.unavailable(name) is None
        assert made(name, speech(0.1), 24_000)
    for name in ("flac", *LOSSY):
        sentence = rf"format {name} needs the package av.*pip install 'wavernn\[codecs\]'"
        with pytest.raises(UnavailableFormat, match=sentence):
            Encoder(name, RATE_HZ)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("end", ["finish", "close"])
def test_an_ended_encoder_takes_nothing_more(name: str, end: str):
    require(name)
    with Encoder(name, RATE_HZ) as encoder:
        encoder.encode(speech(0.1))
        getattr(encoder, end)()
        with pytest.raises(ValueError, match="finished or closed"):
            encoder.encode(speech(0.1))
        with pytest.raises(ValueError, match="finished or closed"):
            encoder.finish()


@pytest.mark.parametrize("name", FORMATS)
def test_an_encoder_may_be_closed_while_another_thread_uses_it(name: str):
    require(name)
    samples = speech(0.5)

    def encode(encoder: Encoder, begun: threading.Event) -> None:
        with pytest.raises(ValueError, match="finished or closed"):
            while True:
                encoder.encode(samples)
                begun.set()

    with ThreadPoolExecutor(1) as threads:
        for _ in range(10):
            encoder, begun = Encoder(name, RATE_HZ), threading.Event()
            result = threads.submit(encode, encoder, begun)
            assert begun.wait(20)
            encoder.close()
            result.result(20)


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_without_samples_ends(name: str):
    data = made(name, speech()[:0], sizes=(1,))
    assert len(data) <= 200


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("name", FORMATS)
def test_encoders_dropped_in_mid_stream_leave_nothing(name: str):
    require(name)
    samples = speech(0.2)

    def drop(count: int) -> int:
        for _ in range(count):
            Encoder(name, RATE_HZ, 24_000).encode(samples)
            Encoder(name, RATE_HZ).encode(samples)
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = drop(60)
    # the smallest codec holds 60 kB, so that 120 kept ones would be 7 MB
    assert drop(60) - before < 2_000_000


def first_audio(name: str, out_rate_hz: int | None, block: int = 55) -> tuple[float, float]:
    """Milliseconds of audio fed until bytes come, and until FFmpeg makes samples of them."""
    av = pytest.importorskip("av")
    encoder = Encoder(name, RATE_HZ, out_rate_hz)
    data = encoder.encode(np.zeros(0, np.float32))
    header = len(data)
    first_ms = 0.0
    for count, part in enumerate(cut(speech(2), (block,)), 1):
        data += encoder.encode(part)
        fed_ms = count * block / RATE_HZ * 1e3
        if len(data) == header:
            continue
        first_ms = first_ms or fed_ms
        try:
            if decoded(name, data)[0].size:
                return first_ms, fed_ms
        except (av.FFmpegError, ValueError, IndexError):
            # not yet a frame
            continue
    raise AssertionError(f"two seconds of {name} gave no sample")


def cost(name: str, out_rate_hz: int | None, seconds: int = 20) -> float:
    """Milliseconds of processor time for a second of audio in blocks of 10 ms."""
    encoder = Encoder(name, RATE_HZ, out_rate_hz)
    blocks = list(cut(speech(seconds), (220,)))
    start = time.process_time()
    for block in blocks:
        encoder.encode(block)
    encoder.finish()
    return (time.process_time() - start) / seconds * 1e3


@pytest.mark.parametrize(
    ("name", "out_rate_hz", "first_ms"),
    [
        ("wav", None, 3),
        ("wav", 24_000, 46),
        ("pcm", None, 3),
        ("pcm", 24_000, 46),
        ("flac", None, 27),
        ("flac", 24_000, 66),
        ("opus", None, 26),
        ("opus", 48_000, 26),
        ("mp3", None, 56),
        ("mp3", 24_000, 56),
        ("aac", None, 96),
        ("aac", 48_000, 48),
    ],
)
def test_first_bytes_come_early(name: str, out_rate_hz: int | None, first_ms: float):
    require(name)
    bytes_ms, decodable_ms = first_audio(name, out_rate_hz)
    # shown by `pytest -s -k early`
    row = f"{out_rate_hz or '-'} | {bytes_ms:.0f} | {decodable_ms:.0f}"
    print(f"\n| {name} | {row} | {cost(name, out_rate_hz):.1f} |")
    assert bytes_ms <= first_ms
    # FFmpeg looks for the start of a second frame of mp3
    assert decodable_ms <= first_ms + (30 if name == "mp3" else 0)
