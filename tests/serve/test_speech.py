import io

import httpx
import numpy as np
import pytest
import soundfile

from tests.serve.fronts import Words

REQUEST = {"model": "tts-1", "input": "One two three.", "voice": "default"}


@pytest.fixture
def front(make_mel):
    return Words(lambda characters: make_mel(characters, 0.2))


@pytest.fixture
def speaking(start, front):
    with start(text=front, streams_per_client=3) as server:
        yield server


@pytest.fixture
def openai_client(speaking):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{speaking.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_without_a_front_end_text_is_refused_with_a_sentence(running, refused):
    answer = running.http.post("/v1/audio/speech", json=REQUEST)
    error = refused(answer, 501)
    assert "/v1/vocode" in error["message"]
    assert error["code"] == "not_implemented"
    assert running.http.get("/v1/audio/speech", params={"input": "One"}).status_code == 501
    assert running.open_channels == 0


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "gpt-9"}, "model"),
        ({"model": None}, "model"),
        ({"input": ""}, "input"),
        ({"input": 5}, "input"),
        ({"voice": "nobody"}, "voice"),
        ({"voice": {"id": "nobody"}}, "voice"),
        ({"voice": {"name": "tiny"}}, "voice"),
        ({"response_format": "ogg"}, "response_format"),
        ({"speed": 0.2}, "speed"),
        ({"speed": 4.1}, "speed"),
        ({"stream_format": "bytes"}, "stream_format"),
        ({"seed": -1}, "seed"),
        ({"seed": False}, "seed"),
        ({"seed": "1"}, "seed"),
        ({"temperature": 0}, "temperature"),
        ({"sample_rate": 96_000}, "sample_rate"),
        ({"response_format": "opus", "sample_rate": 44_100}, "response_format"),
        ({"instructions": 5}, "instructions"),
    ],
)
def test_what_is_wrong_comes_before_what_is_missing(running, refused, change, param):
    answer = running.http.post("/v1/audio/speech", json=REQUEST | change)
    assert refused(answer, 400)["param"].startswith(param)


@pytest.mark.parametrize("text", [b"", b"[", b"[]", b"null", b'{"model": 1}', b"\xff", b"[" * 9999])
def test_what_is_no_request_is_refused(running, refused, text):
    headers = {"content-type": "application/json"}
    refused(running.http.post("/v1/audio/speech", content=text, headers=headers), 400)


@pytest.mark.parametrize("model", ["wavernn", "tiny", "tts-1", "tts-1-hd", "gpt-4o-mini-tts"])
@pytest.mark.parametrize("name", ["tiny", "default", {"id": "tiny"}])
def test_models_and_voices_have_several_names(running, model, name):
    request = REQUEST | {"model": model, "voice": name, "instructions": "Whisper.", "other": 1}
    assert running.http.post("/v1/audio/speech", json=request).status_code == 501


def test_a_text_that_is_too_long_is_refused(running, refused):
    answer = running.http.post("/v1/audio/speech", json=REQUEST | {"input": "ä" * 4097})
    assert refused(answer, 413)["param"] == "input"
    answer = running.http.post("/v1/audio/speech", json=REQUEST | {"input": "\U0001f600" * 4096})
    assert answer.status_code == 501
    answer = running.http.post("/v1/audio/speech", json=REQUEST | {"input": "ä" * 70_000})
    assert "bytes" in refused(answer, 413)["message"]


def test_pcm_has_the_rate_that_openais_clients_take_it_for(speaking, front):
    answer = speaking.http.post("/v1/audio/speech", json=REQUEST | {"response_format": "pcm"})
    assert answer.headers["x-sample-rate"] == "24000"
    assert len(answer.content) == 2 * round(3 * 0.2 * 24_000)
    assert front.asked == [("One two three.", "tiny", 1.0)]
    request = REQUEST | {"response_format": "pcm", "sample_rate": 8000, "speed": 1.5}
    answer = speaking.http.post("/v1/audio/speech", json=request)
    assert len(answer.content) == 2 * round(3 * 0.2 * 8000)
    assert front.asked[-1] == ("One two three.", "tiny", 1.5)


