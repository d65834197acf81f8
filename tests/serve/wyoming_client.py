"""A client of the Wyoming protocol for tests: the package's own, and what is said with it."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Info
from wyoming.ping import Pong
from wyoming.tts import Synthesize, SynthesizeStopped, SynthesizeVoice

from tests.serve.fronts import LONG, Words

WORD_S = 0.2
KINDS = (AudioStart, AudioChunk, AudioStop, Error, Info, Pong, SynthesizeStopped)


@pytest.fixture
def front(make_mel):
    return Words(lambda characters: make_mel(characters, WORD_S))


@pytest.fixture
def serving(start, front):
    def started(**settings):
        return start(**{"text": front, "wyoming": ("127.0.0.1", 0), **settings})

    return started


@asynccontextmanager
async def client_of(server):
    host, port = server.server.wyoming.socket.getsockname()
    async with AsyncTcpClient(host, port, LONG, LONG) as client:
        yield client


def talk(server, conversation):
    """Runs a conversation with a client; an event that doesn't come fails it."""

    async def run():
        async with asyncio.timeout(LONG), client_of(server) as client:
            return await conversation(client)

    return asyncio.run(run())


async def receive(client):
    """The next event, None at the end of the connection."""
    try:
        event = await client.read_event()
    except ConnectionResetError:
        return None
    if event is None:
        return None
    (kind,) = (kind for kind in KINDS if kind.is_type(event.type))
    return kind.from_event(event)


async def answer(client, last=AudioStop):
    """All events up to one of a kind, or the end."""
    events = []
    while (event := await receive(client)) is not None:
        events.append(event)
        if isinstance(event, last):
            break
    return events


def samples_of(events):
    return b"".join(e.audio for e in events if isinstance(e, AudioChunk))


def say(text, **voice):
    asked = Synthesize(text, SynthesizeVoice(**voice) if voice else None)

    async def conversation(client):
        await client.write_event(asked.event())
        return await answer(client)

    return conversation


def error_of(server, conversation, open_channels=0):
    """The only event, which is an error, behind which the connection ends."""

    async def all_of(client):
        events = await conversation(client)
        return [*events, await receive(client)]

    error, end = talk(server, all_of)
    assert isinstance(error, Error) and end is None
    assert error.text and "Traceback" not in error.text
    server.wait(lambda: server.open_channels == open_channels)
    return error


def send(*events):
    async def conversation(client):
        for event in events:
            await client.write_event(event)
        return [await receive(client)]

    return conversation


def event(kind, **data):
    return Event(kind, data)
