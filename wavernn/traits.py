"""The numbers that tell mel scales apart, and the scale that they speak for.

The limits were set on log-mels of 492 clips of 34 speakers, of noise, tones and clicks; see the
tests of `dialect`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from wavernn.config import MelConfig
from wavernn.mel import mel_filterbank
from wavernn.scale import LN10, SCALES

# a mel this much above the peak of a full-scale tone may come from samples beyond full scale
HEADROOM = 2.0
# and the mean may be this much above that of full-scale noise
NOISE_HEADROOM = 0.5
# no natural logarithm of a magnitude that was kept above zero at all is lower than this
DEEPEST = -28.0
# frames that a judgement about movement over time needs
ENOUGH_FRAMES = 20


@dataclass(frozen=True)
class Traits:
    """What is measured of values [N, M], without knowing their scale."""

    frames: int
    low: float
    high: float
    mean: float
    # 95th percentile
    upper: float
    # how many values equal the lowest, and the highest
    lows: int
    highs: int
    # share of values below -12 that differ from the lowest
    deep: float
    # median step from frame to frame off the floor: the base of the logarithm scales it
    texture: float
    # correlation of neighbouring frames: 0.84 and more in clean speech, below 0.7 in noise
    inertia: float
    # median over bands of the standard deviation over time: over 1 in clean speech, 0.33 in noise
    swing: float
    # standard deviation over bands of the mean over time
    tilt: float


def measure(values_NM: np.ndarray) -> Traits:
    """Measure finite values [N, M]."""
    low, high = float(values_NM.min()), float(values_NM.max())
    near = 1e-5 * max(1.0, abs(low), abs(high))
    off_floor = values_NM > low + near
    steps = np.abs(np.diff(values_NM, axis=0))[off_floor[1:] & off_floor[:-1]]
    centred = values_NM - values_NM.mean(axis=0)
    energy = float((centred**2).sum())
    return Traits(
        frames=len(values_NM),
        low=low,
        high=high,
        mean=float(values_NM.mean()),
        upper=float(np.percentile(values_NM, 95)),
        lows=int((~off_floor).sum()),
        highs=int((values_NM >= high - near).sum()),
        deep=float((off_floor & (values_NM < -12.0)).mean()),
        texture=float(np.median(steps)) if steps.size else 0.0,
        inertia=float((centred[1:] * centred[:-1]).sum()) / energy if energy > 0 else 0.0,
        swing=float(np.median(values_NM.std(axis=0))),
        tilt=float(values_NM.mean(axis=0).std()),
    )


@lru_cache(maxsize=8)
def loudest(config: MelConfig) -> tuple[float, float]:
    """The highest value of a full-scale tone and the mean of full-scale noise, natural logs."""
    filters_MF = mel_filterbank(config)
    # a tone is half a Hann window's sum on one bin and a quarter on each neighbour; noise of power
    # 1 has the root of the sum of squares, 3/8 of the samples, on every bin
    tone = filters_MF.max() * config.window_samples / 2.0
    noise_M = filters_MF.sum(axis=1) * math.sqrt(3.0 / 8.0 * config.window_samples)
    return math.log(tone), float(np.log(np.maximum(noise_M, config.floor)).mean())


def likely_scale(traits: Traits, values_NM: np.ndarray, config: MelConfig) -> str | None:
    """Name the scale of values as in SCALES, without a reference level; None if none fits.

    "standardised" is a mean of 0 and a deviation of 1 in each band. The scale of the voice is
    named wherever it is plausible.
    """
    t, (peak, noise) = traits, loudest(config)
    speech = t.frames >= ENOUGH_FRAMES and t.inertia > 0.8
    # the predictions of a model may leave the range a little
    if t.low >= -0.1 and t.high <= 1.1 and t.upper > 0.3 * t.high:
        return "unit"
    # few values are large, unlike in a logarithm of noise
    if t.low >= 0.0 and t.upper < 0.4 * t.high and (scale := _not_logged(values_NM, config)):
        return scale
    if t.low < DEEPEST or t.high - t.low > 31.0:
        return "db"
    for limit, name in ((4.0, "symmetric"), (1.0, "symmetric1")):
        if _within(t, limit) and (_floored(t, -limit) or _capped(t, limit)):
            return name
    flat = abs(t.mean) < 0.4 and t.tilt < 0.45 and 0.75 < t.swing < 1.5
    # without norm, ours may lie around 0 too
    if speech and flat and config.norm == "slaney":
        return "standardised"
    if speech and _within(t, 4.0) and t.high > peak + 0.1 and t.tilt > 0.55:
        return "symmetric"
    if speech and _within(t, 1.0):
        return "symmetric1"
    if config.log == "ln":
        if _floored(t, -5.0) and t.high < peak / LN10 + 1.0:
            return "log10"
        # the predictions of a model don't keep to the floor
        narrow = t.low > -5.3 and t.high < peak / LN10 + 0.2 and t.mean < -1.2
        if speech and narrow and t.texture < 0.185 and t.swing > 0.4:
            return "log10"
    elif t.low < -6.1 and t.swing > 1.05:
        return "ln"
    unit = 1.0 if config.log == "ln" else LN10
    if _plausible(unit * t.low, unit * t.high, unit * t.mean, peak, noise):
        deep = t.deep > 0.1 and t.texture > 0.47
        # what lay deeper was cut off
        cut = t.lows > 0.25 * values_NM.size and t.texture > 0.55
        return "ln-power" if config.log == "ln" and speech and (deep or cut) else config.log
    offset = SCALES["ln-int16"].offset
    loud = t.high > peak + HEADROOM and t.mean > 1.5
    if loud and _plausible(t.low + offset, t.high + offset, t.mean + offset, peak, noise):
        return "ln-int16"
    return None


def _within(t: Traits, limit: float) -> bool:
    return t.low >= -limit - 1e-3 and t.high <= limit + 1e-3


def _floored(t: Traits, floor: float) -> bool:
    """The lowest value is the floor of a scale, and was met more than once."""
    return abs(t.low - floor) < 1e-3 and t.lows >= 3


def _capped(t: Traits, cap: float) -> bool:
    return abs(t.high - cap) < 1e-3 and t.highs >= 3


def _plausible(low: float, high: float, mean: float, peak: float, noise: float) -> bool:
    """A recording may give natural-log magnitudes like these."""
    return low >= DEEPEST and high <= peak + HEADROOM and mean <= noise + NOISE_HEADROOM


def _not_logged(values_NM: np.ndarray, config: MelConfig) -> str | None:
    """Tell magnitudes from powers by the texture of their logarithms."""
    ln_NM = np.log(np.maximum(values_NM, 1e-12))
    t, (peak, noise) = measure(ln_NM), loudest(config)
    power = t.frames >= ENOUGH_FRAMES and t.inertia > 0.8 and t.texture > 0.47
    half = 0.5 if power else 1.0
    if not _plausible(half * t.low, half * t.high, half * t.mean, peak, noise):
        return None
    return "power" if power else "magnitude"
