"""What a session tells its client, for as long as the client takes it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any

from fastapi import WebSocket

from wavernn.serve.errors import ApiError, as_api_error

log = logging.getLogger(__name__)


class Stalled(TimeoutError):
    """The client took nothing for too long."""


class Sender(ABC):
    """Sends events, as `serve/protocol.py` has them, and audio.

    Its methods raise Stalled, and what tells that the client has gone.
    """

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        # when something was sent last, by time.monotonic
        self.sent_s = time.monotonic()

    @abstractmethod
    async def event(self, event: dict[str, Any]) -> None:
        """Sends an event."""

    @abstractmethod
    async def audio(self, data: bytes) -> None:
        """Sends audio of the utterance that began last."""

    async def error(self, error: BaseException) -> None:
        """Sends the event of an error, without what a client needn't know."""
        answer = self._answer(error)
        event: dict[str, Any] = {"type": "error", "error": answer.error}
        if "Retry-After" in answer.headers:
            event["retry_after_s"] = int(answer.headers["Retry-After"])
        await self.event(event)

    def _answer(self, error: BaseException) -> ApiError:
        if isinstance(error, TimeoutError):
            message = f"nothing came or could be sent for {self._idle_s:g} s"
            return ApiError(408, message, "timeout_error", code="idle_timeout")
        assert isinstance(error, Exception)
        answer = as_api_error(error)
        if answer.status == 500:
            log.error("a session failed", exc_info=error)
        return answer

    async def _sent(self, sending: Awaitable[None]) -> None:
        """Waits for something to be sent, but not for too long."""
        try:
            async with asyncio.timeout(self._idle_s):
                await sending
        except TimeoutError:
            raise Stalled from None
        self.sent_s = time.monotonic()


class SocketSender(Sender):
    """Sends events as JSON and audio as binary messages."""

    def __init__(self, socket: WebSocket, idle_s: float) -> None:
        super().__init__(idle_s)
        self._socket = socket

    async def event(self, event: dict[str, Any]) -> None:
        """Sends JSON; raises WebSocketDisconnect or Stalled."""
        await self._sent(self._socket.send_text(json.dumps(event)))

    async def audio(self, data: bytes) -> None:
        """Sends a binary message; raises WebSocketDisconnect or Stalled."""
        await self._sent(self._socket.send_bytes(data))
