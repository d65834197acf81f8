"""One utterance of a speech socket: its input on the way in, and what was sent of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

from wavernn.deadlines import Deadlines, Delay
from wavernn.engine import Engine
from wavernn.live import Analysis
from wavernn.serve import protocol
from wavernn.serve.errors import ApiError, bad_request, too_large
from wavernn.serve.protocol import SessionConfig
from wavernn.serve.requests import drawn
from wavernn.serve.sentences import Sentences
from wavernn.serve.settings import Settings

# samples whose mel is made within the event loop, where it takes about a millisecond
FEW_SAMPLES = 2048


class Utterance:
    """What is known of an utterance from its first input to its end."""

    def __init__(
        self,
        index: int,
        config: SessionConfig,
        voice: str,
        engine: Engine,
        settings: Settings,
        written: bool = False,
    ) -> None:
        """Begins with its first message, which is text where it's `written`."""
        self.index, self.config, self.voice, self.engine = index, config, voice, engine
        self.seed = drawn(config.seed)
        self.begun_s = time.perf_counter()
        self.first_audio_s: float | None = None
        self.samples = self.bytes = self.chunks = 0
        # whether audio.start was sent; and whether there is nothing to come any more
        self.started = self.over = False
        self._most_frames = int(settings.mel_s * engine.rate_hz / engine.hop_samples)
        self._most_characters = settings.text_characters
        self._frames = self._characters = 0
        self._sentences = Sentences() if written else None
        self._analysis: Analysis | None = None
        self.deadlines: Deadlines | None = None
        if config.input == "audio" and not written:
            self._analysis = Analysis(engine.voice.config.mel)
            self.deadlines = Deadlines(Delay.of(engine.voice.config))

    async def frames(self, data: bytes) -> np.ndarray | None:
        """The mel frames [n, M] that a binary message makes known; None if none.

        Raises ApiError or MelError, as if the message hadn't come.
        """
        if self._sentences is not None or self.config.input == "text":
            raise _mixed("text", "input.text")
        if self._analysis is None:
            mel_NM = protocol.mel_frames(data, self.engine.bands)
            self._count(len(mel_NM))
            return mel_NM
        samples_T = protocol.audio_samples(data, self.config.input_format)
        assert self.deadlines is not None
        arrived_s = time.perf_counter()
        if len(samples_T) <= FEW_SAMPLES:
            mel_NM = self._analysis.push(samples_T)
        else:
            mel_NM = await asyncio.to_thread(self._analysis.push, samples_T)
        self._count(len(mel_NM))
        self.deadlines.heard(len(samples_T), arrived_s)
        return mel_NM if len(mel_NM) else None

    def sentences(self, text: str) -> list[str]:
        """The sentences that a piece of text completes; raises ApiError."""
        if self._sentences is None:
            raise _mixed(self.config.input, "binary messages")
        most = self._most_characters
        if self._characters + len(text) > most:
            raise too_large(
                f"an utterance has at most {most} characters; send input.flush and begin another",
                "text",
            )
        self._characters += len(text)
        return self._sentences.push(text)

    def rest(self) -> np.ndarray | str | None:
        """What is known to be spoken once the input has ended: mel frames or text; None if none."""
        if self._sentences is not None:
            return self._sentences.rest()
        if self._analysis is None or self.deadlines is None:
            return None
        mel_NM = self._analysis.flush()
        self.deadlines.ended(time.perf_counter())
        return mel_NM if len(mel_NM) else None

    def _count(self, frames: int) -> None:
        self._frames += frames
        if self._frames > self._most_frames:
            self._frames -= frames
            seconds = self._most_frames * self.engine.hop_samples / self.engine.rate_hz
            raise too_large(
                f"an utterance has at most {seconds:g} s; send input.flush and begin another"
            )

    def sent(self, samples: int, size: int) -> None:
        """Notes a chunk of audio that was sent."""
        now_s = time.perf_counter()
        if self.first_audio_s is None:
            self.first_audio_s = now_s - self.begun_s
        self.chunks += 1
        self.samples += samples
        self.bytes += size
        if self.deadlines is not None:
            self.deadlines.said(samples, now_s)

    def start_event(self, rate_hz: int) -> dict[str, Any]:
        """What precedes its audio."""
        event = {
            "type": "audio.start",
            "utterance_index": self.index,
            "format": self.config.format,
            "sample_rate": rate_hz,
            "voice": self.voice,
            "seed": self.seed,
        }
        if self.deadlines is not None:
            event["delay"] = self.deadlines.delay.table(1)
        return event

    def done_event(self, reason: str) -> dict[str, Any]:
        """What follows its audio."""
        event = {
            "type": "audio.done",
            "utterance_index": self.index,
            "samples": self.samples,
            "bytes": self.bytes,
            "chunks": self.chunks,
            "time_to_first_audio_s": self.first_audio_s,
            "reason": reason,
        }
        if self.deadlines is not None:
            event["deadlines"] = self.deadlines.report()
        return event


def _mixed(kind: str, messages: str) -> ApiError:
    return bad_request(
        f"this utterance is of {kind}, which comes in {messages}; send input.flush first, and "
        "session.config for another kind of input",
        "input",
    )
