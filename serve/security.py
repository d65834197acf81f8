"""Who a client is, and how much each may have."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wavernn.serve.errors import rate_limited, too_large, unauthorized
from wavernn.serve.settings import Settings

# clients that are remembered; those beyond start with a fresh account
MOST_CLIENTS = 10_000


@dataclass
class Client:
    """An API key or, where none is needed, an address; with what is left of its share."""

    name: str
    # requests that it may make at once
    allowance: float
    updated_s: float
    streams: int = 0


class Doorkeeper:
    """Knows clients by their API key or address and counts their requests."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._digests = [_digest(key) for key in settings.api_keys]
        self._per_minute = settings.requests_per_minute
        self._clock = clock
        self._clients: OrderedDict[str, Client] = OrderedDict()

    @property
    def locked(self) -> bool:
        """True where an API key is needed."""
        return bool(self._digests)

    def client(self, authorization: str | None, host: str) -> Client:
        """Finds the client behind a request and takes it off its share.

        Raises ApiError: 401 for a missing or wrong key, 429 where there were too many requests.
        """
        if not self.locked:
            return self.neighbour(host)
        number = self._number(authorization)
        if number is None:
            # guesses have a share too
            self._charge(f"stranger {host}")
            raise unauthorized()
        return self._charge(f"key {number}")

    def neighbour(self, host: str) -> Client:
        """Finds the client behind an address where a protocol has no keys; raises as `client`."""
        return self._charge(f"host {host}")

    def _number(self, authorization: str | None) -> int | None:
        scheme, _, key = (authorization or "").partition(" ")
        # digests are of one length and all are compared, so that time tells nothing of the keys
        given = _digest(key.strip())
        equal = [hmac.compare_digest(given, known) for known in self._digests]
        return equal.index(True) if any(equal) and scheme.lower() == "bearer" else None

    def _charge(self, name: str) -> Client:
        now_s, most = self._clock(), float(self._per_minute or 0)
        client = self._clients.setdefault(name, Client(name, most, now_s))
        self._clients.move_to_end(name)
        self._forget()
        if self._per_minute is None:
            return client
        gained = (now_s - client.updated_s) * most / 60
        client.allowance, client.updated_s = min(most, client.allowance + gained), now_s
        if client.allowance < 1:
            wait_s = (1 - client.allowance) * 60 / most
            message = f"more than {self._per_minute} requests a minute; try again in {wait_s:.0f} s"
            raise rate_limited(message, wait_s)
        client.allowance -= 1
        return client

    def _forget(self) -> None:
        """Drops the client that was idle longest; one with open streams keeps its count."""
        if len(self._clients) > MOST_CLIENTS:
            idle = next((name for name, c in self._clients.items() if not c.streams), None)
            if idle is not None:
                del self._clients[idle]


def _digest(key: str) -> bytes:
    # half a surrogate pair can't be encoded otherwise
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


class BodyLimit:
    """Refuses bodies that are too large (413) or too slow (408), while they come.

    `small` holds other limits by path.
    """

    def __init__(
        self, app: ASGIApp, most_bytes: int, most_s: float, small: Mapping[str, int]
    ) -> None:
        self.app, self._most_bytes, self._most_s, self._small = app, most_bytes, most_s, small

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through with a `receive` that counts."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        most = self._small.get(scope["path"], self._most_bytes)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most:
            refusal = too_large(f"the body has {int(announced)} bytes, more than {most}")
            refusal.headers["Connection"] = "close"
            return await refusal.response()(scope, receive, send)
        until_s = asyncio.get_running_loop().time() + self._most_s
        came, complete = 0, False

        async def counted() -> Message:
            nonlocal came, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(until_s):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, headers={"Connection": "close"}) from None
            came += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if came > most:
                raise HTTPException(413, headers={"Connection": "close"})
            return message

        await self.app(scope, counted, send)
