"""The speech socket: mel, microphone audio or text in, audio out, several utterances a session.

One task reads the socket and another speaks, so that a cancel is seen while audio is on its way.
Between them lies a bounded queue: where the engine is behind by more than that, nothing is read,
and the client's own sending waits; where the client is behind, sending to it waits, then the
channel, then the engine leaves it out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from wavernn.serve import protocol
from wavernn.serve.errors import ApiError, bad_request
from wavernn.serve.handshake import check_origin, credential, subprotocol
from wavernn.serve.protocol import SessionConfig
from wavernn.serve.security import Client
from wavernn.serve.sender import SocketSender
from wavernn.serve.service import Service
from wavernn.serve.speaker import Finish, Piece, Speaker
from wavernn.serve.utterance import Utterance

router = APIRouter()

# in which a client that has been told the end may answer
CLOSE_S = 2.0


@router.websocket("/v1/audio/speech/stream")
async def speech_stream(socket: WebSocket) -> None:
    """Speaks utterances as their input arrives; `serve/protocol.py` has the words."""
    await serve(socket, SessionConfig())


async def serve(socket: WebSocket, config: SessionConfig) -> None:
    """Admits a client and serves its session, which begins with `config`."""
    service: Service = socket.app.state.service
    host = socket.client.host if socket.client else ""

    def admit() -> Client:
        return service.authorise(credential(socket), host)

    try:
        check_origin(socket, service.settings.cors_origins)
        client = admit()
        service.engine(None)
    except ApiError as error:
        await socket.send_denial_response(error.response())
        return
    await socket.accept(subprotocol(socket))
    # a client that is gone needs no answer
    with suppress(WebSocketDisconnect, OSError):
        await Session(socket, service, client, admit, config).run()


class Session:
    """A socket's conversation."""

    def __init__(
        self,
        socket: WebSocket,
        service: Service,
        client: Client,
        admit: Callable[[], Client],
        config: SessionConfig,
    ) -> None:
        self._socket, self._service, self._admit = socket, service, admit
        self._config = config
        self._sender = SocketSender(socket, service.settings.idle_s)
        self._speaker = Speaker(service, client, self._sender)
        self._utterances = 0
        # that which input belongs to
        self._heard: Utterance | None = None

    async def run(self) -> None:
        """Serves until the client closes or goes, or is idle for too long."""
        await self._sender.event(self._created())
        tasks = [asyncio.create_task(part) for part in (self._read(), self._speaker.run())]
        failure = None
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            failure = next((e for task in done if (e := task.exception())), None)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if isinstance(failure, WebSocketDisconnect | OSError) and not isinstance(
            failure, TimeoutError
        ):
            return
        code = protocol.RESTART_CODE if tasks[1] in done else 1000
        if failure is not None:
            code = protocol.IDLE_CODE if isinstance(failure, TimeoutError) else 1011
        with suppress(TimeoutError, RuntimeError):
            async with asyncio.timeout(CLOSE_S):
                if failure is not None:
                    await self._sender.error(failure)
                await self._socket.close(code)

    # ---- the task that reads ----

    async def _read(self) -> None:
        """Takes messages until session.close; raises TimeoutError where none comes."""
        while (received := await self._receive()) is not None:
            text, data = received.get("text"), received.get("bytes")
            try:
                if text is not None:
                    if await self._control(*protocol.message(text)):
                        return
                elif data is not None:
                    await self._take(data)
            except (WebSocketDisconnect, OSError, asyncio.CancelledError):
                raise
            except Exception as error:
                await self._sender.error(error)
        # what has come is still spoken, and then the speaker ends the session
        await self._flush()
        await self._speaker.inbox.put(Finish(self._utterances, last=True))
        await asyncio.get_running_loop().create_future()

    async def _receive(self) -> dict[str, Any] | None:
        """The next message; None when the service is about to end."""
        idle_s = self._service.settings.idle_s
        while True:
            waiting_s = time.monotonic()
            try:
                async with asyncio.timeout(idle_s):
                    received = await self._socket.receive()
            except TimeoutError:
                # who listens needn't say anything
                if self._sender.sent_s < waiting_s:
                    raise
                continue
            if received["type"] == "websocket.disconnect":
                if received["code"] == protocol.RESTART_CODE:
                    return None
                raise WebSocketDisconnect(received["code"])
            return dict(received)

    async def _control(self, kind: str, fields: dict[str, Any]) -> bool:
        """Does what a JSON message says; True for the end of the session."""
        if kind not in ("session.config", "input.text") and fields:
            raise bad_request(f"{kind} has no fields, got {', '.join(fields)[:64]}")
        match kind:
            case "session.config":
                config = self._config.updated(fields)
                self._service.engine(config.voice)
                if config.input == "text":
                    self._check_text()
                self._config = config
                await self._sender.event({"type": "session.updated", "config": config.model_dump()})
            case "input.text":
                self._check_text()
                if text := protocol.text_of(fields):
                    await self._take(text)
            case "input.flush":
                await self._flush()
            case "input.done":
                await self._flush()
                await self._speaker.inbox.put(Finish(self._utterances))
            case "response.cancel":
                await self._cancel()
            case "session.close":
                return True
            case _:
                raise bad_request(f"unknown type {kind[:64]!r}", "type")
        return False

    def _check_text(self) -> None:
        if self._service.text is None:
            raise protocol.no_text()

    async def _take(self, message: bytes | str) -> None:
        written = isinstance(message, str)
        utterance = self._heard or self._begin(written)
        if utterance.over:
            # it was refused or has failed, which the client was told
            return
        known: list[np.ndarray | str] = []
        if isinstance(message, str):
            known += utterance.sentences(message)
        elif (mel_NM := await utterance.frames(message)) is not None:
            known.append(mel_NM)
        if self._heard is None:
            self._heard = utterance
            self._utterances += 1
            if utterance.index:
                # each utterance is a request; the first came with the handshake
                utterance.over = True
                self._speaker.client = self._admit()
                utterance.over = False
        for content in known:
            await self._say(utterance, content)

    async def _say(self, utterance: Utterance, content: np.ndarray | str) -> None:
        size = len(content) if isinstance(content, str) else content.nbytes
        await self._speaker.inbox.put(Piece(utterance, content), size)

    def _begin(self, written: bool) -> Utterance:
        voice, engine = self._service.engine(self._config.voice)
        settings = self._service.settings
        return Utterance(self._utterances, self._config, voice, engine, settings, written)

    async def _flush(self) -> None:
        utterance, self._heard = self._heard, None
        if utterance is None or utterance.over:
            return
        if (content := utterance.rest()) is not None:
            await self._say(utterance, content)
        await self._speaker.inbox.put(Piece(utterance, None))

    async def _cancel(self) -> None:
        self._heard = None
        index = await self._speaker.cancel()
        await self._sender.event({"type": "response.cancelled", "utterance_index": index})

    def _created(self) -> dict[str, Any]:
        voices = [
            {
                "id": name,
                "sample_rate": engine.rate_hz,
                "hop_samples": engine.hop_samples,
                "bands": engine.bands,
            }
            for name, engine in self._service.engines.items()
        ]
        return {
            "type": "session.created",
            "config": self._config.model_dump(),
            "voices": voices,
            "limits": {
                "message_bytes": protocol.MOST_BYTES,
                "ahead_bytes": protocol.AHEAD_BYTES,
                "idle_s": self._service.settings.idle_s,
                "utterance_s": self._service.settings.mel_s,
                "utterance_characters": self._service.settings.text_characters,
            },
        }
