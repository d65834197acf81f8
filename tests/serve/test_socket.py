import socket
from contextlib import ExitStack
from struct import pack, unpack

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from tests.serve import sockets
from tests.serve.sockets import BANDS, HOP, LONG, MANY, make_mel, pcm, running, wait_until
from wavernn.audio import read_audio

# fixtures, by the names that tests ask for
voice, vocoder, server = sockets.voice, sockets.vocoder, sockets.server


def test_mel_frames_become_the_same_samples_as_offline(server, vocoder):
    mel_NM = make_mel(1)
    with server.open() as talk:
        assert talk.created["voices"] == [
            {"id": "tiny", "sample_rate": 8000, "hop_samples": HOP, "bands": BANDS}
        ]
        talk.config(seed=3, temperature=0.8)
        talk.mel(mel_NM)
        talk.say("input.done")
        start, chunks, done = talk.audio()
        assert talk.event("session.done")["utterances"] == 1
    assert start["sample_rate"] == 8000 and start["seed"] == 3 and start["format"] == "pcm"
    data = b"".join(chunks)
    assert data == pcm(vocoder.synthesize(mel_NM, 3, 0.8))
    assert done["reason"] == "done" and done["chunks"] == len(chunks)
    assert (done["samples"], done["bytes"]) == (20 * HOP, 2 * 20 * HOP)
    assert 0 < done["time_to_first_audio_s"] < LONG


def test_audio_comes_before_the_input_ends(server):
    with server.open() as talk:
        talk.mel(make_mel(1, 30))
        talk.event("audio.start")
        assert isinstance(talk.connection.recv(LONG), bytes)


def test_utterances_follow_each_other_and_the_config_stays(server, vocoder):
    with server.open() as talk:
        talk.config(seed=5, numbered=True)
        for seed in range(3):
            talk.mel(make_mel(seed))
            talk.say("input.flush")
        for index in range(3):
            start, chunks, done = talk.audio()
            assert start["utterance_index"] == done["utterance_index"] == index
            headers = [unpack("<II", chunk[:8]) for chunk in chunks]
            assert headers == [(index, number) for number in range(len(chunks))]
            data = b"".join(chunk[8:] for chunk in chunks)
            assert data == pcm(vocoder.synthesize(make_mel(index), 5))


def test_a_seed_that_isnt_given_is_drawn_anew_and_told(server, vocoder):
    with server.open() as talk:
        spoken = [talk.speak(make_mel(1)) for _ in range(2)]
    assert spoken[0][0]["seed"] != spoken[1][0]["seed"]
    for start, chunks, _ in spoken:
        assert b"".join(chunks) == pcm(vocoder.synthesize(make_mel(1), start["seed"]))


def test_sockets_at_once_are_sockets_alone(server, vocoder):
    with ExitStack() as stack:
        talks = [stack.enter_context(server.open()) for _ in range(4)]
        for seed, talk in enumerate(talks):
            talk.config(seed=seed)
        for start in range(0, 20, 7):
            for seed, talk in enumerate(talks):
                talk.connection.send(make_mel(seed)[start : start + 7].tobytes())
        for seed, talk in enumerate(talks):
            talk.say("input.flush")
            assert b"".join(talk.audio()[1]) == pcm(vocoder.synthesize(make_mel(seed), seed))


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_other_formats(server, vocoder, tmp_path, format):
    if format == "flac":
        pytest.importorskip("av")
    with server.open() as talk:
        assert talk.config(seed=2, response_format=format)["format"] == format
        start, chunks, done = talk.speak(make_mel(4, 300))
    assert start["format"] == format and done["bytes"] == sum(map(len, chunks))
    path = tmp_path / f"speech.{format}"
    path.write_bytes(b"".join(chunks))
    assert pcm(read_audio(path, 8000)) == pcm(vocoder.synthesize(make_mel(4, 300), 2))


