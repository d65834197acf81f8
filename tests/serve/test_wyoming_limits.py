import json
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("wyoming", reason="the extra wyoming isn't installed")

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStopped,
)

from tests.serve import wyoming_client
from tests.serve.fronts import LONG, Words
from tests.serve.wyoming_client import (
    answer,
    client_of,
    error_of,
    event,
    receive,
    samples_of,
    say,
    send,
    talk,
)

front, serving = wyoming_client.front, wyoming_client.serving
RATE_HZ = 8000


REFUSED = {
    "voice": (event("synthesize", text="a", voice={"name": "x"}), "unknown voice 'x'"),
    "language": (event("synthesize", text="a", voice={"language": "fr"}), "English only"),
    "voice kind": (event("synthesize", text="a", voice=5), "voice is an object"),
    "voice name": (event("synthesize", text="a", voice={"name": 5}), "name is a string"),
    "ssml": (event("synthesize", text="<a/>", text_format="ssml"), "plain text"),
    "no text": (event("synthesize"), "needs a text"),
    "text": (event("synthesize", text=5), "needs a text"),
    "long": (event("synthesize", text="a" * 41), "41 characters, more than 40"),
    "chunk first": (event("synthesize-chunk", text="a"), "after synthesize-start"),
    "payload": (Event("x", payload=bytes(1 << 20)), "at most 16864 bytes"),
    "fields": (event("x", a="a" * 20_000), "at most 16864 bytes"),
}


