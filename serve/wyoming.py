"""The Wyoming protocol, in which Home Assistant asks for speech: text in, audio out, over TCP.

A client sends describe, ping, synthesize, or synthesize-start, -chunk and -stop while its text is
being written. An answer is audio-start, audio-chunk... and audio-stop, behind which a streamed text
also has synthesize-stopped. An `error` that ends an answer is followed by the connection's end,
since clients wait for audio-stop and nothing else.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from functools import partial

from wyoming.event import Event
from wyoming.info import Describe
from wyoming.ping import Ping, Pong
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop

from wavernn.serve.errors import bad_request, not_implemented, too_large
from wavernn.serve.protocol import SessionConfig
from wavernn.serve.sender import Stalled
from wavernn.serve.service import Service
from wavernn.serve.speaker import Finish, Piece, Speaker
from wavernn.serve.utterance import Utterance
from wavernn.serve.wyoming_events import (
    HungUp,
    Reader,
    WyomingSender,
    config_of,
    info_of,
    text_of,
)

# in which a client that was told the end may take it
CLOSE_S = 2.0


class WyomingServer:
    """Speaks the protocol at a socket that listens."""

    def __init__(self, service: Service, listening: socket.socket) -> None:
        self._service, self.socket = service, listening
        self._sessions: set[Session] = set()
        self._ended = False

    async def start(self, tasks: set[asyncio.Task[None]]) -> asyncio.Server:
        """Starts to serve; keeps the task of each connection in `tasks`, which may be cancelled."""
        connected = partial(self._connected, tasks)
        limit = self._service.settings.text_bytes
        return await asyncio.start_server(connected, sock=self.socket, limit=limit)

    def end(self) -> None:
        """Has each session finish what it was sent, and close."""
        self._ended = True
        for session in list(self._sessions):
            session.end()

    async def _connected(
        self,
        tasks: set[asyncio.Task[None]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        session = Session(self._service, reader, writer)
        tasks.add(task)
        self._sessions.add(session)
        if self._ended:
            # it had come but not been seen
            session.end()
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            tasks.discard(task)
            writer.transport.abort()


class Session:
    """A client's connection: one task reads it, another speaks."""

    def __init__(
        self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._service, self._stream, self._writer = service, reader, writer
        self._reader = Reader(reader, service.settings.text_bytes)
        # none of a client that is gone already
        self._host = (writer.get_extra_info("peername") or ("",))[0]
        self._sender = WyomingSender(writer, service.settings.idle_s)
        self._ended = asyncio.Event()
        self._utterances = 0
        # while a text is being written
        self._config: SessionConfig | None = None
        self._heard: Utterance | None = None

    def end(self) -> None:
        """Takes nothing more; what has come is still spoken."""
        self._ended.set()

    async def run(self) -> None:
        """Serves until the client goes, is idle for too long, or was told of an error."""
        with suppress(ConnectionError, TimeoutError):
            try:
                client = self._service.admit(self._host)
                self._speaker = Speaker(self._service, client, self._sender, "wyoming")
                await self._converse()
            except HungUp:
                pass
            except (ConnectionError, Stalled):
                return
            except Exception as error:
                with suppress(HungUp):
                    await self._sender.error(error)
            await self._close()

    async def _close(self) -> None:
        """Ends the connection so that the client may take the last of it."""
        if self._writer.is_closing():
            return
        async with asyncio.timeout(CLOSE_S):
            await self._writer.drain()
            self._writer.write_eof()
            # to close it with something unread would take from the client what is on its way
            while await self._stream.read(1 << 16):
                pass

    async def _converse(self) -> None:
        tasks = [asyncio.create_task(part) for part in (self._read(), self._speaker.run())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    # ---- the task that reads ----

    async def _read(self) -> None:
        """Takes events until the end; raises ConnectionError where the client goes."""
        while (event := await self._next()) is not None:
            await self._take(event)
        await self._flush()
        if self._config is not None:
            self._sender.texts += 1
        # behind what is still spoken
        await self._speaker.inbox.put(Finish(self._utterances, last=True))
        await asyncio.get_running_loop().create_future()

    async def _next(self) -> Event | None:
        """The next event; None when the service is about to end. Raises TimeoutError."""
        # to cut it off could leave half an event behind
        reading = asyncio.ensure_future(self._reader.event())
        ending = asyncio.ensure_future(self._ended.wait())
        try:
            while True:
                waiting_s = time.monotonic()
                done, _ = await asyncio.wait(
                    (reading, ending),
                    timeout=self._service.settings.idle_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if done:
                    return None if ending in done else await reading
                # who listens needn't say anything
                if self._sender.sent_s < waiting_s:
                    raise TimeoutError
        finally:
            reading.cancel()
            ending.cancel()

    async def _take(self, event: Event) -> None:
        kind = event.type
        if Describe.is_type(kind):
            await self._sender.send(info_of(self._service))
        elif Ping.is_type(kind):
            # half a surrogate pair can't be sent back as it is
            text = str(event.data.get("text") or "").encode("utf-8", "replace").decode()
            await self._sender.send(Pong(text))
        elif SynthesizeStart.is_type(kind):
            await self._flush()
            self._config = config_of(event)
        # sent besides to servers that don't know the others
        elif Synthesize.is_type(kind) and self._config is None:
            await self._speak_whole(text_of(event), config_of(event))
        elif SynthesizeChunk.is_type(kind):
            if text := text_of(event):
                await self._speak_more(text)
        elif SynthesizeStop.is_type(kind):
            await self._flush()
            self._config = None
            self._sender.texts += 1
            await self._speaker.inbox.put(Finish(self._utterances))

    async def _speak_whole(self, text: str, config: SessionConfig) -> None:
        most = self._service.settings.text_characters
        if len(text) > most:
            raise too_large(f"the text has {len(text)} characters, more than {most}")
        utterance = self._begin(config)
        for content in (text, None):
            await self._speaker.inbox.put(Piece(utterance, content), len(content or ""))

    async def _speak_more(self, text: str) -> None:
        if self._config is None:
            raise bad_request("synthesize-chunk comes after synthesize-start")
        if self._heard is None:
            self._heard = self._begin(self._config)
        for sentence in self._heard.sentences(text):
            await self._speaker.inbox.put(Piece(self._heard, sentence), len(sentence))

    async def _flush(self) -> None:
        utterance, self._heard = self._heard, None
        if utterance is not None:
            if (rest := utterance.rest()) is not None:
                await self._speaker.inbox.put(Piece(utterance, rest), len(rest))
            await self._speaker.inbox.put(Piece(utterance, None))

    def _begin(self, config: SessionConfig) -> Utterance:
        if self._service.text is None:
            raise not_implemented("this server can't make speech from text")
        name, engine = self._service.engine(config.voice)
        if self._utterances:
            # each is a request; the first came with the connection
            self._speaker.client = self._service.admit(self._host)
        self._utterances += 1
        index, settings = self._utterances - 1, self._service.settings
        return Utterance(index, config, name, engine, settings, written=True)
