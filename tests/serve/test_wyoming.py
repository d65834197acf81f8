import socket
import sys

import pytest
from typer.testing import CliRunner

pytest.importorskip("wyoming", reason="the extra wyoming isn't installed")

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.info import Describe
from wyoming.ping import Ping
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
)

from tests.serve import wyoming_client
from tests.serve.wyoming_client import (
    answer,
    receive,
    samples_of,
    say,
    talk,
)
from wavernn import cli
from wavernn.errors import ConfigError
from wavernn.serve.settings import read_address

front, serving = wyoming_client.front, wyoming_client.serving
RATE_HZ, HOP = 8000, 80


def test_a_description_has_the_voices(serving):
    async def conversation(client):
        await client.write_event(Describe().event())
        info = await receive(client)
        await client.write_event(Ping("x").event())
        return info, await receive(client)

    with serving() as server:
        info, pong = talk(server, conversation)
    (program,) = info.tts
    assert program.installed and program.supports_synthesize_streaming
    (voice,) = program.voices
    assert voice.name == "tiny" and voice.installed and "en" in voice.languages
    assert pong.text == "x"


@pytest.mark.parametrize("asked", [{}, {"name": "tiny"}, {"language": "en-GB"}])
def test_a_text_becomes_the_samples_of_its_mel(serving, front, make_mel, asked):
    with serving() as server:
        first, *chunks, last = talk(server, say("One three.", **asked))
    assert (first.rate, first.width, first.channels) == (RATE_HZ, 2, 1)
    assert isinstance(first, AudioStart) and isinstance(last, AudioStop)
    assert front.asked == [("One three.", "tiny", 1.0)]
    frames = sum(len(make_mel(n, wyoming_client.WORD_S)) for n in (3, 6))
    assert len(samples_of(chunks)) == 2 * frames * HOP
    assert last.timestamp == 1000 * frames * HOP // RATE_HZ
    assert [c.timestamp for c in chunks] == sorted({c.timestamp for c in chunks})


def test_sound_comes_before_the_text_is_at_its_end(serving, front):
    async def conversation(client):
        await client.write_event(Synthesize("One two").event())
        first = [await receive(client), await receive(client)]
        assert not front.go_on.is_set()
        front.go_on.set()
        return [*first, *await answer(client)]

    front.go_on.clear()
    with serving() as server:
        start, chunk, *rest = talk(server, conversation)
        labels = {"voice": "tiny", "transport": "wyoming", "reason": "done"}
        server.wait(lambda: server.number("wavernn_streams_total", **labels) == 1)
    assert isinstance(start, AudioStart) and len(chunk.audio) > 0
    assert isinstance(rest[-1], AudioStop)


def test_a_text_is_spoken_while_it_is_written(serving, front):
    async def conversation(client):
        await client.write_event(SynthesizeStart().event())
        for piece in ("On", "e tw", "o. ", "Thr"):
            await client.write_event(SynthesizeChunk(piece).event())
        begun = [await receive(client), await receive(client)]
        assert [text for text, *_ in front.asked] == ["One two."]
        await client.write_event(SynthesizeChunk("ee").event())
        # for servers that can't stream, and for this one no second time
        await client.write_event(Synthesize("One two. Three").event())
        await client.write_event(SynthesizeStop().event())
        streamed = begun + await answer(client, SynthesizeStopped)
        # the connection may be used again
        await client.write_event(Synthesize("Four").event())
        return streamed, await answer(client)

    with serving() as server:
        streamed, whole = talk(server, conversation)
    assert [type(e) for e in streamed if not isinstance(e, AudioChunk)] == [
        AudioStart,
        AudioStop,
        SynthesizeStopped,
    ]
    assert len(samples_of(streamed)) == 3 * len(samples_of(whole)) > 0
    assert [text for text, *_ in front.asked] == ["One two.", "Three", "Four"]


def test_a_text_of_nothing_has_an_end(serving):
    async def conversation(client):
        for event in (SynthesizeStart(), SynthesizeChunk(""), SynthesizeStop()):
            await client.write_event(event.event())
        return await answer(client, SynthesizeStopped)

    with serving() as server:
        assert [type(e) for e in talk(server, conversation)] == [SynthesizeStopped]


def test_a_sentence_that_cant_be_spoken_is_told_and_left_out(serving):
    with serving() as server:
        start, error, stop = talk(server, say("bad"))
    assert isinstance(start, AudioStart) and isinstance(stop, AudioStop)
    assert "has no sound" in error.text


# ---- the command ----


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10200", ("here", 10200)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:2", ("::1", 2)),
        (":3", ("here", 3)),
    ],
)
def test_an_address_is_a_port_with_or_without_a_host(text, address):
    assert read_address(text, "here") == address


@pytest.mark.parametrize("text", ["", "host", "host:", "::1", "::1:5", "a:b", "-1", "a:1.5"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigError, match=r"\[HOST:\]PORT"):
        read_address(text, "here")


@pytest.mark.parametrize(
    ("port", "words"), [("70000", "a port is a number"), ("taken", "can't listen at 127.0.0.1")]
)
def test_a_port_that_cant_be_had_is_told(port, words):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1]) if port == "taken" else port
        result = CliRunner().invoke(cli.app, ["serve", "--port", "0", "--wyoming", port])
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)


def test_without_the_package_its_command_is_told(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "wyoming" or "serve.wyoming" in n]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wyoming", None)
    result = CliRunner().invoke(cli.app, ["serve", "--port", "0", "--wyoming", "0"])
    assert isinstance(result.exception, ConfigError)
    assert "pip install 'wavernn[wyoming]'" in str(result.exception)
