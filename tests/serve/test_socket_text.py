import re
from pathlib import Path

import numpy as np
import pytest

from tests.serve import sockets
from tests.serve.fronts import Words
from tests.serve.sockets import HOP, LONG, make_mel, pcm, running, wait_until
from wavernn.serve import socket as speech_socket

voice, vocoder = sockets.voice, sockets.vocoder
WORD_FRAMES = 20


def mel_of(characters):
    return make_mel(characters, WORD_FRAMES)


@pytest.fixture
def front():
    return Words(mel_of)


@pytest.fixture
def server(voice, front):
    with running(voice, text=front) as found:
        yield found


def write(talk, text, size=3):
    for start in range(0, len(text), size):
        talk.say("input.text", text=text[start : start + size])


def test_text_that_is_written_is_the_samples_of_its_sentences(server, front, vocoder):
    with server.open() as talk:
        talk.config(seed=3, speed=1.5)
        write(talk, "One two. Three four? And five")
        talk.say("input.done")
        start, chunks, done = talk.audio()
        assert talk.event("session.done")["utterances"] == 1
    assert front.asked == [(t, "tiny", 1.5) for t in ("One two.", "Three four?", "And five")]
    mel_NM = np.concatenate(
        [mel_of(len(word)) for word in ["One", "two.", "Three", "four?", "And", "five"]]
    )
    assert b"".join(chunks) == pcm(vocoder.synthesize(mel_NM, 3))
    assert start["voice"] == "tiny" and done["reason"] == "done"
    assert done["samples"] == len(mel_NM) * HOP


def test_a_sentence_sounds_before_the_next_is_written(server, front):
    with server.open() as talk:
        write(talk, "One")
        assert server.channels_open() == 0
        write(talk, " two. Three")
        talk.event("audio.start")
        assert isinstance(talk.connection.recv(LONG), bytes)
        assert [text for text, *_ in front.asked] == ["One two."]
        talk.say("input.flush")
        _, done = talk.rest()
        assert done["samples"] == 3 * WORD_FRAMES * HOP


def test_a_flush_ends_an_utterance_and_text_after_it_begins_another(server):
    with server.open() as talk:
        for text in ("One. Two", "Three"):
            write(talk, text)
            talk.say("input.flush")
        for index, words in enumerate((2, 1)):
            start, _, done = talk.audio()
            assert start["utterance_index"] == index
            assert done["samples"] == words * WORD_FRAMES * HOP


def test_text_and_mel_take_turns_by_utterance(server, vocoder):
    with server.open() as talk:
        talk.config(seed=1)
        write(talk, "One")
        talk.say("input.flush")
        talk.mel(make_mel(5))
        talk.say("input.flush")
        talk.audio()
        assert b"".join(talk.audio()[1]) == pcm(vocoder.synthesize(make_mel(5), 1))


def test_a_cancel_drops_what_was_written_and_what_sounds(server, front):
    front.go_on.clear()
    with server.open() as talk:
        write(talk, "One two three. Four five. Si")
        talk.event("audio.start")
        assert isinstance(talk.connection.recv(LONG), bytes)
        talk.say("response.cancel")
        assert talk.rest()[1]["reason"] == "cancelled"
        assert talk.event("response.cancelled")["utterance_index"] == 0
        wait_until(lambda: server.channels_open() == 0)
        front.go_on.set()
        # the front end is told, too
        assert front.closed.wait(LONG)
        write(talk, "No. Seven")
        talk.say("input.done")
        assert talk.audio()[2]["samples"] == 2 * WORD_FRAMES * HOP
    assert [text for text, *_ in front.asked] == ["One two three.", "No.", "Seven"]


def test_a_client_who_leaves_stops_the_front_end(server, front):
    front.go_on.clear()
    with server.open() as talk:
        write(talk, "One two three. ")
        talk.event("audio.start")
        assert server.channels_open() == 1
    wait_until(lambda: server.channels_open() == 0)
    front.go_on.set()
    assert front.closed.wait(LONG)


def test_a_sentence_that_cant_be_spoken_is_told_and_left_out(server):
    with server.open() as talk:
        write(talk, "bad. One two.")
        talk.say("input.done")
        talk.event("audio.start")
        assert "has no sound" in talk.error()["message"]
        assert talk.rest()[1]["samples"] == 2 * WORD_FRAMES * HOP
        talk.event("session.done")


def test_a_front_end_that_breaks_ends_its_utterance_only(server, front, monkeypatch):
    with server.open() as talk:
        with monkeypatch.context() as patch:
            patch.setattr(front, "frames", lambda *_: (1 / 0 for _ in range(1)))
            write(talk, "One. ")
            talk.event("audio.start")
            assert "its log says why" in talk.error()["message"]
            assert talk.event("audio.done")["reason"] == "error"
        talk.say("input.flush")
        write(talk, "Two")
        talk.say("input.flush")
        assert talk.audio()[2]["reason"] == "done"


def test_nothing_written_is_nothing_to_say(server, front):
    with server.open() as talk:
        write(talk, "")
        talk.say("input.text", text="")
        talk.say("input.done")
        assert talk.event("session.done")["utterances"] == 0
        write(talk, " \n")
        talk.say("input.done")
        assert talk.audio()[2]["samples"] == 0
        talk.event("session.done")
    assert front.asked == []


@pytest.mark.parametrize("fields", [{}, {"text": 5}, {"text": None}, {"text": "a", "now": 1}])
def test_a_piece_of_text_is_a_string(server, fields):
    with server.open() as talk:
        talk.say("input.text", **fields)
        error = talk.error()
        assert "one field, text" in error["message"] and error["param"] == "text"


def test_an_utterance_has_a_longest_text(voice, front):
    with running(voice, text=front, text_characters=10) as server, server.open() as talk:
        assert talk.created["limits"]["utterance_characters"] == 10
        write(talk, "123456789")
        talk.say("input.text", text="10")
        assert talk.error()["code"] == "too_large"
        talk.say("input.done")
        talk.audio()
        talk.event("session.done")
    assert [text for text, *_ in front.asked] == ["123456789"]


def test_kinds_of_input_dont_mix_within_an_utterance(server):
    with server.open() as talk:
        write(talk, "One")
        talk.mel(make_mel(0)[:1])
        assert "of text, which comes in input.text" in talk.error()["message"]
        talk.say("response.cancel")
        talk.event("response.cancelled")
        talk.mel(make_mel(0)[:1])
        talk.event("audio.start")
        write(talk, "One")
        assert "of mel, which comes in binary messages" in talk.error()["message"]
        talk.say("response.cancel")
        talk.rest()
        talk.event("response.cancelled")
        assert talk.config(input="text")["input"] == "text"
        talk.mel(make_mel(0)[:1])
        assert "of text" in talk.error()["message"]


def test_the_readmes_client_gets_its_sentences(server, front, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    text = (Path(speech_socket.__file__).parent / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```py\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert "127.0.0.1:8000" in code
    exec(code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"), {})
    assert [text for text, *_ in front.asked] == ["The quick brown fox jumps.", "Over the dog."]
    wait_until(lambda: server.channels_open() == 0)
