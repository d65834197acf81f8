"""The server around the application: sockets, signals, and an end that lets streams finish."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wavernn.checkpoint import Checkpoint
from wavernn.errors import ConfigError
from wavernn.serve.app import create_app
from wavernn.serve.drain import SocketProtocol
from wavernn.serve.protocol import MOST_BYTES
from wavernn.serve.service import Service

if TYPE_CHECKING:
    from wavernn.serve.wyoming import WyomingServer

log = logging.getLogger(__name__)

# Of a connection, in the kernel. By itself it grows to some MB, which is more than a minute of
# speech that would be made for a listener who has stopped to listen.
SEND_BUFFER_BYTES = 256 << 10
# How long a thread that computes in Python may keep the others waiting. The engine's thread and
# the event loop take turns of well under a millisecond; with Python's own 5 ms each turn of one
# could put the other off by as much.
SWITCH_S = 0.0005


class Protocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it; applications may cut a connection, as `state["transport"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remembers what can cut the connection."""
        super().connection_made(transport)
        self.app_state: dict[str, Any] = {**self.app_state, "transport": transport}


class Server(uvicorn.Server):
    """A server that takes no more streams from the moment it's told to end."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.wyoming: WyomingServer | None = None
        settings = service.settings
        config = uvicorn.Config(
            create_app(service),
            host=settings.host,
            port=settings.port,
            http=Protocol,
            ws=SocketProtocol,
            ws_max_size=2 * MOST_BYTES,
            # audio hardly gets smaller, and each message would cost a millisecond
            ws_per_message_deflate=False,
            # no answer is seen while a client's input waits; sessions have a limit of their own
            ws_ping_interval=None,
            # the program's own, and none of requests, which hold what people say
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.proxies),
            forwarded_allow_ips=list(settings.proxies),
            timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        )
        super().__init__(config)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends when streams that run are over, or at once when told twice."""
        self.service.drain()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends, and then cuts off who still hasn't taken what was sent, for which a loop waits."""
        if self.wyoming is not None:
            self.wyoming.end()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # connections hear of it in the loop's next turn
        await asyncio.sleep(0)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to serve, and what else listens with it."""
        await super().startup(sockets)
        if self.wyoming is not None and self.started:
            # uvicorn closes it with its own
            self.servers.append(await self.wyoming.start(self.server_state.tasks))

    def listen(self) -> socket.socket:
        """Opens the socket, and that of the Wyoming protocol where it's asked for.

        Raises ConfigError.
        """
        settings = self.service.settings
        if settings.wyoming is not None:
            from wavernn.serve.wyoming import WyomingServer

            self.wyoming = WyomingServer(self.service, self._open(*settings.wyoming))
        return self._open(settings.host, settings.port)

    def _open(self, host: str, port: int) -> socket.socket:
        settings = self.service.settings
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server(
                (host, port), family=family, backlog=self.config.backlog
            )
        except OSError as error:
            raise ConfigError(f"can't listen at {host} port {port}: {error.strerror}") from None
        # connections inherit both
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # ends what is left to send when a listener doesn't take the end of his stream
            idle_ms = round(1000 * settings.idle_s)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, idle_ms)
        return listening


def serve(service: Service, voices: Mapping[str, Checkpoint]) -> None:
    """Serves until a signal comes; loads meanwhile. Raises what loading raised, and ConfigError."""
    server = Server(service)
    failures: list[BaseException] = []

    def load() -> None:
        try:
            service.load(voices)
        except BaseException as error:
            failures.append(error)
            server.should_exit = True

    listening = server.listen()
    # torch has small products to do, whose threads would mostly wait for each other
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH_S)
    log.info("http://%s", _address(listening))
    if server.wyoming is not None:
        log.info("tcp://%s for Wyoming, which knows no keys", _address(server.wyoming.socket))
    loading = threading.Thread(target=load, name="wavernn-load", daemon=True)
    loading.start()
    server.run(sockets=[listening])
    if failures:
        raise failures[0]


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
