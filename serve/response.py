"""The answer that streams: a channel's samples, encoded, for as long as somebody takes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wavernn.serve import sse
from wavernn.serve.errors import as_api_error, busy
from wavernn.serve.formats import Encoder
from wavernn.serve.listener import Listener
from wavernn.serve.security import Client
from wavernn.serve.service import RETRY_S, Service

log = logging.getLogger(__name__)

# Samples encoded without a break. FLAC, AAC, MP3 and Opus take 0.03 to 0.4 ms for these 40 ms, for
# which the event loop waits; a hand-over to a thread and back would cost each block as much, and a
# codec that is never in two threads can be freed at once when its listener leaves.
PIECE_S = 0.04
# for what a browser may read of the headers; also where pages of other sites are let in
HEADERS = ("x-sample-rate", "x-channels", "x-sample-format", "x-voice", "x-seed")


@dataclass(frozen=True)
class Order:
    """What is to be spoken, for whom and in which form."""

    client: Client
    voice: str
    seed: int
    temperature: float
    format: str
    # Gives the listener its mel and returns the encoder. What takes time is done here, where the
    # channel is already open: who can't be served isn't kept waiting to hear it.
    prepare: Callable[[Listener], Awaitable[Encoder]]
    # frees what `prepare` may not have come to
    close: Callable[[], None]
    # as server-sent events in place of plain bytes
    events: bool = False
    # what the last event says was taken in; None: as many mel frames as were spoken
    tokens: int | None = None


class AudioResponse(Response):
    """Opens a channel, waits for the first block, and only then says that all is well.

    Ends early, without the last byte, where the listener leaves or takes nothing for too long,
    where time is up, or where the engine fails; events say so before.
    """

    def __init__(self, service: Service, order: Order) -> None:
        self._service, self._order = service, order
        self._engine = service.engines[order.voice]
        self._encoder: Encoder | None = None
        self._cut = False
        self.status_code, self.background = 200, None

    def _set_headers(self, encoder: Encoder) -> None:
        order = self._order
        self.media_type = sse.MIME if order.events else encoder.mime
        headers = {
            "content-type": self.media_type,
            "cache-control": "no-store",
            # nginx would collect the audio before it passes it on
            "x-accel-buffering": "no",
            "x-content-type-options": "nosniff",
            "x-sample-rate": str(encoder.rate_hz),
            "x-channels": "1",
            "x-sample-format": "s16le" if order.format in ("wav", "pcm") else order.format,
            # a file's name may hold what a header can't
            "x-voice": quote(order.voice, safe=" "),
            "x-seed": str(order.seed),
        }
        if encoder.content_length is not None and not order.events:
            headers["content-length"] = str(encoder.content_length)
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream; raises what goes wrong before the first byte."""
        streaming = asyncio.create_task(self._stream(scope, send))
        leaving = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait((streaming, leaving), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # the server ends and waits no longer; nothing is left to be told to anybody
            self._abort(scope)
        finally:
            if self._cut:
                # so that the server doesn't wonder why the end is missing
                await asyncio.wait((leaving,), timeout=1)
            leaving.cancel()
            # which does nothing to one that is done
            streaming.cancel()
            await asyncio.wait((streaming, leaving))
            self._order.close()
            if self._encoder is not None:
                self._encoder.close()
        if not streaming.cancelled():
            streaming.result()

    async def _stream(self, scope: Scope, send: Send) -> None:
        order, settings, begun = self._order, self._service.settings, False

        async def give(data: bytes, more: bool = True) -> None:
            nonlocal begun
            async with asyncio.timeout(settings.idle_s):
                if not begun:
                    begun = True
                    start = {"type": "http.response.start", "status": self.status_code}
                    await send(start | {"headers": self.raw_headers})
                await send({"type": "http.response.body", "body": data, "more_body": more})

        transport = "sse" if order.events else "audio"
        how = order.client, order.voice, order.seed, order.temperature, transport
        try:
            async with (
                self._service.listen(*how) as listener,
                asyncio.timeout(settings.stream_s),
            ):
                self._encoder = await order.prepare(listener)
                self._set_headers(self._encoder)
                async for data in self._encoded(self._encoder, listener):
                    await give(sse.delta(data) if order.events else data)
            frames = listener.channel.samples // self._engine.hop_samples
            tokens = frames if order.tokens is None else order.tokens
            await give(sse.done(tokens, frames) if order.events else b"", more=False)
        except Exception as error:
            if not begun:
                if isinstance(error, TimeoutError):
                    raise busy("no speech could be made in time", RETRY_S) from None
                raise
            if not isinstance(error, TimeoutError):
                log.error("a stream of %s failed", order.voice, exc_info=error)
            if order.events and not isinstance(error, TimeoutError):
                await give(sse.error(as_api_error(error).error), more=False)
            else:
                self._abort(scope)

    def _abort(self, scope: Scope) -> None:
        self._cut = True
        scope["state"]["transport"].abort()

    async def _encoded(self, encoder: Encoder, listener: Listener) -> AsyncIterator[bytes]:
        """Yields bytes, each not empty."""
        piece = max(1, int(PIECE_S * self._engine.rate_hz))
        async for samples_T in listener:
            data = b""
            for start in range(0, len(samples_T), piece):
                if start:
                    # others' turn
                    await asyncio.sleep(0)
                data += encoder.encode(samples_T[start : start + piece])
            # a packet costs more than its bytes
            if data:
                yield data
        if data := encoder.finish():
            yield data


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
