"""The service with a real front end and an acoustic model: what any text comes to."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.serve.conftest import Running
from tests.serve.odd import odd_texts
from wavernn import checkpoint
from wavernn.acoustic import AcousticModel
from wavernn.acoustic_checkpoint import AcousticCheckpoint, save
from wavernn.acoustic_config import AcousticConfig, AcousticModelConfig
from wavernn.engine import Engine
from wavernn.errors import CheckpointError, TextError
from wavernn.narration import Narrator, ShippedAcoustic
from wavernn.serve.reading import Reading, open_reading
from wavernn.serve.service import Service
from wavernn.serve.settings import Settings
from wavernn.symbols import Alphabet
from wavernn.text import FrontEnd
from wavernn.train.intelligibility import LOWEST_FIT, Aligner, missing_aligner
from wavernn.voices import open_voice

phonemes = pytest.importorskip("wavernn.english.phonemes")


@pytest.fixture(scope="module")
def acoustic(voice):
    """Random weights that give each phone about a frame, for the service's small voice."""
    torch.manual_seed(0)
    model = AcousticModelConfig(
        channels=16, encoder_layers=1, attention_layers=1, decoder_layers=1, prosody_channels=8
    )
    symbols = Alphabet.of(phonemes.ENGLISH).symbols
    tensors = AcousticModel(model, voice.config.mel, len(symbols), 1).state_dict()
    tensors["prosody.duration.weight"].zero_()
    tensors["prosody.duration.bias"].fill_(0.7)
    config = AcousticConfig(mel=voice.config.mel, model=model)
    return AcousticCheckpoint(config, symbols, ("only",), tensors)


@pytest.fixture(scope="module")
def reading(voice, acoustic):
    return Reading(Narrator(ShippedAcoustic(acoustic)), {"tiny": voice})


@pytest.fixture(scope="module")
def speaking(start, reading):
    with start(text=reading, channels=8) as server:
        yield server


def ask(server, text, **more):
    request = {"model": "wavernn", "input": text, "voice": "default", "response_format": "pcm"}
    return server.http.post("/v1/audio/speech", json=request | more)


def test_two_hundred_odd_texts_give_speech_or_a_sentence(speaking, refused):
    """As files of PCM: sound that isn't empty, or 4xx in OpenAI's shape, and no channel is lost."""
    spoken = 0
    for text in odd_texts():
        if "\ud83d" in text:
            # half a character can't be put into UTF-8; JSON may hold it as an escape
            request = {"model": "wavernn", "voice": "default", "input": text}
            headers = {"content-type": "application/json"}
            answer = speaking.http.post(
                "/v1/audio/speech", content=json.dumps(request), headers=headers
            )
        else:
            answer = ask(speaking, text, speed=4.0)
        if answer.status_code == 200:
            assert len(answer.content) > 0 and len(answer.content) % 2 == 0, repr(text)
            spoken += 1
        else:
            assert 400 <= answer.status_code < 500, (repr(text), answer.text)
            refused(answer, answer.status_code)
    assert spoken > 100
    speaking.wait(lambda: speaking.open_channels == 0)


def test_ten_thousand_characters_are_too_many_by_default_and_read_where_they_may_be(
    start, reading, speaking, refused
):
    text = "This is a sentence of a very long text. " * 250
    assert "more than 4096" in refused(ask(speaking, text), 413)["message"]
    assert sum(len(mel_NM) for mel_NM in reading.frames(text, "tiny", 4.0)) > 1000
    with (
        start(text=reading, text_characters=20_000) as server,
        server.http.stream(
            "POST",
            "/v1/audio/speech",
            json={"model": "wavernn", "input": text, "voice": "default", "response_format": "pcm"},
        ) as answer,
    ):
        # it begins with the first clause, long before the rest is read
        assert answer.status_code == 200
        assert next(answer.iter_bytes())


def test_a_text_without_words_is_the_clients_mistake(speaking, refused):
    error = refused(ask(speaking, "!?"), 400)
    assert "'!?' can be spoken; give words" in error["message"]