BAD = {
    "half a frame": (b"\0" * 10, "invalid_request_error", None, "whole number of mel frames of 5"),
    "no bytes": (b"", "invalid_request_error", None, "got 0 bytes"),
    "not finite": (np.full((2, BANDS), np.nan, "<f4").tobytes(), None, None, "NaN"),
    "too long": (bytes(20 * BANDS * 60_000), None, "too_large", "at most 1048576 bytes"),
    "no JSON": ("{", None, "invalid_json", "must be JSON"),
    "deep JSON": ("[" * 10_000, None, "invalid_json", "must be JSON"),
    "no object": ("[1]", None, None, "a JSON object with a type"),
    "unknown": ('{"type": "sing"}', None, None, "unknown type 'sing'"),
    "more fields": ('{"type": "input.flush", "now": 1}', None, None, "input.flush has no fields"),
    "text": ('{"type": "input.text", "text": "a"}', "server_error", "not_implemented", "text"),
    "as text": ('{"type": "session.config", "input": "text"}', None, "not_implemented", "text"),
    "voice": ('{"type": "session.config", "voice": "x"}', None, None, "unknown voice 'x'"),
    "format": ('{"type": "session.config", "format": "x"}', None, None, "unknown format 'x'"),
    "seed": ('{"type": "session.config", "seed": -1}', None, None, "seed: "),
    "heat": ('{"type": "session.config", "temperature": 0}', None, None, "temperature: "),
    "field": ('{"type": "session.config", "pitch": 2}', None, None, "pitch: "),
}


@pytest.mark.parametrize(("message", "kind", "code", "words"), BAD.values(), ids=BAD)
def test_a_bad_message_is_answered_and_the_session_goes_on(
    server, vocoder, message, kind, code, words
):
    with server.open() as talk:
        talk.config(seed=1)
        # in the midst of an utterance, which it doesn't disturb
        talk.mel(make_mel(0)[:1])
        talk.event("audio.start")
        talk.connection.send(message)
        error = talk.error()
        assert words in error["message"] and error["code"] == code
        assert kind is None or error["type"] == kind
        talk.mel(make_mel(0)[1:])
        talk.say("input.flush")
        assert b"".join(talk.rest()[0]) == pcm(vocoder.synthesize(make_mel(0), 1))


def test_a_cancel_is_acknowledged_and_no_audio_follows(server, vocoder):
    with server.open() as talk:
        talk.config(seed=1)
        talk.mel(make_mel(0, MANY), 500)
        talk.say("input.flush")
        talk.mel(make_mel(0, 500), 500)
        talk.event("audio.start")
        first = talk.connection.recv(LONG)
        talk.say("response.cancel")
        chunks, done = talk.rest()
        assert done["reason"] == "cancelled"
        assert len(first) + sum(map(len, chunks)) == 2 * done["samples"] < 2 * MANY * HOP
        assert talk.event("response.cancelled")["utterance_index"] == 0
        wait_until(lambda: server.channels_open() == 0)
        # neither the rest of the first nor the second
        start, chunks, _ = talk.speak(make_mel(7))
        assert start["utterance_index"] == 2
        assert b"".join(chunks) == pcm(vocoder.synthesize(make_mel(7), 1))


def test_a_cancel_is_seen_while_the_engine_takes_no_more_frames(voice):
    with running(voice, input_s=0.05) as server, server.open() as talk:
        talk.mel(make_mel(0, 5000), 1000)
        talk.event("audio.start")
        # nothing is read, so that the channel is full of samples and its queue of frames
        wait_until(lambda: server.engine.stats()["channels_ready"] == 0)
        talk.say("response.cancel")
        assert talk.rest()[1]["reason"] == "cancelled"
        talk.event("response.cancelled")


def test_a_cancel_of_nothing_is_acknowledged(server):
    with server.open() as talk:
        talk.say("response.cancel")
        assert talk.event("response.cancelled")["utterance_index"] is None
        talk.speak(make_mel(0))
        talk.say("response.cancel")
        assert talk.event("response.cancelled")["utterance_index"] is None


def test_nothing_to_flush_is_nothing_to_say(server):
    with server.open() as talk:
        talk.say("input.flush")
        talk.say("input.done")
        assert talk.event("session.done")["utterances"] == 0


def test_the_session_closes_when_asked(server):
    with server.open() as talk:
        talk.mel(make_mel(0, 500), 100)
        talk.event("audio.start")
        talk.say("session.close")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                talk.connection.recv(LONG)
    assert closed.value.rcvd.code == 1000
    wait_until(lambda: server.channels_open() == 0)


def test_a_lost_client_gives_its_channel_back(server):
    with server.open() as talk:
        talk.mel(make_mel(0, 5000), 1000)
        talk.event("audio.start")
        assert server.channels_open() == 1
        # as if its process had been killed
        lost = talk.connection.socket
        lost.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        lost.close()
        wait_until(lambda: server.channels_open() == 0)
