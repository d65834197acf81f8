"""The service with a subscale voice, whose samples come later than their mel."""

import json
from dataclasses import replace

import numpy as np
import pytest
from websockets.sync.client import connect

from tests.serve.fronts import Words
from wavernn import live
from wavernn.deadlines import Delay
from wavernn.kernels.bench import random_voice
from wavernn.subscale import Order
from wavernn.vocoder import Vocoder

LONG = 60.0
FIELDS = {"subscale": 4, "subscale_horizon": 2, "context_channels": 8, "context_layers": 2}


@pytest.fixture(scope="module")
def lanes(voice):
    config = voice.config
    return random_voice(replace(config, model=replace(config.model, **FIELDS)))


@pytest.fixture(scope="module")
def spoken(lanes):
    vocoder = Vocoder(lanes)

    def speak(mel_NM, seed=0):
        samples_T = vocoder.synthesize(mel_NM, seed)
        return np.rint(samples_T * 32768).astype("<i2").tobytes()

    return speak


@pytest.fixture(scope="module")
def served(start, lanes, make_mel):
    with start(of=lanes, text=Words(lambda characters: make_mel(characters, 0.1))) as server:
        yield server


def test_a_mel_becomes_what_a_vocoder_makes_of_it(served, spoken, make_npy, make_mel):
    for seed in (0, 7):
        query = {"format": "pcm", "seed": seed}
        answer = served.http.post("/v1/vocode", params=query, content=make_npy(1))
        assert answer.status_code == 200, answer.text
        assert answer.content == spoken(make_mel(1), seed)
    served.wait(lambda: served.open_channels == 0)


def test_text_is_spoken(served, spoken, make_mel):
    request = {"model": "tts-1", "input": "One three.", "voice": "default", "seed": 3}
    answer = served.http.post("/v1/audio/speech", json=request | {"response_format": "pcm"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("audio/pcm")
    vocoded = spoken(np.concatenate([make_mel(3, 0.1), make_mel(6, 0.1)]), 3)
    # at the rate that OpenAI's pcm has, three times the voice's
    assert len(answer.content) == pytest.approx(3 * len(vocoded), rel=0.02)


def test_voices_say_how_late_they_are(served, running, lanes):
    def delay_ms(server):
        (voice,) = server.http.get("/v1/audio/voices").json()["voices"]
        return voice["delay_ms"]

    late = Order(4, 2).lookahead_samples * 1000 / lanes.config.mel.rate_hz
    assert delay_ms(running) > 0
    assert delay_ms(served) == pytest.approx(delay_ms(running) + late)


def test_a_microphone_hears_itself_after_the_stated_delay(served, lanes, spoken, make_audio):
    samples_T = make_audio(3)
    analysis = live.Analysis(lanes.config.mel)
    mel_NM = np.concatenate([analysis.push(samples_T), analysis.flush()])
    said, events = b"", {}
    host, port = served.address
    with connect(f"ws://{host}:{port}/v1/live", proxy=None, open_timeout=LONG) as talk:
        talk.recv(LONG)
        talk.send(json.dumps({"type": "session.config", "seed": 5, "input_format": "f32le"}))
        talk.send(samples_T.astype("<f4").tobytes())
        talk.send(json.dumps({"type": "input.done"}))
        while "audio.done" not in events:
            message = talk.recv(LONG)
            if isinstance(message, bytes):
                said += message
            else:
                events[json.loads(message)["type"]] = json.loads(message)
    assert said == spoken(mel_NM, 5)
    assert events["audio.start"]["delay"]["samples"] == Delay.of(lanes.config).samples
