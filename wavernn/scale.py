"""The scales that mel values come in, by name, and the way from each to that of a voice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wavernn.config import MelConfig
from wavernn.errors import MelError

LN10 = math.log(10.0)
# natural logarithm per decibel of magnitude
DB = LN10 / 20.0


@dataclass(frozen=True)
class Scale:
    """A scale: ln magnitude = slope * value + offset, or that of ln value where it isn't logged."""

    what: str
    slope: float
    offset: float = 0.0
    logged: bool = True


def _normalised(low: float, high: float, reference_db: float) -> tuple[float, float]:
    """Slope and offset of -100 .. 0 dB above a reference level, mapped to low .. high."""
    slope = 100.0 * DB / (high - low)
    return slope, (reference_db - 100.0) * DB - slope * low


SCALES: Mapping[str, Scale] = {
    "ln": Scale("natural logarithms of magnitude", 1.0),
    "log10": Scale("logarithms to base 10 of magnitude", LN10),
    "ln-power": Scale("natural logarithms of power", 0.5),
    "log10-power": Scale("logarithms to base 10 of power", LN10 / 2.0),
    "ln-int16": Scale("natural logarithms of audio in -32768 .. 32767", 1.0, -math.log(32768.0)),
    "db": Scale("decibels", DB),
    "db-20": Scale("decibels above a reference of 20 dB", DB, 20.0 * DB),
    # fatchord/WaveRNN
    "unit": Scale("-100 .. 0 dB mapped to 0 .. 1", *_normalised(0.0, 1.0, 0.0)),
    # keithito/tacotron
    "unit-20": Scale(
        "-100 .. 0 dB above a reference of 20 dB, mapped to 0 .. 1", *_normalised(0.0, 1.0, 20.0)
    ),
    "symmetric": Scale("-100 .. 0 dB mapped to -4 .. 4", *_normalised(-4.0, 4.0, 0.0)),
    # Rayhane-mamah/Tacotron-2, CorentinJ/Real-Time-Voice-Cloning, mozilla/TTS
    "symmetric-20": Scale(
        "-100 .. 0 dB above a reference of 20 dB, mapped to -4 .. 4", *_normalised(-4.0, 4.0, 20.0)
    ),
    "symmetric1": Scale("-100 .. 0 dB mapped to -1 .. 1", *_normalised(-1.0, 1.0, 0.0)),
    "symmetric1-20": Scale(
        "-100 .. 0 dB above a reference of 20 dB, mapped to -1 .. 1", *_normalised(-1.0, 1.0, 20.0)
    ),
    "magnitude": Scale("magnitudes without a logarithm", 1.0, logged=False),
    "power": Scale("powers without a logarithm", 0.5, logged=False),
}


def to_voice(values_NM: np.ndarray, scale: str, config: MelConfig) -> np.ndarray:
    """Map values on a scale of SCALES to the mel that a voice takes, float32 [N, M].

    Values below the floor of the voice are raised to it. From powers it is an approximation: the
    root of a band's power isn't its mean magnitude. Raises MelError for an unknown scale.
    """
    if scale not in SCALES:
        raise MelError(f"unknown mel scale {scale!r}; known: {', '.join(SCALES)}")
    values = np.asarray(values_NM, dtype=np.float64)
    known = SCALES[scale]
    if not known.logged:
        values = np.log(np.maximum(values, np.finfo(np.float32).tiny))
    elif scale == config.log:
        # as they are: a product and a quotient would change the last bit
        return np.maximum(values, config.floor_value).astype(np.float32)
    ln = known.slope * values + known.offset
    return np.maximum(ln / (LN10 if config.log == "log10" else 1.0), config.floor_value).astype(
        np.float32
    )
