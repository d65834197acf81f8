"""Pictures of recordings: the spectrogram, and below it the pitch."""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import numpy as np
import torch

from wavernn.config import MelConfig
from wavernn.train.pitch import pitch

# levels shown, from the loudest bin of the recording down
RANGE_DB = 90.0
# the range that `pitch` looks in
LOW_HZ, HIGH_HZ = 60, 500
SIZE_INCHES, DOTS_PER_INCH, QUALITY = (7.2, 3.6), 100, 75


def missing_figures() -> str | None:
    """Says in a sentence why no pictures can be made here, or None if they can."""
    if importlib.util.find_spec("matplotlib") is not None:
        return None
    return "a page needs the package matplotlib: pip install 'wavernn[eval]'"


def spectrogram_db(samples_T: np.ndarray, mel: MelConfig) -> np.ndarray:
    """The level of each bin and frame in dB, [fft / 2 + 1, N]; full scale is about 0."""
    samples = torch.from_numpy(np.array(samples_T, np.float64))
    window_S = torch.hann_window(mel.window_samples, dtype=torch.float64)
    spectrum = torch.stft(
        samples,
        mel.fft_samples,
        mel.hop_samples,
        mel.window_samples,
        window_S,
        # mirrored ends would need clips longer than a window
        pad_mode="constant",
        return_complex=True,
    )
    return np.asarray(20.0 * (2 * spectrum.abs() / window_S.sum()).clamp(min=1e-7).log10())


def picture(samples_T: np.ndarray, reference_T: np.ndarray, mel: MelConfig) -> bytes:
    """Draws a recording [T], its pitch over that of its reference; a WebP file."""
    from matplotlib.figure import Figure

    top_db = float(spectrogram_db(reference_T, mel).max())
    seconds = len(samples_T) / mel.rate_hz
    figure = Figure(SIZE_INCHES, DOTS_PER_INCH, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.imshow(
        spectrogram_db(samples_T, mel),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0.0, seconds, 0.0, mel.rate_hz / 2000.0),
        vmin=top_db - RANGE_DB,
        vmax=top_db,
        cmap="magma",
    )
    upper.set_ylabel("kHz")
    _draw_pitch(lower, reference_T, mel, "0.6", 3.0)
    _draw_pitch(lower, samples_T, mel, "C3", 1.0)
    lower.set(yscale="log", ylim=(LOW_HZ, HIGH_HZ), xlim=(0.0, seconds), xlabel="s", ylabel="Hz")
    lower.set_yticks([100, 200, 400], ["100", "200", "400"])
    lower.minorticks_off()
    file = io.BytesIO()
    figure.savefig(file, format="webp", pil_kwargs={"quality": QUALITY})
    return file.getvalue()


def _draw_pitch(axes: Any, samples_T: np.ndarray, mel: MelConfig, color: str, width: float) -> None:
    f0_N, voiced_N = pitch(samples_T, mel.rate_hz, mel.hop_samples, LOW_HZ, HIGH_HZ)
    time_N = (np.arange(len(f0_N)) + 0.5) * mel.hop_samples / mel.rate_hz
    # what isn't a number leaves a gap
    axes.plot(time_N, np.where(voiced_N, f0_N, np.nan), color=color, linewidth=width)
