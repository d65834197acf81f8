"""Sockets that may finish what they say when the server ends."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from wavernn.serve.protocol import RESTART_CODE

Base: Any = AutoWebSocketsProtocol or object


class SocketProtocol(Base):  # type: ignore[misc]
    """WebSocket as uvicorn speaks it, but told of the end in place of being cut off.

    The application sees a disconnect with the code 1012, may go on sending, and closes.
    """

    def shutdown(self) -> None:
        """Is called once, when the server has been told to end."""
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": RESTART_CODE})
        else:
            super().shutdown()
