"""The public face of a voice: mel spectrogram in, samples out, whole or as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from wavernn import checkpoint as checkpoints
from wavernn import kernels
from wavernn.audio import de_emphasis, decode
from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import Conditioning
from wavernn.errors import MelError
from wavernn.rng import uniforms


class Vocoder:
    """Turns mel spectrograms into speech with one voice on one backend.

    A stream is a function of (checkpoint, mel, seed) on a backend, bit-equal however it's cut.
    """

    def __init__(self, voice: Checkpoint, backend: str = "auto") -> None:
        self.voice = voice
        self.synthesizer = kernels.load(backend)(voice, 1)
        self.conditioning = Conditioning(voice)

    @property
    def rate_hz(self) -> int:
        """Samples per second of what comes out."""
        return self.voice.config.mel.rate_hz

    def stream(
        self, mels: Iterable[np.ndarray], seed: int = 0, temperature: float = 1.0
    ) -> Iterator[np.ndarray]:
        """Yields float32 samples [T] in [-1, 1) as mel frames [n, M] arrive.

        Raises MelError for frames of the wrong shape or with values that aren't finite. One
        stream at a time; the state is reset at the start of each.
        """
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.synthesizer.reset()
        self.conditioning.reset()
        self._sample, self._memory = 0, 0.0
        for mel_NM in mels:
            checked = torch.from_numpy(check_mel(mel_NM, self.voice.config.mel.bands))
            for gates_NG in self.conditioning.push(checked):
                yield self._samples(gates_NG, seed, temperature)
        silence = torch.empty(0, self.voice.config.mel.bands)
        for gates_NG in self.conditioning.push(silence, last=True):
            yield self._samples(gates_NG, seed, temperature)

    def _samples(self, gates_NG: torch.Tensor, seed: int, temperature: float) -> np.ndarray:
        T = len(gates_NG) * self.voice.config.model.conditioning_hop_samples
        uniform_T2 = uniforms(seed, self._sample, T)
        codes_BT2 = self.synthesizer.run(gates_NG[None], uniform_T2[None], temperature=temperature)
        self._sample += T
        a = self.voice.config.model.pre_emphasis
        samples_T, self._memory = de_emphasis(decode(codes_BT2[0]), a, self._memory)
        return np.asarray(np.clip(samples_T, -1, 32767 / 32768), np.float32)

    def synthesize(self, mel_NM: np.ndarray, seed: int = 0, temperature: float = 1.0) -> np.ndarray:
        """Turns a whole mel [N, M] into float32 samples [N * hop] in [-1, 1)."""
        return np.concatenate(list(self.stream([mel_NM], seed, temperature)))


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
    if not np.isfinite(mel).all():
        raise MelError("the mel holds NaN or infinite values; make it again from clean audio")
    return np.ascontiguousarray(mel, np.float32)


def load(path: Path | str, backend: str = "auto") -> Vocoder:
    """Opens a voice from a checkpoint's file; raises CheckpointError or BackendUnavailable."""
    return Vocoder(checkpoints.load(path), backend)
