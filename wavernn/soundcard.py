"""A sound card as microphone and loudspeaker, through the optional package sounddevice."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import numpy as np

from wavernn.errors import ConfigError


class SoundCard:
    """One channel of a device, played `ahead_samples` after it was heard; must be made in a loop.

    Ends after `seconds`, or when the program is interrupted. Raises ConfigError where there is no
    package, no library or no such device.
    """

    def __init__(
        self,
        rate_hz: int,
        frame_samples: int,
        ahead_samples: int,
        device: str,
        seconds: float | None = None,
    ) -> None:
        self.frame_samples = frame_samples
        self.said: list[list[np.ndarray]] = [[]]
        self._rate_hz = rate_hz
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[tuple[np.ndarray, float] | None] = asyncio.Queue()
        self._left = None if seconds is None else round(seconds * rate_hz)
        # what is to be played; silence first, so that speech is there when its time comes
        self._waiting = np.zeros(ahead_samples, np.float32)
        self._lock = threading.Lock()
        self._silent_samples = 0
        sounddevice = _package()
        try:
            self._stream: Any = sounddevice.Stream(
                samplerate=rate_hz,
                blocksize=frame_samples,
                device=int(device) if device.isdigit() else device or None,
                channels=1,
                dtype="float32",
                latency="low",
                callback=self._exchange,
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            raise ConfigError(
                f"the sound card can't be opened ({error}); `python -m sounddevice` lists devices"
            ) from None

    def _exchange(self, heard: np.ndarray, said: np.ndarray, *_: object) -> None:
        """Is called by the card's thread with a frame, and must fill one."""
        arrived_s = time.perf_counter()
        with self._lock:
            waiting_T = self._waiting[: len(said)]
            self._waiting = self._waiting[len(said) :]
        said[: len(waiting_T), 0] = waiting_T
        said[len(waiting_T) :] = 0
        self._silent_samples += len(said) - len(waiting_T)
        # the card uses its memory again
        frame = heard[:, 0].copy(), arrived_s
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._heard.put_nowait, frame)

    async def frames(self, number: int) -> AsyncIterator[tuple[np.ndarray, float]]:
        """Gives frames as the card has them."""
        self._loop.add_signal_handler(signal.SIGINT, self._heard.put_nowait, None)
        try:
            with self._stream:
                while self._left is None or self._left > 0:
                    if (frame := await self._heard.get()) is None:
                        break
                    if self._left is not None:
                        self._left -= len(frame[0])
                    yield frame
        finally:
            self._loop.remove_signal_handler(signal.SIGINT)

    def play(self, number: int, samples_T: np.ndarray) -> None:
        """Queues what is to be heard, and keeps it."""
        self.said[number].append(samples_T)
        with self._lock:
            self._waiting = np.concatenate((self._waiting, samples_T))

    def report(self) -> dict[str, Any]:
        """How long the loudspeaker had nothing to say."""
        return {"silent_ms": 1000 * self._silent_samples / self._rate_hz}


def _package() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise ConfigError(
            "--device needs the package sounddevice: pip install sounddevice; "
            "or give a recording, which is played as if it was spoken now"
        ) from None
    except OSError:
        raise ConfigError(
            "--device needs the library PortAudio, which sounddevice didn't find; install it "
            "(libportaudio2 on Debian), or give a recording, which is played as if spoken now"
        ) from None
    return sounddevice
