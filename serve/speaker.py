"""The side of a session that speaks: one utterance after the other, until it's cancelled."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from fastapi import WebSocketDisconnect

from wavernn.errors import WaveRNNError
from wavernn.serve import protocol
from wavernn.serve.codecs import CODECS
from wavernn.serve.errors import ApiError
from wavernn.serve.formats import Encoder
from wavernn.serve.inbox import Inbox
from wavernn.serve.listener import Listener, push_pieces
from wavernn.serve.security import Client
from wavernn.serve.sender import Sender, Stalled
from wavernn.serve.service import Service
from wavernn.serve.utterance import Utterance

# of audio that a codec takes at once, while the event loop waits
PIECE_S = 0.04


@dataclass(frozen=True)
class Piece:
    """Mel frames [n, M] or text of an utterance, in the order in which they came.

    None is its end.
    """

    utterance: Utterance
    content: np.ndarray | str | None


@dataclass(frozen=True)
class Finish:
    """Asks for session.done once all before it is spoken, and perhaps for the session's end."""

    utterances: int
    last: bool = False


class Speaker:
    """Takes utterances from an inbox, opens a channel for each and sends what it says."""

    def __init__(
        self, service: Service, client: Client, sender: Sender, transport: str = "websocket"
    ) -> None:
        self._service, self._sender, self._transport = service, sender, transport
        # whose share utterances count for
        self.client = client
        self.inbox: Inbox[Piece | Finish] = Inbox(protocol.AHEAD_BYTES)
        self._spoken: tuple[Utterance, asyncio.Task[None]] | None = None

    async def run(self) -> None:
        """Speaks until the last utterance, or until what it raises."""
        while True:
            item = await self.inbox.get()
            if isinstance(item, Finish):
                await self._sender.event({"type": "session.done", "utterances": item.utterances})
                if item.last:
                    return
            # of one that was refused or failed, the rest is passed over
            elif not item.utterance.over:
                task = asyncio.create_task(self._utter(item))
                self._spoken = item.utterance, task
                try:
                    await asyncio.wait([task])
                finally:
                    task.cancel()
                    self._spoken = None
                if not task.cancelled() and (error := task.exception()):
                    raise error

    async def cancel(self) -> int | None:
        """Drops all that waits and stops what sounds, whose index it returns.

        Must not be called while the inbox is being filled.
        """
        self.inbox.clear()
        if self._spoken is None:
            return None
        utterance, task = self._spoken
        utterance.over = True
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            # it had just come to its end
            return None
        if utterance.started:
            await self._sender.event(utterance.done_event("cancelled"))
        return utterance.index

    async def _utter(self, first: Piece) -> None:
        """Speaks an utterance; raises only what ends the session."""
        utterance = first.utterance
        config, settings = utterance.config, self._service.settings
        listening = self._service.listen(
            self.client, utterance.voice, utterance.seed, config.temperature, self._transport
        )
        try:
            async with asyncio.timeout(settings.stream_s), listening as listener:
                feeding = asyncio.create_task(self._feed(listener, first))
                try:
                    await self._say(utterance, listener)
                    await feeding
                finally:
                    feeding.cancel()
            await self._sender.event(utterance.done_event("done"))
        except (WebSocketDisconnect, ConnectionError, Stalled):
            raise
        except Exception as error:
            if isinstance(error, TimeoutError):
                error = ApiError(
                    408, f"an utterance must be over in {settings.stream_s:g} s", "timeout_error"
                )
            await self._sender.error(error)
            if utterance.started:
                await self._sender.event(utterance.done_event("error"))
        finally:
            utterance.over = True

    async def _feed(self, listener: Listener, first: Piece) -> None:
        piece: Piece | Finish = first
        try:
            # an end comes before any other's frames
            while isinstance(piece, Piece) and piece.content is not None:
                if isinstance(piece.content, str):
                    await self._speak_text(listener, piece.utterance, piece.content)
                else:
                    await listener.channel.apush(piece.content)
                piece = await self.inbox.get()
        except BaseException:
            # wakes who waits for samples
            listener.channel.cancel()
            raise
        listener.channel.end()

    async def _speak_text(self, listener: Listener, utterance: Utterance, text: str) -> None:
        """Gives the channel the mel of a text; one that can't be spoken is told and left out."""
        service = self._service
        assert service.text is not None
        loop = asyncio.get_running_loop()
        try:
            pieces = service.text.frames(text, utterance.voice, utterance.config.speed)
            await loop.run_in_executor(service.writers, push_pieces, listener.channel, pieces)
        except WaveRNNError as error:
            await self._sender.error(error)

    async def _say(self, utterance: Utterance, listener: Listener) -> None:
        config = utterance.config
        with Encoder(config.format, utterance.engine.rate_hz) as encoder:
            utterance.started = True
            await self._sender.event(utterance.start_event(encoder.rate_hz))
            piece = (
                round(PIECE_S * utterance.engine.rate_hz) if config.format in CODECS else 1 << 30
            )
            async for samples_T in listener:
                for start in range(0, len(samples_T), piece):
                    part_T = samples_T[start : start + piece]
                    await self._chunk(utterance, len(part_T), encoder.encode(part_T))
            await self._chunk(utterance, 0, encoder.finish())

    async def _chunk(self, utterance: Utterance, samples: int, data: bytes) -> None:
        if data:
            header = b""
            if utterance.config.numbered:
                header = protocol.CHUNK_HEADER.pack(utterance.index, utterance.chunks)
            await self._sender.audio(header + data)
        if data or samples:
            utterance.sent(samples, len(data))
