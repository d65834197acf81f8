"""What all routes share: the engines, who may use them, and what is counted."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import numpy as np

from wavernn import capacity
from wavernn.channel import Channel
from wavernn.checkpoint import Checkpoint
from wavernn.engine import Engine
from wavernn.errors import EngineBusy
from wavernn.serve import aliases
from wavernn.serve.errors import ApiError, bad_request, busy, rate_limited
from wavernn.serve.listener import Listener
from wavernn.serve.metrics import Metrics
from wavernn.serve.security import Client, Doorkeeper
from wavernn.serve.settings import Settings
from wavernn.serve.warm import warm

log = logging.getLogger(__name__)

LOADING, READY, DRAINING, FAILED = "loading", "ready", "draining", "failed"
# recordings and mel files that are looked at, at once; the others wait
ANALYSTS = 2
# of a body's limit that all bodies together may hold
BODIES = 8
# after which a client who was refused may come again
RETRY_S = 1.0


class TextToMel(Protocol):
    """A front end, which makes mels from text."""

    def frames(self, text: str, voice: str, speed: float) -> Iterator[np.ndarray]:
        """Yields mel pieces [n, M] on the scale of the voice; runs in a worker's thread."""
        ...


class Service:
    """Voices and their engines, by name, the default one first.

    Without `engines` it's loading until `load` has been called.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Mapping[str, Engine] | None = None,
        text: TextToMel | None = None,
    ) -> None:
        self.settings = settings
        self.engines: dict[str, Engine] = dict(engines or {})
        self.text = text
        self.metrics = Metrics(lambda: {n: e.stats() for n, e in self.engines.items()})
        self.doorkeeper = Doorkeeper(settings)
        self.analysts = ThreadPoolExecutor(ANALYSTS, "wavernn-analyst")
        # a thread each for streams from text, of which there are no more than channels
        self.writers = ThreadPoolExecutor(1024, "wavernn-writer")
        self._loading = engines is None
        self._draining = False
        self._failure: BaseException | None = None
        self._bodies = 0
        self._lock = threading.Lock()

    # ---- its life ----

    def load(self, voices: Mapping[str, Checkpoint]) -> None:
        """Opens an engine a voice, with as many channels as the machine was measured to speak."""
        settings = self.settings
        how = settings.backend, settings.format, settings.threads
        try:
            for name, voice in voices.items():
                channels = settings.channels
                if channels is None:
                    factor = capacity.measure(voice, *how)
                    channels = capacity.channels_for(factor)
                    log.info("%s: %.3g times real time, %d channels", name, factor, channels)
                engine = Engine(voice, *how, channels)
                warm(engine)
                with self._lock:
                    self.engines[name] = engine
            self._loading = False
        except BaseException as error:
            self._failure = error
            raise

    def drain(self) -> None:
        """Takes no more streams from now on; those that run go on."""
        self._draining = True

    def close(self) -> None:
        """Ends the engines and what still runs on them."""
        self.drain()
        for engine in list(self.engines.values()):
            engine.close()
        for workers in (self.analysts, self.writers):
            workers.shutdown(wait=False, cancel_futures=True)

    @property
    def state(self) -> str:
        """One of loading, ready, draining, failed."""
        broken = any(engine.failure is not None for engine in list(self.engines.values()))
        if broken or self._failure is not None:
            return FAILED
        if self._draining:
            return DRAINING
        return LOADING if self._loading else READY

    # ---- what routes ask for ----

    def engine(self, name: str | None) -> tuple[str, Engine]:
        """Finds a voice; raises ApiError 400 or 503.

        None, "", "default" and OpenAI's names are the first, but for a voice that is called so.
        """
        self._check_ready()
        if not name or (name not in self.engines and name in ("default", *aliases.VOICES)):
            name = next(iter(self.engines))
        if name not in self.engines:
            known = ", ".join(self.engines)
            raise bad_request(f"unknown voice {name[:64]!r}; known: {known}", "voice")
        return name, self.engines[name]

    def authorise(self, authorization: str | None, host: str) -> Client:
        """Finds the client behind a request and takes it off its share.

        Raises ApiError: 401 for a missing or wrong key, 429 where there were too many requests.
        """
        with self._counted():
            return self.doorkeeper.client(authorization, host)

    def admit(self, host: str) -> Client:
        """Does the same where the protocol has no keys, by the client's address."""
        with self._counted():
            return self.doorkeeper.neighbour(host)

    def check_room(self, client: Client, name: str) -> None:
        """Raises ApiError where a stream would be refused now, before work is done for it."""
        with self._counted():
            self._admit(client, self.engines[name])

    def body(self) -> Body:
        """Counts the bytes of a body, until it's closed, against what all may hold together."""
        return Body(self)

    @asynccontextmanager
    async def listen(
        self, client: Client, name: str, seed: int, temperature: float, transport: str
    ) -> AsyncIterator[Listener]:
        """Opens a stream for a client; gives its channel back on leaving, whatever happens.

        Never waits. Raises ApiError: 429 where the client has too many streams, 503 where no
        channel is free.
        """
        with self._counted():
            engine = self.engines[name]
            self._admit(client, engine)
            channel = self._open(engine, seed, temperature)
        listener = Listener(channel, engine.rate_hz, self.metrics, name, transport)
        client.streams += 1
        error: BaseException | None = None
        try:
            yield listener
        except BaseException as raised:
            error = raised
            raise
        finally:
            client.streams -= 1
            listener.close(error)

    # ---- admission ----

    def _open(self, engine: Engine, seed: int, temperature: float) -> Channel:
        try:
            return engine.open(seed, temperature)
        except EngineBusy as error:
            raise busy(str(error), error.retry_after_s) from None

    def _admit(self, client: Client, engine: Engine) -> None:
        self._check_ready()
        most = self.settings.streams_per_client
        if most is not None and client.streams >= most:
            raise rate_limited(f"no more than {most} streams at once; end one first", RETRY_S)
        # voices share the machine, of which a stream takes a channel's part
        taken = sum(e.stats()["channels_open"] / e.channels for e in self.engines.values())
        if taken + 1 / engine.channels > 1 + 1e-6:
            raise busy("all channels are taken; try again in a moment", RETRY_S)

    def _check_ready(self) -> None:
        match self.state:
            case "loading":
                raise busy("the voices are being loaded; try again in a moment", RETRY_S)
            case "draining":
                raise busy("the service is about to end and takes no more streams", RETRY_S)
            case "failed":
                raise busy("the engine has failed; the service must be started again", RETRY_S)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except ApiError as error:
            reason = {401: "key", 429: "share", 503: "busy"}.get(error.status, "other")
            self.metrics.refused.labels(reason).inc()
            raise


class Body:
    """The bytes of one body, as they come."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._held_bytes = 0

    def add(self, count: int) -> None:
        """Takes more bytes in; raises ApiError 503 where all bodies together are too many."""
        service = self._service
        if service._bodies + count > BODIES * service.settings.body_bytes:
            raise busy("too many uploads at once; try again in a moment", RETRY_S)
        service._bodies += count
        self._held_bytes += count

    def close(self) -> None:
        """Gives them back; may be called twice."""
        self._service._bodies -= self._held_bytes
        self._held_bytes = 0
