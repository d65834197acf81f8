"""Recordings to log-mel spectrograms, whole or as they arrive, with bit-equal results.

The definition is HiFi-GAN's (`meldataset.py`, `mel_spectrogram`; Kong et al. 2020), the same as
Tacotron 2's but for the padding. Frame j describes samples j * hop .. (j + 1) * hop - 1: its
transform is centred on them. Beside the package's letters, F is the bins of the transform.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad as pad_zeros

from wavernn.config import MelConfig
from wavernn.errors import MelError

# The matrix product of a library rounds a row differently by how many rows it's called with (seen
# on MKL: 1 to 3 rows against 4 and more; cuBLAS picks kernels by shape). So frame j is always
# computed at row j % GROUP of a block of exactly GROUP rows, alone or not, offline or streaming.
GROUP = 32

# added to the power before the root, as in HiFi-GAN; keeps the gradient finite in silence
POWER_EPSILON = 1e-9


def frame_count(samples: int, config: MelConfig) -> int:
    """Count the frames N of a recording of T samples: ceil(T / hop), so that none is lost.

    HiFi-GAN drops the incomplete frame at the end; its floor(T / hop) frames are our first ones.
    """
    if samples < 0:
        raise MelError(f"a recording can't have {samples} samples; the count must not be negative")
    return -(-samples // config.hop_samples)


def hz_to_mel(hz: np.ndarray, scale: str) -> np.ndarray:
    """Map frequencies in Hz to mel; slaney: Auditory Toolbox (Slaney 1998), htk: O'Shaughnessy."""
    if scale == "htk":
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))
    # linear up to 1000 Hz (15 mel), then 27 steps for each factor of 6.4
    log_part = 15.0 + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / math.log(6.4)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, log_part)


def mel_to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    """Invert `hz_to_mel`."""
    if scale == "htk":
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    log_part = 1000.0 * np.exp((np.maximum(mel, 15.0) - 15.0) * math.log(6.4) / 27.0)
    return np.where(mel < 15.0, mel * 200.0 / 3.0, log_part)