def test_pieces_of_text_are_the_whole_mel(speaking, make_mel):
    request = REQUEST | {"response_format": "pcm", "sample_rate": 8000, "seed": 3}
    answer = speaking.http.post("/v1/audio/speech", json=request)
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate([make_mel(n, 0.2) for n in (3, 3, 6)]))
    mel = speaking.http.post("/v1/vocode?format=pcm&seed=3", content=buffer.getvalue())
    assert mel.content == answer.content


def test_sound_comes_before_the_text_is_at_its_end(speaking, front):
    front.go_on.clear()
    query = {"input": "One two", "response_format": "wav"}
    with speaking.http.stream("GET", "/v1/audio/speech", params=query) as answer:
        parts = answer.iter_raw()
        first = next(parts)
        # the length isn't known yet
        assert first[:8] == b"RIFF\xff\xff\xff\xff"
        assert "content-length" not in answer.headers
        front.go_on.set()
        rest = b"".join(parts)
    assert len(first + rest) == 44 + 2 * 3200


def test_a_listener_who_leaves_ends_the_front_ends_work(speaking, front):
    front.go_on.clear()
    query = {"input": "One two three four", "response_format": "pcm"}
    with speaking.http.stream("GET", "/v1/audio/speech", params=query) as answer:
        next(answer.iter_raw())
    speaking.wait(lambda: speaking.open_channels == 0)
    front.go_on.set()
    assert front.closed.wait(60)


@pytest.mark.parametrize(("text", "status"), [("bad", 400), ("broken", 500)])
def test_a_front_end_that_fails_at_once_is_an_answer(speaking, refused, text, status):
    answer = speaking.http.post("/v1/audio/speech", json=REQUEST | {"input": text})
    refused(answer, status)
    speaking.wait(lambda: speaking.open_channels == 0)


def test_a_front_end_that_fails_later_truncates(speaking, front):
    front.go_on.clear()
    query = {"input": "One broken", "response_format": "pcm"}
    with (
        speaking.http.stream("GET", "/v1/audio/speech", params=query) as answer,
        pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)),
    ):
        parts = answer.iter_raw()
        next(parts)
        front.go_on.set()
        list(parts)
    speaking.wait(lambda: speaking.open_channels == 0)


def test_a_front_end_that_is_silent_for_too_long_is_given_up(start, front, refused):
    front.go_on.clear()
    front.frames = lambda *_: iter(front.go_on.wait, True)
    with start(text=front, stream_s=0.3) as server:
        refused(server.http.post("/v1/audio/speech", json=REQUEST), 503)
        server.wait(lambda: server.open_channels == 0)
        front.go_on.set()


def test_openais_client_raises_what_it_should(running):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="unused") as client:
        with pytest.raises(openai.InternalServerError, match="speech from text") as raised:
            client.audio.speech.create(model="tts-1", input="Hello.", voice="default")
        assert raised.value.status_code == 501
        assert raised.value.code == "not_implemented"
        with pytest.raises(openai.BadRequestError, match="unknown voice 'nobody'"):
            client.audio.speech.create(model="tts-1", input="Hello.", voice="nobody")
        assert [model.id for model in client.models.list()] == ["wavernn", "tiny"]
        assert client.models.retrieve("tiny").id == "tiny"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-9")


@pytest.mark.parametrize("format", ["wav", "pcm", "mp3"])
def test_openais_client_streams(openai_client, front, format):
    if format == "mp3":
        pytest.importorskip("av")
    front.go_on.clear()
    how = {"model": "gpt-4o-mini-tts", "voice": "tiny", "response_format": format}
    create = openai_client.audio.speech.with_streaming_response.create
    with create(input="One two three four", **how, extra_body={"seed": 1}) as answer:
        parts = answer.iter_bytes(256)
        got = next(parts)
        front.go_on.set()
        got += b"".join(parts)
        assert answer.headers["x-seed"] == "1"
    if format == "pcm":
        assert len(got) == 2 * round(4 * 0.2 * 24_000)
    elif format == "wav":
        assert len(got) == 44 + 2 * 4 * 1600
    else:
        decoded, rate_hz = soundfile.read(io.BytesIO(got))
        assert len(decoded) / rate_hz == pytest.approx(0.8, abs=0.25)
