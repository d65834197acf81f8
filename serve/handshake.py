"""Who may open a socket: keys by header or subprotocol, and pages of this site only."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi import WebSocket

from wavernn.serve.errors import ApiError
from wavernn.serve.protocol import KEY_PROTOCOL


def credential(socket: WebSocket) -> str | None:
    """The header Authorization, or what stands for it in the list of subprotocols."""
    if (given := socket.headers.get("authorization")) is not None:
        return given
    keys = (p.removeprefix(KEY_PROTOCOL) for p in _offered(socket) if p.startswith(KEY_PROTOCOL))
    key = next(keys, None)
    return None if key is None else f"Bearer {key}"


def subprotocol(socket: WebSocket) -> str | None:
    """The subprotocol to accept: the first that holds no key; browsers insist on one they offer."""
    return next((p for p in _offered(socket) if not p.startswith(KEY_PROTOCOL)), None)


def check_origin(socket: WebSocket, origins: Sequence[str]) -> None:
    """Refuses a page of another site (ApiError 403), which browsers let open any socket.

    Clients that aren't browsers send no origin.
    """
    origin = socket.headers.get("origin")
    if origin is None or "*" in origins or origin in origins:
        return
    if urlsplit(origin).netloc.lower() != socket.headers.get("host", "").lower():
        raise ApiError(
            403,
            "pages of other sites may not use this server's sockets; it must be told of the origin",
            "invalid_request_error",
            code="origin_not_allowed",
        )


def _offered(socket: WebSocket) -> list[str]:
    offered: list[str] = socket.scope.get("subprotocols", [])
    return offered
