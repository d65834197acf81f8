import json
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.serve import sockets
from tests.serve.sockets import HOP, LONG, MANY, make_mel, pcm, running, wait_until

# fixtures, by the names that tests ask for
voice, vocoder, server = sockets.voice, sockets.vocoder, sockets.server


def test_an_idle_session_is_told_and_closed(voice):
    with running(voice, idle_s=0.3) as server, server.open() as talk:
        # a channel that waits for frames is idle, too
        talk.mel(make_mel(0))
        talk.event("audio.start")
        message = b""
        while isinstance(message, bytes):
            message = talk.connection.recv(LONG)
        assert json.loads(message)["error"]["code"] == "idle_timeout"
        with pytest.raises(ConnectionClosed) as closed:
            talk.connection.recv(LONG)
        assert closed.value.rcvd.code == 4408
        wait_until(lambda: server.channels_open() == 0)


def test_who_listens_isnt_idle(voice, vocoder):
    with running(voice, idle_s=0.3) as server, server.open() as talk:
        talk.config(seed=1)
        talk.mel(make_mel(0, MANY), 1000)
        talk.say("input.flush")
        begun_s = time.monotonic()
        talk.event("audio.start")
        _, done = talk.rest(wait_s=0.005)
        assert time.monotonic() - begun_s > 0.6, "too quick to prove anything"
        assert done["samples"] == MANY * HOP and done["reason"] == "done"


def test_a_client_that_takes_nothing_is_cut_off(voice):
    with running(voice, idle_s=0.5) as server, server.open(max_queue=1) as talk:
        talk.mel(make_mel(0, 20_000), 3000)
        talk.event("audio.start")
        wait_until(lambda: server.channels_open() == 0)
        # it had to stop in the midst
        assert server.engine.stats()["samples"] < 20_000 * HOP


def test_a_refused_utterance_is_told_once_and_another_may_come(voice, vocoder):
    with running(voice, channels=1) as server, server.open() as first, server.open() as second:
        first.mel(make_mel(0))
        first.event("audio.start")
        second.config(seed=1)
        second.mel(make_mel(1), 2)
        event = second.event("error")
        assert event["error"]["code"] == "overloaded" and event["retry_after_s"] >= 1
        second.mel(make_mel(1), 2)
        second.say("input.done")
        second.event("session.done")
        first.say("response.cancel")
        wait_until(lambda: server.channels_open() == 0)
        assert b"".join(second.speak(make_mel(1))[1]) == pcm(vocoder.synthesize(make_mel(1), 1))


def test_utterances_count_as_requests(voice):
    with running(voice, requests_per_minute=2) as server, server.open() as talk:
        talk.speak(make_mel(0))
        talk.speak(make_mel(0))
        talk.mel(make_mel(0), 2)
        assert talk.error()["code"] == "rate_limit_exceeded"
        talk.say("input.done")
        talk.event("session.done")


def test_an_utterance_has_a_longest_length(voice):
    with running(voice, mel_s=0.02) as server, server.open() as talk:
        talk.mel(make_mel(0)[:10])
        talk.event("audio.start")
        talk.mel(make_mel(0)[10:11])
        messages = []
        while not messages or isinstance(messages[-1], bytes):
            messages.append(talk.connection.recv(LONG))
        error = json.loads(messages[-1])["error"]
        assert error["code"] == "too_large" and "at most 0.02 s" in error["message"]
        talk.say("input.flush")
        chunks = messages[:-1] + talk.rest()[0]
        assert sum(map(len, chunks)) == 2 * 10 * HOP


def test_an_utterance_must_be_over_in_time(voice):
    with running(voice, stream_s=0.3) as server, server.open() as talk:
        talk.mel(make_mel(0))
        talk.event("audio.start")
        while isinstance(message := talk.connection.recv(LONG), bytes):
            pass
        assert "must be over in 0.3 s" in json.loads(message)["error"]["message"]
        assert talk.event("audio.done")["reason"] == "error"
        assert server.channels_open() == 0


def test_a_server_that_ends_finishes_what_it_was_sent(voice, vocoder):
    with running(voice) as server, server.open() as talk:
        talk.config(seed=1)
        talk.mel(make_mel(0, MANY // 2), 500)
        talk.event("audio.start")
        server.service.drain()
        server.server.should_exit = True
        chunks, done = talk.rest()
        assert done["reason"] == "done"
        assert b"".join(chunks) == pcm(vocoder.synthesize(make_mel(0, MANY // 2), 1))
        talk.event("session.done")
        with pytest.raises(ConnectionClosed) as closed:
            talk.connection.recv(LONG)
        assert closed.value.rcvd.code == 1012


KEY = "key-of-a-test"


@pytest.fixture(scope="module")
def locked(voice):
    settings = {"api_keys": (KEY,), "cors_origins": ("https://friend.example",)}
    with running(voice, **settings) as server:
        yield server


def test_a_key_may_come_as_header_or_subprotocol(locked):
    with locked.open(additional_headers={"Authorization": f"Bearer {KEY}"}) as talk:
        assert talk.connection.subprotocol is None
    with locked.open(subprotocols=[f"openai-insecure-api-key.{KEY}", "realtime"]) as talk:
        # an answer is needed, and must not be the key
        assert talk.connection.subprotocol == "realtime"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"additional_headers": {"Authorization": "Bearer wrong-key"}},
        {"subprotocols": ["openai-insecure-api-key.wrong-key", "realtime"]},
    ],
    ids=["none", "header", "subprotocol"],
)
def test_without_the_key_there_is_no_socket(locked, options):
    with pytest.raises(InvalidStatus) as refused, locked.open(**options):
        pass
    response = refused.value.response
    assert response.status_code == 401
    assert json.loads(response.body)["error"]["code"] == "invalid_api_key"


def test_pages_of_other_sites_are_refused(locked, server):
    authorised = {"additional_headers": {"Authorization": f"Bearer {KEY}"}}
    with locked.open(origin="https://friend.example", **authorised):
        pass
    with server.open(origin=f"http://127.0.0.1:{server.port}"):
        pass
    with pytest.raises(InvalidStatus) as refused, server.open(origin="https://foe.example"):
        pass
    assert refused.value.response.status_code == 403