def test_speech_lasts_as_long_as_the_mels_of_its_clauses(speaking, reading, voice):
    text = "Good morning, everybody. It is a fine day; let us go out!"
    frames = sum(len(mel_NM) for mel_NM in reading.frames(text, "tiny", 1.0))
    rate_hz = voice.config.mel.rate_hz
    answer = ask(speaking, text, sample_rate=rate_hz)
    assert len(answer.content) == 2 * frames * voice.config.mel.hop_samples
    again = ask(speaking, text, sample_rate=rate_hz, seed=3)
    assert ask(speaking, text, sample_rate=rate_hz, seed=3).content == again.content


def test_speed_shortens_and_is_bounded(speaking, refused):
    text = "One sentence of several words, and some more."
    slow, usual, fast = (len(ask(speaking, text, speed=s).content) for s in (0.5, 1.0, 2.0))
    assert slow > 1.7 * usual and usual > 1.7 * fast
    refused(ask(speaking, text, speed=5.0), 400)


def test_a_voice_of_another_mel_says_so(voice, acoustic, caplog):
    other = replace(voice, config=replace(voice.config, mel=replace(voice.config.mel, low_hz=30.0)))
    with caplog.at_level(logging.WARNING):
        reading = Reading(Narrator(ShippedAcoustic(acoustic)), {"tiny": voice, "other": other})
    assert "other can't speak text: the acoustic model makes mels with" in caplog.text
    assert len(next(reading.frames("Yes.", "tiny", 1.0)))
    with pytest.raises(Exception, match="choose models of the same mel"):
        reading.frames("Yes.", "other", 1.0)


def test_a_model_that_was_named_must_be_there_and_the_default_one_may_be_absent(
    voice, acoustic, tmp_path, monkeypatch, caplog
):
    voices = {"tiny": voice}
    path = tmp_path / "mine.safetensors"
    save(path, acoustic)
    assert isinstance(open_reading(str(path), voices), Reading)
    assert open_reading("none", voices) is None
    with pytest.raises(CheckpointError):
        open_reading(str(tmp_path / "gone.safetensors"), voices)
    checkpoint.save(tmp_path / "voice.safetensors", voice)
    with pytest.raises(CheckpointError, match="expected an acoustic model's checkpoint"):
        open_reading(str(tmp_path / "voice.safetensors"), voices)

    def absent(self, phonemizer="gruut"):
        raise TextError("speaking text needs gruut's English data; install it")

    monkeypatch.setattr(FrontEnd, "__init__", absent)
    with pytest.raises(TextError):
        open_reading(str(path), voices)
    monkeypatch.setattr(
        "wavernn.serve.reading.open_acoustic", lambda name: ShippedAcoustic(acoustic)
    )
    with caplog.at_level(logging.WARNING):
        assert open_reading("default", voices) is None
    assert "text is refused: speaking text needs gruut's English data" in caplog.text


def test_openais_client_hears_the_shipped_voice_say_the_text():
    openai = pytest.importorskip("openai")
    if sentence := missing_aligner():
        pytest.skip(sentence)
    voices = {"default": open_voice("default")}
    reading = open_reading("default", voices)
    assert reading is not None
    engine = Engine(voices["default"], channels=1)
    server = Running(Service(Settings(port=0, drain_s=5.0), {"default": engine}, reading))
    text = "The quick brown fox jumps over the lazy dog."
    try:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            how = {"model": "tts-1", "voice": "alloy", "response_format": "pcm"}
            create = client.audio.speech.with_streaming_response.create
            with create(input=text, extra_body={"seed": 1}, **how) as answer:
                pieces = list(answer.iter_bytes(4096))
    finally:
        server.stop()
    assert len(pieces) > 2
    samples_T = np.frombuffer(b"".join(pieces), "<i2") / np.float32(32768)
    aligner = Aligner()
    other = "Four hours of steady work faced us."
    assert aligner.score(samples_T, 24_000, aligner.words(text)) >= LOWEST_FIT
    assert aligner.score(samples_T, 24_000, aligner.words(other)) < LOWEST_FIT
