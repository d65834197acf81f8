"""The events of the Wyoming protocol: read and checked, or made of what a speaker says."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, async_write_event
from wyoming.info import Attribution, Info, TtsProgram, TtsVoice
from wyoming.tts import SynthesizeStopped

from wavernn import __version__
from wavernn.serve.errors import ApiError, bad_request, too_large
from wavernn.serve.protocol import SessionConfig
from wavernn.serve.sender import Sender
from wavernn.serve.service import Service

# of the samples, which are mono
WIDTH_BYTES = 2
# what the front end reads
LANGUAGES = ("en", "en-US")


class HungUp(ConnectionError):
    """The client was told of an error, behind which nothing comes."""


class WyomingSender(Sender):
    """Says in this protocol what a speaker says in that of `serve/protocol.py`."""

    def __init__(self, writer: asyncio.StreamWriter, idle_s: float) -> None:
        super().__init__(idle_s)
        self._writer = writer
        self._rate_hz = self._sent_bytes = 0
        # between audio-start and audio-stop
        self._sounds = False
        # that were streamed, and whose end is still to be told
        self.texts = 0

    async def event(self, event: dict[str, Any]) -> None:
        """Sends what stands for an event; raises HungUp behind an error that ends an answer."""
        match event["type"]:
            case "audio.start":
                self._rate_hz, self._sent_bytes, self._sounds = event["sample_rate"], 0, True
                await self.send(AudioStart(self._rate_hz, WIDTH_BYTES, 1, timestamp=0))
            case "audio.done":
                self._sounds = False
                await self.send(AudioStop(timestamp=self._now_ms()))
                if event["reason"] == "error":
                    raise HungUp
            case "session.done" if self.texts:
                self.texts -= 1
                await self.send(SynthesizeStopped())
            case "error":
                error = event["error"]
                await self.send(Error(error["message"], error["code"] or error["type"]))
                if not self._sounds:
                    raise HungUp

    async def audio(self, data: bytes) -> None:
        """Sends samples of 16 bit."""
        chunk = AudioChunk(self._rate_hz, WIDTH_BYTES, 1, data, timestamp=self._now_ms())
        self._sent_bytes += len(data)
        await self.send(chunk)

    async def send(self, event: Eventable) -> None:
        """Sends an event; raises Stalled, and ConnectionError where the client has gone."""
        await self._sent(async_write_event(event.event(), self._writer))

    def _now_ms(self) -> int:
        return 1000 * self._sent_bytes // (WIDTH_BYTES * max(self._rate_hz, 1))


class Reader:
    """Reads events whose parts are bounded."""

    def __init__(self, reader: asyncio.StreamReader, most_bytes: int) -> None:
        self._reader, self._most_bytes = reader, most_bytes

    async def event(self) -> Event:
        """The next event; raises ApiError, and ConnectionError at the end."""
        try:
            event = await async_read_event(cast(asyncio.StreamReader, self))
        except EOFError:
            raise ConnectionResetError from None
        except (AttributeError, KeyError, TypeError, RecursionError):
            event = None
        if event is None and self._reader.at_eof():
            raise ConnectionResetError
        if event is None or not isinstance(event.data, dict):
            raise bad_request("an event is a line of JSON with a type and data, see wyoming")
        return event

    async def readline(self) -> bytes:
        """Does what the stream's own does, in which a line without end is any wrong value."""
        try:
            return await self._reader.readline()
        except ValueError:
            raise self._too_large() from None

    async def readexactly(self, count: int) -> bytes:
        """Does what the stream's own does, for so many bytes at most."""
        if count > self._most_bytes:
            raise self._too_large()
        return await self._reader.readexactly(count)

    def _too_large(self) -> ApiError:
        return too_large(f"a part of an event has at most {self._most_bytes} bytes")


def text_of(event: Event) -> str:
    """The text of an event; raises ApiError."""
    text = event.data.get("text")
    if not isinstance(text, str):
        raise bad_request(f"{event.type} needs a text, which is a string", "text")
    return text


def config_of(event: Event) -> SessionConfig:
    """The voice that an event asks for; raises ApiError where it can't be had."""
    if event.data.get("text_format") not in (None, "text"):
        raise bad_request("only plain text can be spoken; send it without tags", "text_format")
    voice = event.data.get("voice") or {}
    if not isinstance(voice, dict):
        raise bad_request("voice is an object with a name, as in info", "voice")
    name, language = voice.get("name"), voice.get("language")
    if not isinstance(name, str | None):
        raise bad_request("a voice's name is a string, as in info", "voice")
    if name is None and language is not None and str(language)[:2].lower() != LANGUAGES[0]:
        raise bad_request("the voices speak English only", "voice")
    return SessionConfig(voice=name)


def info_of(service: Service) -> Info:
    """What the service has to say: its voices, installed where there's text to speech at all."""
    common: dict[str, Any] = {
        "attribution": Attribution("wavernn", ""),
        "installed": service.text is not None,
        "version": __version__,
    }
    voices = [
        TtsVoice(name, description=name, languages=list(LANGUAGES), **common)
        for name in service.engines
    ]
    program = TtsProgram(
        "wavernn",
        description="Speech, sample by sample",
        voices=voices,
        supports_synthesize_streaming=True,
        **common,
    )
    return Info(tts=[program])
