import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile


def sine(samples, rate_hz=22_050, hz=300):
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(samples) / rate_hz)


def one_json(out):
    (line,) = out.splitlines()
    return json.loads(line, parse_constant=pytest.fail)


def wav(samples_T, rate_hz=22_050, **options):
    return lambda path: soundfile.write(path, samples_T, rate_hz, **options)


def sweep(samples):
    time = np.arange(samples) / 22_050
    return 0.5 * np.sin(2 * np.pi * (50 * time + 0.5 * 10_000 / time[-1] * time**2))


ODD_BUT_GOOD = {
    "sweep.wav": wav(sweep(900)),
    "silence.flac": wav(np.zeros(700)),
    "clipped.wav": wav(np.clip(5 * sine(700), -1, 1)),
    "overload.wav": wav(3 * sine(700), subtype="FLOAT"),
    "8k.wav": wav(sine(300, 8_000), 8_000),
    "48k.wav": wav(np.stack([sine(1500, 48_000), sine(1500, 48_000, 500)], 1), 48_000),
    "one.wav": wav([0.5]),
    "two.ogg": wav([0.5, -0.5]),
    "no suffix": wav(sine(300), format="WAV"),
    "one-frame.npy": lambda path: np.save(path, np.full((1, 80), -11.5129, np.float32)),
}


@pytest.mark.parametrize("name", ODD_BUT_GOOD)
def test_odd_recordings_give_sound(tmp_path, voice, wavernn, name):
    ODD_BUT_GOOD[name](tmp_path / name)
    out = tmp_path / "out.flac"
    done = wavernn("synth", voice, tmp_path / name, "-o", out, "--backend", "reference")
    assert done.code == 0
    assert np.isfinite(soundfile.read(out)[0]).all()
    assert soundfile.info(out).samplerate == 22_050
    done = wavernn("doctor", tmp_path / name, "--voice", voice, "--json")
    assert (done.code, done.err) == (0, "")
    assert one_json(done.out)["fits"] is True


def unreadable(path):
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    path.write_bytes(b"x")
    path.chmod(0)


def mel(change, **declared):
    def make(path, mel_NM):
        np.savez(path, mel=change(mel_NM), **declared)

    return make