def mel_filterbank(config: MelConfig) -> np.ndarray:
    """Build the triangular filters [M, fft_samples / 2 + 1], float64.

    Slaney's norm gives each triangle the area 1 in Hz (Auditory Toolbox, `mfcc.m`); without norm
    its peak is 1. A band narrower than a bin of the transform may be zero throughout.
    """
    low, high = hz_to_mel(np.array([config.low_hz, config.high_hz]), config.scale)
    # M triangles share M + 2 corners, equally spaced in mel
    corners_hz = mel_to_hz(np.linspace(low, high, config.bands + 2), config.scale)
    bins_hz = np.linspace(0.0, config.rate_hz / 2, config.fft_samples // 2 + 1)
    left, peak, right = (corners_hz[i : i + config.bands, None] for i in range(3))
    rising = (bins_hz - left) / (peak - left)
    falling = (right - bins_hz) / (right - peak)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if config.norm == "slaney":
        filters *= 2.0 / (right - left)
    return np.asarray(filters)


def _reflected(start: int, stop: int, T: int, device: torch.device) -> Tensor:
    """Indices into T samples for positions start .. stop - 1 of the signal mirrored at both ends.

    The end samples aren't repeated, and the mirror images go on without end (period 2T - 2), so a
    signal shorter than the padding works too; a single sample stands for all positions.
    """
    period = max(2 * T - 2, 1)
    index = torch.arange(start, stop, device=device) % period
    return torch.minimum(index, (period - index) % period) if T > 1 else index * 0


class LogMel(torch.nn.Module):
    """The log-mel spectrogram of a `MelConfig`, differentiable, on any device with float64.

    It computes in float64 and rounds once at the end: devices then agree to float32 rounding, and
    neither TF32 nor autocast can touch it.
    """

    window_S: Tensor
    filters_FM: Tensor

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        self._fill(torch.device("cpu"))

    def _fill(self, device: torch.device) -> None:
        config = self.config
        window = torch.hann_window(config.window_samples, periodic=True, dtype=torch.float64)
        spare = config.fft_samples - config.window_samples
        window_S = pad_zeros(window, (spare // 2, spare - spare // 2))
        # no filter reaches beyond high_hz, so those bins aren't computed with
        self.bins = int(config.high_hz * config.fft_samples / config.rate_hz) + 1
        filters_FM = torch.from_numpy(mel_filterbank(config).T[: self.bins].copy())
        # not persistent: the config says it all
        self.register_buffer("window_S", window_S.to(device), persistent=False)
        self.register_buffer("filters_FM", filters_FM.to(device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LogMel:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # so that model.half() doesn't coarsen the buffers, nor to_empty() leave them undefined
        self._fill(self.window_S.device)
        return self

    def forward(self, audio_BT: Tensor) -> Tensor:
        """Compute mel_BNM, float32, from recordings in [-1, 1], N = ceil(T / hop).

        Padding is by reflection: (fft - hop) / 2 samples before, as many after plus what the last
        frame lacks. Values are log(max(filters @ magnitude, floor)). A row of a batch is bit-equal
        to the same recording alone. Raises `MelError` for another rank, no samples, integers, or
        samples that aren't finite.
        """
        if audio_BT.ndim != 2:
            raise MelError(
                f"a log-mel needs audio of shape [batch, samples], got {list(audio_BT.shape)}"
            )
        _check(audio_BT)
        config = self.config
        B, T = audio_BT.shape
        if B == 0 or T == 0:
            raise MelError(f"a log-mel needs at least one sample, got shape {list(audio_BT.shape)}")
        N = frame_count(T, config)
        pad = (config.fft_samples - config.hop_samples) // 2
        before = _reflected(-pad, 0, T, audio_BT.device)
        after = _reflected(T, N * config.hop_samples + pad, T, audio_BT.device)
        padded_BT = torch.cat([audio_BT[:, before], audio_BT, audio_BT[:, after]], dim=1)
        frames_BNS = padded_BT.unfold(1, config.fft_samples, config.hop_samples)
        return torch.stack([self.frames_to_mel(frames_NS, 0) for frames_NS in frames_BNS])

    def frames_to_mel(self, frames_NS: Tensor, first: int) -> Tensor:
        """Transform frames [N, fft_samples], cut out but not windowed, from frame `first` on.

        Returns mel_NM in float32. The index matters to the last bit only, see `GROUP`.
        """
        N = frames_NS.shape[0]
        if N == 0:
            return self.filters_FM.new_zeros(0, self.config.bands, dtype=torch.float32)
        lead = first % GROUP
        groups = []
        for start in range(-lead, N, GROUP):
            # the window makes it float64
            group_NS = frames_NS[max(start, 0) : start + GROUP] * self.window_S
            above = max(-start, 0)
            below = GROUP - above - group_NS.shape[0]
            if above or below:
                group_NS = pad_zeros(group_NS, (0, 0, above, below))
            spectrum_NF = torch.fft.rfft(group_NS)[:, : self.bins]
            power_NF = (spectrum_NF * spectrum_NF.conj()).real
            mel_NM = (power_NF + POWER_EPSILON).sqrt() @ self.filters_FM
            mel_NM = mel_NM.clamp(min=self.config.floor)
            groups.append(mel_NM.log() if self.config.log == "ln" else mel_NM.log10())
        return torch.cat(groups)[lead : lead + N].float()


def _check(audio: Tensor) -> None:
    if not audio.dtype.is_floating_point:
        raise MelError(
            f"a log-mel needs floating-point audio in [-1, 1], got {audio.dtype}; "
            "divide 16-bit samples by 32768"
        )
    # the extremes are NaN if any sample is, and several times faster than isfinite on all
    if audio.numel() and not all(
        math.isfinite(extreme) for extreme in torch.aminmax(audio.detach())
    ):
        raise MelError("the audio holds NaN or infinite samples; a log-mel needs finite ones")


class StreamingLogMel:
    """The log-mel of one recording that arrives in pieces; the frames are those of `LogMel`.

    Bit-equal to the offline result on the same device, however the recording is cut. Frame j is
    ready once (fft - hop) / 2 samples beyond its own are there. Not differentiable.
    """

    def __init__(self, log_mel: LogMel) -> None:
        self.log_mel = log_mel
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next sample is the first of a new recording."""
        # samples from position _origin on, T of the recording so far, frames given out so far
        self._held_T = self.log_mel.window_S.new_zeros(0)
        self._origin = 0
        self._samples = 0
        self._frames = 0

    @torch.no_grad()
    def push(self, samples_T: Tensor | np.ndarray) -> Tensor:
        """Take samples in [-1, 1], any number, and return the frames mel_NM that became ready."""
        if isinstance(samples_T, np.ndarray):
            samples_T = torch.from_numpy(samples_T.copy())
        if samples_T.ndim != 1:
            raise MelError(f"a mel stream takes samples of rank 1, got {list(samples_T.shape)}")
        _check(samples_T)
        device = self.log_mel.window_S.device
        self._held_T = torch.cat([self._held_T, samples_T.to(device, torch.float64)])
        self._samples += samples_T.shape[0]
        hop, pad = self._sizes()
        return self._emit(max((self._samples - pad) // hop, self._frames))

    @torch.no_grad()
    def flush(self) -> Tensor:
        """End the recording: return its remaining frames mel_NM, and start anew.

        A recording without samples has no frames.
        """
        mel_NM = self._emit(frame_count(self._samples, self.log_mel.config))
        self.reset()
        return mel_NM

    def _sizes(self) -> tuple[int, int]:
        config = self.log_mel.config
        return config.hop_samples, (config.fft_samples - config.hop_samples) // 2

    def _emit(self, stop: int) -> Tensor:
        """Compute frames _frames .. stop - 1 and drop the samples that no later frame needs."""
        hop, pad = self._sizes()
        first = self._frames
        if stop == first:
            return self.log_mel.frames_to_mel(self._held_T.new_zeros(0, 2 * pad + hop), first)
        index = _reflected(first * hop - pad, stop * hop + pad, self._samples, self._held_T.device)
        frames_NS = self._held_T[index - self._origin].unfold(0, 2 * pad + hop, hop)
        mel_NM = self.log_mel.frames_to_mel(frames_NS, first)
        self._frames = stop
        # a later frame starts at stop * hop - pad; the mirror at the end reaches hop + pad back
        keep = max(min(stop * hop - pad, self._samples - hop - pad - 1), self._origin)
        self._held_T = self._held_T[keep - self._origin :].clone()
        self._origin = keep
        return mel_NM
