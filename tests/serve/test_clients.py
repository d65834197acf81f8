"""What well-known clients send as they come, with OpenAI's names and a key that is none."""

import json
import typing

import pytest

from tests.serve.fronts import Words
from wavernn.engine import Engine
from wavernn.serve import aliases
from wavernn.serve.service import Service
from wavernn.serve.settings import Settings

TEXT = "One two three."
KEY = {"Authorization": "Bearer sk-none"}


@pytest.fixture(scope="module")
def front(make_mel):
    return Words(lambda characters: make_mel(characters, 0.1))


@pytest.fixture(scope="module")
def speaking(start, front):
    with start(text=front) as server:
        yield server


def test_openais_names_are_known_as_its_package_has_them():
    speech_model = pytest.importorskip("openai.types.audio.speech_model")
    create_params = pytest.importorskip("openai.types.audio.speech_create_params")
    assert set(typing.get_args(speech_model.SpeechModel)) <= aliases.MODELS
    literal = typing.get_args(create_params.Voice)[1]
    assert set(typing.get_args(literal)) <= aliases.VOICES


@pytest.mark.parametrize("named", sorted(aliases.VOICES))
def test_openais_client_gets_speech_for_its_own_voices(speaking, front, named):
    openai = pytest.importorskip("openai")
    how = {"base_url": f"{speaking.url}/v1", "api_key": "sk-none", "max_retries": 0}
    with openai.OpenAI(**how) as client:
        create = client.audio.speech.create
        answer = create(model="gpt-4o-mini-tts", voice=named, input=TEXT, response_format="pcm")
    assert len(answer.content) == 2 * round(3 * 0.1 * 24_000)
    # which voice it is in truth is told
    assert answer.response.headers["x-voice"] == front.asked[-1][1] == "tiny"


@pytest.mark.parametrize("model", sorted(aliases.MODELS))
def test_openais_models_are_found_but_not_listed(speaking, model):
    assert speaking.http.get(f"/v1/models/{model}").json()["id"] == model
    listed = [found["id"] for found in speaking.http.get("/v1/models").json()["data"]]
    assert listed == ["wavernn", "tiny"]
    request = {"model": model, "input": TEXT, "voice": "alloy", "response_format": "wav"}
    assert speaking.http.post("/v1/audio/speech", json=request).content[:4] == b"RIFF"


def test_a_voice_that_has_one_of_openais_names_is_that_voice(voice):
    with Engine(voice, "reference", channels=1) as first, Engine(voice, "reference") as nova:
        service = Service(Settings(), {"first": first, "nova": nova})
        assert service.engine("nova") == ("nova", nova)
        assert service.engine("alloy") == ("first", first)


OPEN_WEBUI = {
    "X-OpenWebUI-User-Name": "somebody",
    "X-OpenWebUI-User-Id": "1",
    "X-OpenWebUI-User-Email": "somebody@example.org",
    "X-OpenWebUI-User-Role": "user",
}


def test_open_webui_reads_aloud(speaking):
    pytest.importorskip("av")
    # its page names text and voice, and its server adds a model
    request = {"input": TEXT, "voice": "alloy", "model": "tts-1"}
    answer = speaking.http.post("/v1/audio/speech", json=request, headers=KEY | OPEN_WEBUI)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.content[:1] == b"\xff"


def test_open_webui_finds_models_and_voices(speaking):
    models = speaking.http.get("/v1/audio/models").json()["models"]
    assert models == [{"id": "wavernn", "name": "wavernn"}, {"id": "tiny", "name": "tiny"}]
    voices = speaking.http.get("/v1/audio/voices").json()["voices"]
    assert {voice["id"]: voice["name"] for voice in voices} == {"tiny": "tiny"}


@pytest.mark.parametrize("speed", [1, 0.25, 4, 1.05])
def test_sillytavern_speaks(speaking, front, speed):
    pytest.importorskip("av")
    request = {
        "model": "tts-1",
        "input": TEXT,
        "voice": "shimmer",
        "response_format": "mp3",
        "speed": speed,
    }
    # without a key it sends the word alone
    headers = {"Authorization": "Bearer", "Content-Type": "application/json"}
    answer = speaking.http.post("/v1/audio/speech", content=json.dumps(request), headers=headers)
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/mpeg"
    assert front.asked[-1] == (TEXT, "tiny", speed)


def test_fields_that_others_know_are_passed_over(speaking):
    request = {
        "model": "tts-1-hd",
        "input": TEXT,
        "voice": "",
        "response_format": "wav",
        "stream": True,
        "return_download_link": False,
        "lang_code": "a",
        "volume_multiplier": 1.0,
        "params": {"speaker": 1},
    }
    answer = speaking.http.post("/v1/audio/speech", json=request, headers=KEY)
    assert answer.status_code == 200 and answer.content[:4] == b"RIFF"
