"""A client of HTTP/1.1 that only measures: it counts the bytes of an answer and their times.

It's written on asyncio's transports, since a general client's work for each piece of audio would be
time that the server lacks where both share a machine.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlencode, urlsplit

from wavernn.errors import ConfigError
from wavernn.serve.listened import Listened

# of a WAV file, before its samples
WAV_HEADER_BYTES = 44
# where an answer doesn't say it, as OpenAI's
USUAL_RATE_HZ = 24_000
MOST_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Target:
    """Where requests go and what they say, but for their seeds."""

    host: str
    port: int
    path: str
    tls: bool
    body: bytes
    format: str
    voice: str | None = None
    key: str | None = None
    # to be spoken, instead of the body's mel
    text: str | None = None

    @classmethod
    def of(
        cls,
        url: str,
        body: bytes,
        format: str,
        voice: str | None = None,
        key: str | None = None,
        text: str | None = None,
    ) -> Target:
        """Reads a server's URL; raises ConfigError."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise ConfigError(f"expected a URL such as http://127.0.0.1:8000, got {url}")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ConfigError("an API key has printable ASCII characters only")
        tls = parts.scheme == "https"
        path = parts.path.rstrip("/") + ("/v1/audio/speech" if text else "/v1/vocode")
        port = port or (443 if tls else 80)
        return cls(parts.hostname, port, path, tls, body, format, voice, key, text)

    def request(self, seed: int) -> bytes:
        """The bytes of a request."""
        query: dict[str, str | int] = {"seed": seed}
        if self.voice is not None:
            query["voice"] = self.voice
        if self.text is None:
            method, query["format"] = "POST", self.format
        else:
            method, query["response_format"], query["input"] = "GET", self.format, self.text
        lines = [
            f"{method} {self.path}?{urlencode(query)} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Connection: close",
        ]
        if self.text is None:
            lines.append("Content-Type: application/x-npy")
            lines.append(f"Content-Length: {len(self.body)}")
        if self.key is not None:
            lines.append(f"Authorization: Bearer {self.key}")
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + self.body


class Chunked:
    """Counts the bytes within chunks (RFC 9112, section 7.1) as they come."""

    def __init__(self) -> None:
        self.ended = False
        self._line = b""
        # of the present chunk and the line end after it
        self._left = 0

    def feed(self, data: bytes) -> int:
        """How many bytes of content there are in these."""
        place, content = 0, 0
        while place < len(data) and not self.ended:
            if self._left:
                here = min(self._left, len(data) - place)
                content += max(min(here, self._left - 2), 0)
                self._left -= here
                place += here
                continue
            end = data.find(b"\n", place)
            if end < 0:
                self._line += data[place:]
                break
            line = (self._line + data[place:end]).strip()
            self._line, place = b"", end + 1
            size = int(line.partition(b";")[0], 16)
            self._left, self.ended = size + 2, size == 0
        return content


class _Call(asyncio.Protocol):
    """One connection with one request."""

    def __init__(self, target: Target, request: bytes, listened: Listened, leave: int | None):
        self._target, self._request, self._listened = target, request, listened
        # how many bytes of audio are enough; None: all
        self._leave = leave
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._head: bytes | None = b""
        self._chunked: Chunked | None = None
        self._length: int | None = None
        self._skip = WAV_HEADER_BYTES if target.format == "wav" else 0
        self._content = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports aren't derived from asyncio's
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)
        if self._leave == 0:
            self._end("left")

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter()
        if self.over.done():
            return
        try:
            if self._head is not None:
                self._head += data
                head, found, data = self._head.partition(b"\r\n\r\n")
                if not found:
                    if len(head) > MOST_HEAD_BYTES:
                        self._end("cut")
                    return
                self._head = None
                self._answered(head, now_s)
            self._body(data, now_s)
        except (ValueError, IndexError):
            # no HTTP
            self._end("cut")

    def _answered(self, head: bytes, now_s: float) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        listened = self._listened
        listened.status, listened.answered_s = int(first.split()[1]), now_s
        if "chunked" in headers.get("transfer-encoding", ""):
            self._chunked = Chunked()
        elif "content-length" in headers:
            self._length = int(headers["content-length"])
        if self._target.format in ("pcm", "wav"):
            listened.bytes_per_s = 2.0 * int(headers.get("x-sample-rate", USUAL_RATE_HZ))

    def _body(self, data: bytes, now_s: float) -> None:
        self._content += len(data) if self._chunked is None else self._chunked.feed(data)
        listened = self._listened
        good = 200 <= listened.status < 300
        audio = self._content - self._skip
        if good and audio > (listened.arrivals[-1][1] if listened.arrivals else 0):
            listened.arrivals.append((now_s, audio))
            if self._leave is not None and audio >= self._leave:
                return self._end("left")
        if (self._chunked is not None and self._chunked.ended) or self._content == self._length:
            self._end("done" if good else "refused")

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            good = 200 <= self._listened.status < 300
            # without a length, the end of the connection is that of the answer
            whole = good and self._length is None and self._chunked is None and error is None
            self._end("done" if whole else "cut")

    def _end(self, outcome: str) -> None:
        self._listened.ended_s = time.perf_counter()
        if not self.over.done():
            self.over.set_result(outcome)

    def close(self, abruptly: bool) -> None:
        """Ends the connection, as a process that is killed does or in the usual way."""
        if abruptly:
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()


async def call(
    target: Target,
    seed: int,
    due_s: float,
    timeout_s: float,
    leave: int | None = None,
    abruptly: bool = False,
) -> Listened:
    """Makes a request on a connection of its own and listens to the end, or to `leave` bytes."""
    listened = Listened(due_s)
    protocol: _Call | None = None
    context = ssl.create_default_context() if target.tls else None
    try:
        async with asyncio.timeout(timeout_s):
            _, protocol = await asyncio.get_running_loop().create_connection(
                lambda: _Call(target, target.request(seed), listened, leave),
                target.host,
                target.port,
                ssl=context,
            )
            listened.outcome = await protocol.over
    except TimeoutError:
        listened.outcome = "late"
    except OSError:
        listened.outcome = "unreachable"
    finally:
        listened.ended_s = listened.ended_s or time.perf_counter()
        if protocol is not None:
            protocol.close(abruptly and listened.outcome == "left")
    return listened