@pytest.mark.parametrize(("sent", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_told_in_a_sentence(serving, sent, words):
    with serving(text_characters=40) as server:
        assert words in error_of(server, send(sent)).text


@pytest.mark.parametrize(
    "line", [b"x\n", b"null\n", b"{}\n", b"[" * 9000 + b"\n", b'{"type":"x","data":5}\n', b"\xff\n"]
)
def test_what_is_no_event_is_told(serving, line):
    async def conversation(client):
        client._writer.write(line)
        return [await receive(client)]

    with serving() as server:
        assert "a line of JSON" in error_of(server, conversation).text


def test_a_line_without_end_is_cut_off(serving):
    with serving(text_characters=40) as server:
        address = server.server.wyoming.socket.getsockname()
        with socket.create_connection(address, timeout=LONG) as connection:
            connection.sendall(b"a" * 30_000)
            got = b""
            while more := connection.recv(1000):
                got += more
    assert json.loads(got.split(b"\n")[0])["type"] == "error"
    assert b"at most 16864 bytes" in got


def test_unknown_events_are_passed_over(serving):
    async def conversation(client):
        await client.write_event(event("select-program", name="wavernn"))
        await client.write_event(event("sing"))
        return await say("One")(client)

    with serving() as server:
        assert isinstance(talk(server, conversation)[-1], AudioStop)


def test_without_a_front_end_nothing_is_installed(serving):
    async def describe(client):
        await client.write_event(Describe().event())
        return await receive(client)

    with serving(text=None) as server:
        assert not talk(server, describe).tts[0].installed
        assert "speech from text" in error_of(server, say("One")).text


def test_limits_are_those_of_the_other_routes(serving, front):
    with serving(channels=1, requests_per_minute=3) as server:
        channel = server.service.engines["tiny"].open()
        assert error_of(server, say("One"), open_channels=1).code == "overloaded"
        channel.cancel()
        server.wait(lambda: server.open_channels == 0)

        async def twice(client):
            return [*await say("One")(client), *await say("Two")(client)]

        assert isinstance(talk(server, twice)[-1], AudioStop)
        assert error_of(server, say("One")).code == "rate_limit_exceeded"


def test_a_front_end_that_breaks_ends_the_connection(serving):
    async def conversation(client):
        events = await say("One broken")(client)
        return events, await receive(client)

    with serving() as server:
        events, end = talk(server, conversation)
        assert end is None
        assert [type(e) for e in events if not isinstance(e, AudioChunk)] == [
            AudioStart,
            Error,
            AudioStop,
        ]
        server.wait(lambda: server.open_channels == 0)


@pytest.mark.parametrize("abruptly", [False, True])
def test_a_client_who_leaves_frees_its_channel(serving, front, abruptly):
    async def conversation(client):
        await client.write_event(Synthesize("One two three").event())
        await receive(client)
        assert server.open_channels == 1
        if abruptly:
            raw = client._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    front.go_on.clear()
    with serving() as server:
        talk(server, conversation)
        server.wait(lambda: server.open_channels == 0)
        front.go_on.set()
        assert front.closed.wait(LONG)
        server.wait(lambda: not server.server.server_state.tasks)


def test_a_client_who_takes_nothing_is_cut_off(serving, front, make_mel, small_buffers):
    front.frames = lambda *_: (make_mel(1, 40.0) for _ in range(100))
    with serving(idle_s=0.5) as server:
        address = server.server.wyoming.socket.getsockname()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(LONG)
            connection.connect(address)
            connection.sendall(b'{"type":"synthesize","data":{"text":"a"}}\n')
            server.wait(lambda: server.open_channels == 1)
            server.wait(lambda: server.open_channels == 0)
            assert server.service.engines["tiny"].totals.samples < 400 * RATE_HZ


def test_an_idle_client_is_told_and_closed(serving):
    async def conversation(client):
        return [await receive(client)]

    with serving(idle_s=0.2) as server:
        assert error_of(server, conversation).code == "idle_timeout"


def test_a_service_that_ends_finishes_what_it_was_sent(serving, front):
    async def conversation(client):
        await client.write_event(SynthesizeStart().event())
        await client.write_event(SynthesizeChunk("One two. Thr").event())
        await receive(client)
        # is idle, and needn't be waited for
        async with client_of(server) as idle:
            server.tell_to_end()
            assert await receive(idle) is None
        front.go_on.set()
        return [*await answer(client, SynthesizeStopped), await receive(client)]

    front.go_on.clear()
    with serving(drain_s=LONG) as server:
        *events, stopped, end = talk(server, conversation)
        server.thread.join(LONG)
        assert not server.thread.is_alive()
    assert isinstance(stopped, SynthesizeStopped) and end is None
    assert [text for text, *_ in front.asked] == ["One two.", "Thr"]
    assert len(samples_of(events)) > 0


def test_a_service_that_ends_waits_for_so_long_only(serving, front):
    async def conversation(client):
        await client.write_event(Synthesize("One two").event())
        await receive(client)
        server.tell_to_end()
        return await answer(client)

    front.go_on.clear()
    with serving(drain_s=1.0) as server:
        assert not any(isinstance(e, AudioStop) for e in talk(server, conversation))
        front.go_on.set()


def test_a_key_of_the_http_routes_isnt_asked_for(serving):
    with serving(api_keys=("key-of-a-test",)) as server:
        assert isinstance(talk(server, say("One"))[-1], AudioStop)


# with halves of surrogate pairs
TEXT = st.text(st.characters(), max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
KINDS = ["synthesize", "synthesize-start", "synthesize-chunk", "synthesize-stop", "ping"]
EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS) | VALUES},
    optional={
        "data": st.dictionaries(st.sampled_from(["text", "voice", "text_format"]), VALUES) | VALUES,
        "data_length": VALUES,
        "payload_length": VALUES,
    },
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=st.lists(EVENTS, max_size=4), rest=st.binary(max_size=20))
def test_any_events_are_answered_or_passed_over(fuzzed, events, rest):
    async def conversation(client):
        lines = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        client._writer.write(lines + rest)
        client._writer.write_eof()
        return await answer(client, type(None))

    for came in talk(fuzzed, conversation):
        if isinstance(came, Error):
            assert came.text and "log says why" not in came.text
    fuzzed.wait(lambda: fuzzed.open_channels == 0)
    assert fuzzed.service.state == "ready"


@pytest.fixture(scope="module")
def fuzzed(start, make_mel):
    text = Words(lambda characters: make_mel(characters, wyoming_client.WORD_S))
    with start(text=text, wyoming=("127.0.0.1", 0)) as server:
        yield server