LN10 = np.log(10)
BAD_INPUT = {
    "empty.wav": (
        lambda p: p.write_bytes(b""),
        r"is empty \(0 bytes\); an audio file was expected",
    ),
    "no-samples.wav": (wav(np.zeros(0)), "holds no samples"),
    "nan.wav": (wav([0.1, np.nan], subtype="FLOAT"), "holds NaN or infinite samples; export it"),
    "int.wav": (
        wav([3.0, 32767.0], subtype="FLOAT"),
        "has samples up to 32767, expected at most 1",
    ),
    "text.wav": (lambda p: p.write_text("hello"), "is not an audio file that libsndfile can read"),
    "folder": (lambda p: p.mkdir(), "is a folder; give the path of an audio file"),
    "folder.npz": (lambda p: p.mkdir(), "can't read .*: Is a directory"),
    "unreadable.wav": (unreadable, "can't be opened: no permission to read it"),
    "unreadable.npy": (unreadable, "can't read .*: Permission denied"),
    "missing.wav": (lambda p: None, "doesn't exist; give the path of an audio file"),
    "missing.npy": (lambda p: None, "doesn't exist; give the path of a mel or an audio file"),
    "text.npy": (lambda p: p.write_text("hello"), "is not a mel file that can be read"),
    "objects.npy": (lambda p: np.save(p, [{}]), "is not a mel file that can be read"),
    "empty.safetensors": (lambda p: p.write_bytes(b""), "is not a mel file that can be read"),
    "name.npz": (lambda p: np.savez(p, x=np.zeros(3)), "holds x; expected an array called mel"),
    "bands.npz": (mel(lambda m: m[:, :64]), r"shape \[63, 64\].* takes \[frames, 80\]"),
    "rank.npz": (mel(lambda m: m[0]), r"shape \[80\].* takes \[frames, 80\]"),
    "empty.npz": (mel(lambda m: m[:0]), r"shape \[0, 80\]"),
    "nan.npz": (mel(lambda m: np.where(m > 0, m, np.nan)), "values are NaN or infinite"),
    "log10.npz": (mel(lambda m: m / LN10), "logarithms to base 10 of magnitude, but .* as log10"),
    "db.npz": (mel(lambda m: 20 * m / LN10), "are decibels, but .* convert them as db"),
    "unit.npz": (mel(lambda m: np.clip(1 + m / LN10 / 5, 0, 1)), "-100 .. 0 dB mapped to 0 .. 1"),
    "hop.npz": (mel(lambda m: m, hop_length=200), "hop_length is 200 .* the voice takes 256"),
    "rate.npz": (mel(lambda m: m, sr=16_000), "sr is 16000 .* the voice takes 22050"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_a_sentence(tmp_path, voice, wavernn, mel_NM, name):
    make, sentence = BAD_INPUT[name]
    make(*([tmp_path / name, mel_NM] if make.__name__ == "make" else [tmp_path / name]))
    before = sorted(tmp_path.iterdir())
    done = wavernn("synth", voice, tmp_path / name, "-o", tmp_path / "out.wav")
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(rf"wavernn: [^\n]*{sentence}[^\n]*\n", done.err)
    assert str(tmp_path / name) in done.err
    assert sorted(tmp_path.iterdir()) == before
    assert wavernn("synth", voice, tmp_path / name, "--stream").out == ""
    done = wavernn("doctor", tmp_path / name, "--voice", voice, "--json")
    assert done.code == 2
    # what can be read has findings, what can't has an error
    said = " ".join(one_json(done.out)["findings"]) if done.out else done.err
    assert re.search(sentence, said)
    assert not (done.out and done.err)


@pytest.fixture
def data(tmp_path):
    """A folder of recordings, and some that hold none."""
    for name in ("good", "empty", "short"):
        (tmp_path / name).mkdir()
    for name in "abc":
        soundfile.write(tmp_path / "good" / f"{name}.wav", sine(600), 22_050)
        soundfile.write(tmp_path / "short" / f"{name}.wav", sine(9), 22_050)
    (tmp_path / "text").write_text("hello")
    return tmp_path


SYNTH = "synth {voice} good/a.wav -o out.wav"
TRAIN = "train tiny --data good --out run --set train.steps=1"
BAD_USE = [
    (
        "synth {voice} good/a.wav -o out.mp4",
        r"unknown audio format '\.mp4' of out\.mp4; known: wav",
    ),
    ("synth {voice} good/a.wav -o out", "unknown audio format '' of out; known: wav, flac, ogg"),
    ("synth {voice} good/a.wav -o gone/out.wav", "the folder gone doesn't exist; make it first"),
    ("synth {voice} good/a.wav -o text/out.wav", "the folder text doesn't exist; make it first"),
    ("synth {voice} good/a.wav -o good.wav", "good.wav is a folder; give the path of the file"),
    ("synth nobody good/a.wav -o out.wav", "unknown voice nobody; shipped: "),
    ("synth gone.safetensors good/a.wav -o out.wav", "no checkpoint at gone.safetensors; give the"),
    ("synth text good/a.wav -o out.wav", "text is not a wavernn checkpoint; expected a safetensor"),
    ("synth damaged good/a.wav -o out.wav", "damaged is damaged: its sha256 doesn't match; copy"),
    ("synth cut good/a.wav -o out.wav", "cut is truncated by 100 bytes; copy the checkpoint again"),
    (f"{SYNTH} --backend quantum", "unknown backend quantum; known: gpu, cpu, reference, auto"),
    (f"{SYNTH} --backend reference --format int8", "the reference has no format int8; known: fl"),
    (f"{SYNTH} --backend cpu --format int4", "the cpu engine has no format int4|native engine"),
    (
        f"{SYNTH} --backend gpu --format int4",
        "the gpu engine has no format int4|an NVIDIA GPU, and",
    ),
    ("info nobody", "unknown voice nobody; shipped: "),
    ("info damaged --json", "damaged is damaged: its sha256 doesn't match; copy it again"),
    ("doctor good/a.wav --voice damaged", "damaged is damaged: its sha256 doesn't match; copy"),
    ("bench damaged", "damaged is damaged: its sha256 doesn't match; copy it again"),
    ("bench --recipe huge", "unknown recipe huge; shipped: .*tiny"),
    ("bench {voice} --backend quantum", "unknown backend quantum; known: gpu"),
    ("bench {voice} --backend reference --format int4", "the reference has no format int4; known"),
    (
        "bench {voice} --backend gpu --format int4",
        "the gpu engine has no format int4|an NVIDIA GPU",
    ),
    ("bench {voice} --end-to-end --backend quantum", "unknown backend quantum; known: gpu"),
    ("bench damaged --end-to-end", "damaged is damaged: its sha256 doesn't match; copy it again"),
    ("tune nobody", "unknown voice nobody; shipped: "),
    ("tune {voice} --backend quantum", "unknown backend quantum; known: gpu"),
    ("tune {voice} --backend reference --format int8", "the reference has no format int8; known"),
    ("eval {voice} good --backend reference --format int8", "the reference has no format int8"),
    ("eval {voice} empty", "empty holds no recordings; expected files that end in .wav"),
    ("eval {voice} gone", "expected a folder of recordings, but gone doesn't exist; give a folder"),
    ("eval {voice} text", "expected a folder of recordings, but text is a file; give a folder"),
    ("eval damaged good", "damaged is damaged: its sha256 doesn't match; copy it again"),
    ("eval {voice} good --keep text", "text: File exists"),
    ("train huge --data good --out run", "unknown recipe huge; shipped: .*tiny; or give a .toml"),
    ("train gone.toml --data good --out run", "can't read recipe gone.toml: No such file"),
    ("train tiny --data empty --out run", "empty holds no recordings; expected files that end in"),
    ("train tiny --data gone --out run", "but gone doesn't exist; give a folder"),
    ("train tiny --data text --out run", "but text is a file; give a folder"),
    (f"{TRAIN} --set train.batch", "an override looks like model.hidden=512, got 'train.batch'"),
    (f"{TRAIN} --set model.hiden=8", "unknown key model.hiden; known: hidden, projection"),
    (f"{TRAIN} --set model.hidden=7", "model.hidden must be even, got 7"),
    (f"{TRAIN} --set model.hidden=big", "model.hidden must be int, got 'big'"),
    (f"{TRAIN} --set model.hidden=999999999", r"model.hidden must lie in 1..65536, got 999999999"),
    (f"{TRAIN} --init-from nobody", "unknown voice nobody; shipped: "),
    (f"{TRAIN} --set train.slice_samples=25600", "slice_samples"),
    ("train tiny --data good --out text", "text"),
    ("train tiny --data good --out text/run", "text/run"),
]


@pytest.mark.parametrize(("line", "sentence"), BAD_USE, ids=[line for line, _ in BAD_USE])
def test_bad_use_is_a_sentence(data, voice, wavernn, monkeypatch, line, sentence):
    monkeypatch.chdir(data)
    content = bytearray(voice.read_bytes())
    Path("cut").write_bytes(content[:-100])
    content[-7] ^= 1
    Path("damaged").write_bytes(content)
    Path("good.wav").mkdir()
    done = wavernn(*line.format(voice=voice).split())
    assert (done.code, done.out) == (2, "")
    assert re.search(rf"^wavernn: [^\n]*{sentence}[^\n]*\n\Z", done.err, re.M)
    assert "Traceback" not in done.err
    assert not [path for path in data.rglob("*") if path.suffix in (".tmp", ".mp4")]
    assert not (data / "out.wav").exists()


@pytest.mark.parametrize(
    "options",
    [
        "--seed -1",
        "--seed 18446744073709551616",
        "--seed 1.5",
        "--seed many",
        "--temperature 0",
        "--temperature -1",
        "--temperature nan",
        "--temperature inf",
        "--stream",
        "--loud",
    ],
)
def test_wrong_options_are_wrong_use(data, voice, wavernn, monkeypatch, options):
    monkeypatch.chdir(data)
    done = wavernn(*SYNTH.format(voice=voice).split(), *options.split())
    assert (done.code, done.out) == (2, "")
    assert options.split()[0] in done.err
    assert "Traceback" not in done.err
    assert not (data / "out.wav").exists()


@pytest.mark.parametrize(
    "line",
    [
        "bench {voice} --threads -1",
        "bench {voice} --threads 1025",
        "bench {voice} --seconds 0",
        "bench {voice} --seconds inf",
        "bench --table --json",
        "tune {voice} --threads 0",
        "eval {voice} good --threads 0",
        f"{SYNTH} --threads 0",
    ],
)
def test_wrong_numbers_are_wrong_use(data, voice, wavernn, monkeypatch, line):
    monkeypatch.chdir(data)
    done = wavernn(*line.format(voice=voice).split())
    assert (done.code, done.out) == (2, "")
    assert next(word for word in line.split() if word.startswith("--")) in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--html", "."], r"\. is a folder; give the path of the page to write"),
        (["--html", "none/page.html"], "the folder none doesn't exist; make it first"),
        (["--html", "p.html", "--compare", "nobody"], "unknown voice nobody; shipped: .*"),
        (["--html", "p.html", "--compare", "data/a.wav"], "data/a.wav is not a wavernn .*"),
        (["--compare", "small.safetensors"], "two voices are called small; give one file .*"),
        (["--compare", "v/a.safetensors", "--compare", "w/a.safetensors"], "two .* called a; .*"),
    ],
)
def test_what_eval_cannot_do_is_a_sentence(
    tmp_path, voice, wavernn, monkeypatch, options, sentence
):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    for folder in ("data", "v", "w"):
        Path(folder).mkdir()
    soundfile.write("data/a.wav", sine(3000), 22_050)
    for name in ("small", "v/a", "w/a"):
        Path(f"{name}.safetensors").write_bytes(voice.read_bytes())
    before = sorted(tmp_path.rglob("*"))
    done = wavernn("eval", voice, "data", "--backend", "reference", *options)
    assert (done.code, done.out) == (2, "")
    assert re.search(rf"^wavernn: {sentence}$", done.err, re.MULTILINE)
    assert "Traceback" not in done.err
    assert sorted(tmp_path.rglob("*")) == before
