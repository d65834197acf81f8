"""The live socket: a microphone's audio in, the same said by the voice out."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket

from wavernn.serve.protocol import SessionConfig
from wavernn.serve.socket import serve

router = APIRouter()


@router.websocket("/v1/live")
async def live(socket: WebSocket) -> None:
    """Is the speech socket with audio as input, 16-bit at the voice's rate unless told otherwise.

    Messages may have any length; `audio.start` says the delay, `audio.done` how deadlines were met.
    """
    await serve(socket, SessionConfig(input="audio"))
