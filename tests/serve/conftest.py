"""A real server on loopback with a voice of random weights, and what it's asked for."""

from __future__ import annotations

import io
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.config import Config, MelConfig, ModelConfig, TrainConfig
from wavernn.engine import Engine
from wavernn.kernels.bench import random_voice
from wavernn.mel import LogMel

pytest.importorskip("fastapi", reason="the extra serve isn't installed")
pytest.importorskip("uvicorn", reason="the extra serve isn't installed")
pytest.importorskip("prometheus_client", reason="the extra serve isn't installed")

from wavernn.serve import server as servers
from wavernn.serve.server import Server
from wavernn.serve.service import Service, TextToMel
from wavernn.serve.settings import Settings

# the longest that anything here waits for another thread
LONG = 60.0
RATE_HZ, HOP, BANDS = 8000, 80, 20
MEL = MelConfig(
    rate_hz=RATE_HZ, fft_samples=256, window_samples=256, hop_samples=HOP, bands=BANDS, high_hz=4000
)
SIZES = {"hidden": 8, "projection": 4, "embedding": 2, "channels": 6, "layers": 1}
BACKEND = "reference" if kernels.unavailable("cpu") else "cpu"


class Running:
    """A server in a thread of its own."""

    def __init__(self, service: Service) -> None:
        self.service, self.server = service, Server(service)
        listening = self.server.listen()
        self.address = listening.getsockname()[:2]
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.thread = threading.Thread(target=self.server.run, args=([listening],), daemon=True)
        self.thread.start()
        self.http = httpx.Client(base_url=self.url, timeout=LONG)
        self.wait(lambda: self.server.started)

    @property
    def open_channels(self) -> int:
        return sum(e.stats()["channels_open"] for e in self.service.engines.values())

    def wait(self, condition: Callable[[], object]) -> None:
        until = time.monotonic() + LONG
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.002)

    def number(self, name: str, **labels: str) -> float:
        """A metric's value, 0 where it has none yet."""
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0

    def begin(self, mel: bytes, query: str = "", receive_bytes: int | None = None) -> socket.socket:
        """Sends a request and reads its headers and the first bytes of its body, by hand."""
        connection = socket.socket()
        connection.settimeout(LONG)
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect(self.address)
        head = f"POST /v1/vocode?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(mel)}\r\n\r\n"
        connection.sendall(head.encode() + mel)
        got = b""
        while b"\r\n\r\n" not in got or got.endswith(b"\r\n\r\n"):
            more = connection.recv(200)
            assert more, got
            got += more
        assert got.startswith(b"HTTP/1.1 200"), got
        return connection

    def tell_to_end(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)

    def stop(self) -> None:
        self.http.close()
        if self.thread.is_alive():
            self.tell_to_end()
            self.thread.join(LONG)
        assert not self.thread.is_alive()


@pytest.fixture(scope="session")
def voice() -> Checkpoint:
    model = ModelConfig(**SIZES, conditioning_hop_samples=20)
    return random_voice(Config("tiny", MEL, model, train=TrainConfig(slice_samples=800)))


@pytest.fixture(scope="session")
def make_audio() -> Callable[..., np.ndarray]:
    """Syllables of noise, in seconds at the voice's rate."""

    def make(number: int = 0, seconds: float = 0.25) -> np.ndarray:
        noise = np.random.default_rng(number).standard_normal(round(seconds * RATE_HZ))
        beat = np.sin(2 * np.pi * 4 * np.arange(len(noise)) / RATE_HZ) ** 2
        return (0.1 * noise * beat).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def make_mel(make_audio) -> Callable[..., np.ndarray]:
    def make(number: int = 0, seconds: float = 0.25) -> np.ndarray:
        return LogMel(MEL)(torch.from_numpy(make_audio(number, seconds))[None])[0].numpy()

    return make


@pytest.fixture(scope="session")
def make_npy(make_mel) -> Callable[..., bytes]:
    def make(number: int = 0, seconds: float = 0.25) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, make_mel(number, seconds))
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def start(voice) -> Callable[..., object]:
    """Starts a server with settings, text and perhaps another voice, to be used as a context."""

    @contextmanager
    def started(
        *,
        channels: int = 4,
        ahead_s: float = 0.1,
        text: TextToMel | None = None,
        of: Checkpoint | None = None,
        **settings: object,
    ) -> Iterator[Running]:
        engine = Engine(of or voice, BACKEND, channels=channels, ahead_s=ahead_s)
        told = {"port": 0, "drain_s": 5.0, **settings}
        running = Running(Service(Settings(**told), {"tiny": engine}, text))
        try:
            yield running
        finally:
            running.stop()

    return started


@pytest.fixture(scope="module")
def running(start) -> Iterator[Running]:
    """A server without limits on clients, for a whole file of tests."""
    with start() as server:
        yield server


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a reader who stops is felt after seconds of speech, not minutes."""
    monkeypatch.setattr(servers, "SEND_BUFFER_BYTES", 4096)


@pytest.fixture(scope="session")
def refused() -> Callable[..., dict[str, str]]:
    """Checks that an answer is an error in OpenAI's shape, and returns what it says."""

    def check(answer: httpx.Response, status: int) -> dict[str, str]:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        (error,) = answer.json().values()
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"] and "Traceback" not in error["message"]
        assert str(Path.home()) not in json.dumps(error)
        return error

    return check
