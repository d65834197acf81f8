"""`wavernn say` with the shipped models: from the text to the file, or the sentence."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from wavernn.train.intelligibility import LOWEST_FIT, Aligner, missing_aligner

FOX = "The quick brown fox jumps over the lazy dog."
OTHER = "Four hours of steady work faced us."


def process(*arguments, **more):
    command = [sys.executable, "-P", "-m", "wavernn", "say", *arguments]
    return subprocess.run(command, capture_output=True, timeout=300, check=False, **more)


@pytest.fixture(scope="module")
def fox(tmp_path_factory):
    """As a process of its own, which can reach no network by any proxy."""
    path = tmp_path_factory.mktemp("say") / "fox.wav"
    dead = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = process(FOX, "-o", str(path), env=os.environ | dead | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"" and f"{path}: ".encode() in done.stderr
    return path


def test_a_sentence_becomes_a_file(fox):
    info = soundfile.info(fox)
    assert (info.samplerate, info.channels, info.subtype) == (22_050, 1, "PCM_16")
    assert 1.5 < info.duration < 5
    samples_T, _ = soundfile.read(fox)
    assert 0.005 < np.sqrt(np.mean(samples_T**2)) < 0.3


def test_a_recogniser_finds_the_text_and_no_other(fox):
    if sentence := missing_aligner():
        pytest.skip(sentence)
    aligner = Aligner()
    samples_T, rate_hz = soundfile.read(fox, dtype="float32")
    assert aligner.score(samples_T, rate_hz, aligner.words(FOX)) >= LOWEST_FIT
    assert aligner.score(samples_T, rate_hz, aligner.words(OTHER)) < LOWEST_FIT


def test_a_stream_has_the_samples_of_the_file_and_stdin_may_hold_the_text(fox):
    done = process("-", "--stream", input=FOX.encode())
    assert done.returncode == 0, done.stderr
    streamed_T = np.frombuffer(done.stdout, "<i2")
    assert (streamed_T == soundfile.read(fox, dtype="int16")[0]).all()


def test_speed_and_pitch_are_heard(wavernn, fox, tmp_path):
    path = tmp_path / "fast.wav"
    done = wavernn("say", FOX, "-o", path, "--speed", "2", "--pitch", "3")
    assert done.code == 0, done.err
    usual, fast = (soundfile.info(p).duration for p in (fox, path))
    assert 1.6 < usual / fast < 2.3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["", "-o", "a.wav"], "the text is empty; give some words to speak"),
        (["日本語", "-o", "a.wav"], "can be spoken; give words or numbers in Latin letters"),
        ([FOX], "choose one of --out FILE and --stream"),
        ([FOX, "-o", "a.wav", "--speed", "9"], "expected a speed in 0.25..4, got 9.0"),
        ([FOX, "-o", "a.wav", "--pitch", "40"], "expected a pitch of -12..12 semitones, got 40.0"),
        ([FOX, "-o", "a.wav", "--speaker", "eve"], "unknown speaker 'eve'; known: lj-acoustic"),
        ([FOX, "-o", "a.wav", "--acoustic", "no"], "unknown acoustic model no; shipped: lj-acous"),
        ([FOX, "-o", "a.wav", "--voice", "nobody"], "unknown voice nobody; shipped: lj-sparse-384"),
        ([FOX, "-o", "a.mp4"], "unknown audio format '.mp4' of a.mp4; known: wav, flac, ogg"),
    ],
)
def test_what_cant_be_said_is_one_sentence(wavernn, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    done = wavernn("say", *arguments)
    assert (done.code, done.out) == (2, "")
    assert sentence in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())
