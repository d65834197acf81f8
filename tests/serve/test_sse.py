import base64
import json

import pytest

from wavernn.serve import sse


def event(data: bytes) -> dict:
    assert data.startswith(b"data: ") and data.endswith(b"\n\n")
    text = data[len(b"data: ") : -2]
    assert b"\n" not in text and b"\r" not in text
    return json.loads(text)


@pytest.mark.parametrize("audio", [b"", b"\0", bytes(range(256)) * 3])
def test_audio_comes_back_from_a_delta(audio: bytes):
    fields = event(sse.delta(audio))
    assert fields.keys() == {"type", "audio"}
    assert fields["type"] == "speech.audio.delta"
    assert base64.b64decode(fields["audio"], validate=True) == audio


def test_the_end_adds_up_the_tokens():
    assert event(sse.done(7, 35)) == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 7, "output_tokens": 35, "total_tokens": 42},
    }


def test_an_error_is_one_event_whatever_its_words():
    error = {
        "message": "a\n\ndata: b\r ü \ud800",
        "type": "server_error",
        "param": None,
        "code": "x",
    }
    assert event(sse.error(error)) == {"type": "error", "error": error}


def test_the_openai_client_takes_the_events_apart():
    streaming = pytest.importorskip("openai._streaming")
    error = {"message": "no", "type": "server_error", "param": None, "code": None}
    stream = sse.delta(b"\1\2") + sse.delta(b"\3") + sse.done(1, 2) + sse.error(error)
    # in pieces that don't end where events do
    pieces = iter([stream[:11], stream[11:70], stream[70:]])
    events = [item.json() for item in streaming.SSEDecoder().iter_bytes(pieces)]
    kinds = ["speech.audio.delta", "speech.audio.delta", "speech.audio.done", "error"]
    assert [item["type"] for item in events] == kinds
