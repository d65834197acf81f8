"""A server of sockets alone, a client that talks to it, and fixtures for files that test them."""

import json
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.sync.client import connect

from wavernn import kernels
from wavernn.config import Config, MelConfig, ModelConfig, TrainConfig
from wavernn.engine import Engine
from wavernn.kernels.bench import random_voice
from wavernn.serve import socket as speech_socket
from wavernn.serve.drain import SocketProtocol
from wavernn.serve.service import Service
from wavernn.serve.settings import Settings
from wavernn.vocoder import Vocoder

HOP, BANDS = 16, 5
MEL = MelConfig(
    rate_hz=8000, fft_samples=64, window_samples=64, hop_samples=HOP, bands=BANDS, high_hz=4000
)
SIZES = {"hidden": 8, "projection": 4, "embedding": 2, "channels": 6, "layers": 1}
MODEL = ModelConfig(**SIZES, conditioning_hop_samples=4)
# the longest that anything here waits
LONG = 60.0
SMALL_BUFFER = 8192
# the reference takes ten seconds for what the native engine does in one
BACKEND = "reference" if kernels.unavailable("cpu") else "cpu"
MANY = 4000 if BACKEND == "reference" else 24_000


@pytest.fixture(scope="module")
def voice():
    return random_voice(Config("tiny", MEL, MODEL, train=TrainConfig(slice_samples=256)))


@pytest.fixture(scope="module")
def vocoder(voice):
    return Vocoder(voice, BACKEND)


@pytest.fixture(scope="module")
def server(voice):
    with running(voice) as found:
        yield found


def make_mel(seed, frames=20):
    return np.random.default_rng(seed).normal(-4, 2, (frames, BANDS)).astype("<f4")


def wait_until(condition):
    until = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


class Running:
    """A server in a thread, with small buffers so that a reader who is behind is soon felt."""

    def __init__(self, service):
        app = FastAPI()
        app.state.service = service
        app.include_router(speech_socket.router)
        self.service, self.engine = service, service.engines["tiny"]
        self.server = uvicorn.Server(
            uvicorn.Config(app, ws=SocketProtocol, lifespan="off", log_config=None)
        )
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        self.port = listening.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, args=([listening],))
        self.thread.start()

    @contextmanager
    def open(self, **options):
        # a socket of one's own skips the proxies that the environment may name
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        raw.connect(("127.0.0.1", self.port))
        url = f"ws://127.0.0.1:{self.port}/v1/audio/speech/stream"
        options |= {"sock": raw, "open_timeout": LONG, "close_timeout": 1}
        with connect(url, **options) as connection:
            yield Talk(connection)

    def channels_open(self):
        return self.engine.stats()["channels_open"]


class Talk:
    """A client's side of a session that has begun."""

    def __init__(self, connection):
        self.connection = connection
        self.created = self.event("session.created")

    def say(self, kind, **fields):
        self.connection.send(json.dumps({"type": kind, **fields}))

    def config(self, **fields):
        self.say("session.config", **fields)
        return self.event("session.updated")["config"]

    def mel(self, mel_NM, size=7):
        for start in range(0, len(mel_NM), size):
            self.connection.send(mel_NM[start : start + size].tobytes())

    def event(self, kind):
        """The next message, which must be an event of this kind."""
        message = self.connection.recv(LONG)
        assert isinstance(message, str), "audio came where an event was expected"
        event = json.loads(message)
        assert event["type"] == kind, event
        return event

    def error(self):
        return self.event("error")["error"]

    def audio(self):
        """The audio of an utterance as (start, binary messages, done)."""
        return self.event("audio.start"), *self.rest()

    def rest(self, wait_s=0.0):
        """Binary messages, each taken after a while, and the event that ends them."""
        chunks = []
        while isinstance(message := self.connection.recv(LONG), bytes):
            chunks.append(message)
            time.sleep(wait_s)
        done = json.loads(message)
        assert done["type"] == "audio.done", done
        return chunks, done

    def speak(self, mel_NM):
        self.mel(mel_NM)
        self.say("input.flush")
        return self.audio()


@contextmanager
def running(voice, channels=4, input_s=30.0, text=None, **settings):
    with Engine(voice, BACKEND, channels=channels, ahead_s=0.1, input_s=input_s) as engine:
        found = Running(Service(Settings(**settings), {"tiny": engine}, text))
        try:
            yield found
        finally:
            found.server.should_exit = True
            found.thread.join(LONG)
            assert not found.thread.is_alive()
            assert found.channels_open() == 0


def pcm(samples_T):
    return np.rint(samples_T * 32768).astype("<i2").tobytes()
