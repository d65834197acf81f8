"""Server-sent events of OpenAI's speech endpoint, as the bytes of a `text/event-stream`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

MIME = "text/event-stream"


def delta(audio: bytes) -> bytes:
    """The event of more audio: bytes of the response's format, in base64."""
    return _event("speech.audio.delta", audio=base64.b64encode(audio).decode("ascii"))


def done(input_tokens: int, output_tokens: int) -> bytes:
    """The event of the end."""
    usage = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    return _event("speech.audio.done", usage=usage)


def error(error: Mapping[str, str | None]) -> bytes:
    """The event of a failure after the first byte, in place of the end.

    `error` holds what `error` in the body of a refused request does: message, type, param, code.
    """
    return _event("error", error=dict(error))


def _event(kind: str, **fields: object) -> bytes:
    # escaped, a line break can't end the event
    text = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"data: {text}\n\n".encode("ascii")
