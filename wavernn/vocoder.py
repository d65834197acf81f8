"""The public face of a voice: mel spectrogram in, samples out, whole or as a stream."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from wavernn import checkpoint as checkpoints
from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import Conditioning
from wavernn.errors import MelError
from wavernn.subscale import Order

# from gate input [N, G], samples, seed and temperature to what comes out; no samples are the end
Speak = Callable[[torch.Tensor, int, int, float], np.ndarray]


class Vocoder:
    """Turns mel spectrograms into speech with one voice on one backend.

    A stream is a function of (checkpoint, mel, seed) on a backend, bit-equal however it's cut.
    """

    def __init__(
        self,
        voice: Checkpoint,
        backend: str = "auto",
        format: str | None = None,
        threads: int = 1,
    ) -> None:
        self.voice = voice
        model = voice.config.model
        self._reset: Callable[[], None]
        if model.plain:
            plain = kernels.load(backend)(voice, 1, format, threads)
            self._reset, self._speak = plain.reset, _one_stream(plain)
        else:
            lanes = kernels.load_subscale(backend, model.subscale, model.fused)(
                voice, format, threads
            )
            self._reset, self._speak = lanes.reset, _one_utterance(lanes)
        self.conditioning = Conditioning(voice)

    @property
    def delay_samples(self) -> int:
        """How far a stream is behind the mels, besides the conditioner's look-ahead."""
        return Order.of(self.voice.config.model).lookahead_samples

    @property
    def rate_hz(self) -> int:
        """Samples per second of what comes out."""
        return self.voice.config.mel.rate_hz

    def stream(
        self, mels: Iterable[np.ndarray], seed: int = 0, temperature: float = 1.0
    ) -> Iterator[np.ndarray]:
        """Yields float32 samples [T] in [-1, 1) as mel frames [n, M] arrive.

        Raises MelError for frames of the wrong shape or with values that aren't finite. One
        stream at a time: a new one resets the state, and the old one raises RuntimeError if it's
        asked for more.
        """
        turn = self._begin(seed, temperature)
        for blocks in self._blocks(mels):
            while (samples_T := self._next(blocks, seed, temperature, turn)) is not None:
                yield samples_T

    async def astream(
        self, mels: AsyncIterable[np.ndarray], seed: int = 0, temperature: float = 1.0
    ) -> AsyncIterator[np.ndarray]:
        """Does what `stream` does where frames arrive in an event loop, which isn't blocked."""
        turn = self._begin(seed, temperature)

        async def following(blocks: Iterator[torch.Tensor]) -> np.ndarray | None:
            return await asyncio.to_thread(self._next, blocks, seed, temperature, turn)

        async for mel_NM in mels:
            blocks = self._condition(mel_NM)
            while (samples_T := await following(blocks)) is not None:
                yield samples_T
        blocks = self._condition(None)
        while (samples_T := await following(blocks)) is not None:
            yield samples_T

    def _begin(self, seed: int, temperature: float) -> object:
        """Puts the state back to the start and returns what tells this stream from the next."""
        check_draws(seed, temperature)
        self._reset()
        self.conditioning.reset()
        self._turn = object()
        return self._turn

    def _blocks(self, mels: Iterable[np.ndarray]) -> Iterator[Iterator[torch.Tensor]]:
        for mel_NM in mels:
            yield self._condition(mel_NM)
        yield self._condition(None)

    def _condition(self, mel_NM: np.ndarray | None) -> Iterator[torch.Tensor]:
        """Gate input that frames make certain; None stands for the end."""
        bands = self.voice.config.mel.bands
        if mel_NM is None:
            # nothing more, which is how the loop learns of the end
            end = [torch.empty(0, self.voice.config.model.gate_rows)]
            return chain(self.conditioning.push(torch.empty(0, bands), last=True), end)
        # copied, as torch warns of an array that may not be written
        return self.conditioning.push(torch.tensor(check_mel(mel_NM, bands)))

    def _next(
        self, blocks: Iterator[torch.Tensor], seed: int, temperature: float, turn: object
    ) -> np.ndarray | None:
        """Speaks the next block of gate input, if there is one; raises where the turn is over."""
        if self._turn is not turn:
            raise RuntimeError(
                "another stream was started on this vocoder, which ended this one; use a vocoder "
                "for each, or an Engine"
            )
        for gates_NG in blocks:
            T = len(gates_NG) * self.voice.config.model.conditioning_hop_samples
            samples_T = self._speak(gates_NG, T, seed, temperature)
            if len(samples_T):
                return samples_T
        return None

    def synthesize(self, mel_NM: np.ndarray, seed: int = 0, temperature: float = 1.0) -> np.ndarray:
        """Turns a whole mel [N, M] into float32 samples [N * hop] in [-1, 1)."""
        return np.concatenate(list(self.stream([mel_NM], seed, temperature)))


def _one_stream(synthesizer: kernels.Synthesizer) -> Speak:
    def speak(gates_NG: torch.Tensor, samples: int, seed: int, temperature: float) -> np.ndarray:
        seed_B = np.array([seed], np.uint64)
        audio_BT = synthesizer.speak(gates_NG[None], samples, seed_B, temperature=temperature)
        return np.asarray(audio_BT[0])

    return speak


def _one_utterance(synthesizer: kernels.SubscaleSynthesizer) -> Speak:
    def speak(gates_NG: torch.Tensor, samples: int, seed: int, temperature: float) -> np.ndarray:
        last = samples == 0
        return synthesizer.speak(gates_NG, samples, seed, last, temperature)

    return speak


def check_draws(seed: int, temperature: float) -> None:
    """Raises ValueError for a seed or a temperature that no stream can have."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"a seed is a whole number in 0..2^64-1, got {seed}")


def check_mel(mel_NM: np.ndarray, bands: int) -> np.ndarray:
    """Returns a mel as float32 [N, M]; raises MelError for other shapes or non-finite values."""
    mel = np.asarray(mel_NM)
    if mel.ndim != 2 or mel.shape[1] != bands or len(mel) == 0:
        raise MelError(
            f"expected a mel of shape [frames, {bands}] with at least one frame, "
            f"got {list(mel.shape)}"
        )
    if not np.issubdtype(mel.dtype, np.floating):
        raise MelError(f"expected a mel of floating-point values, got {mel.dtype}")
    with np.errstate(over="ignore"):
        mel = np.ascontiguousarray(mel, np.float32)
    if not np.isfinite(mel).all():
        raise MelError("the mel holds NaN or infinite values; make it again from clean audio")
    return mel


def load(
    path: Path | str, backend: str = "auto", format: str | None = None, threads: int = 1
) -> Vocoder:
    """Opens a voice from a checkpoint's file; raises CheckpointError or BackendUnavailable."""
    return Vocoder(checkpoints.load(path), backend, format, threads)
