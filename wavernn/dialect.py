"""Which dialect of mel an array speaks, judged by its values alone, and how a voice can take it.

A mel that may be right is never refused: silence, a single frame, a loud or noisy recording. Rate,
hop and filters can't be seen from values; see `specification`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wavernn.config import MelConfig
from wavernn.scale import DB, LN10, SCALES, to_voice
from wavernn.traits import Traits, likely_scale, loudest, measure

# mean [M] and standard deviation [M] of the bands over the training data of a voice
Statistics = tuple[np.ndarray, np.ndarray]
Convert = Callable[[np.ndarray], np.ndarray]

# numbers of bands that are in use
COMMON_BANDS = (20, 40, 64, 80, 100, 128, 160, 229, 256, 513)
# a mean level further than this from that of the training data decides for no reference level
UNLIKE_DB = 13.0
# and one further than this is mentioned
FAR_DB = 20.0


@dataclass(frozen=True)
class Finding:
    """What an array was found to be, and what to do, in a sentence.

    `dialect` is a name of SCALES, or of a fault: shape, bands, not-finite, constant, standardised,
    reference, unknown. `fits` says that the voice can take the array. `convert` maps it to the
    mel of the voice, float32 [N, M]; None where it can't be mended.
    """

    dialect: str
    fits: bool
    sentence: str
    convert: Convert | None = None


def recognise(
    array: np.ndarray, config: MelConfig, statistics: Statistics | None = None
) -> Finding:
    """Find out which dialect a mel is in: [N, M] or [M, N], or either after axes of length 1.

    An array of M x M values is taken as [N, M]. `statistics` of the voice tell reference levels
    apart, which values alone don't always do.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        return Finding("shape", False, f"The array holds {array.dtype} values, not numbers.")
    values_NM = _arrange(array, config)
    if values_NM is None:
        return _misshapen(array, config)
    values_NM = values_NM.astype(np.float64)
    if not np.isfinite(values_NM).all():
        return _not_finite(values_NM, config, statistics)
    traits = measure(values_NM)
    if traits.high - traits.low < 1e-6 * max(1.0, abs(traits.low)):
        return _constant(traits, config)
    scale = likely_scale(traits, values_NM, config)
    if scale == config.log:
        return Finding(
            scale, True, _fitting(array, traits, config, statistics), _converter(scale, config)
        )
    spread = f"{traits.low:.4g} to {traits.high:.4g}"
    own = SCALES[config.log].what
    if scale == "standardised":
        return Finding(
            scale,
            False,
            f"The values ({spread}) have mean 0 and deviation 1 in each band; undo that with the "
            f"statistics of the front end, so that they are {own}.",
        )
    if scale is None:
        return Finding(
            "unknown",
            False,
            f"The values ({spread}, mean {traits.mean:.4g}) are no known kind of mel; the voice "
            f"takes {own}, {config.floor_value:.4g} to about {_peak(config):.2g}.",
        )
    candidates = [name for name in (scale, f"{scale}-20") if name in SCALES]
    known = _with_reference(scale, candidates, values_NM, traits, config, statistics)
    if known is None:
        return Finding(
            "reference",
            False,
            f"The values ({spread}) are {SCALES[scale].what}, but their reference level can't be "
            f"told; convert them as {' or '.join(candidates)}, or compute {own}.",
        )
    lost = traits.lows / values_NM.size
    if known == "ln-power" and lost > 0.25:
        return Finding(
            known,
            False,
            f"The values ({spread}) look like {SCALES[known].what}, and {100 * lost:.0f} % of them "
            f"were cut off; compute {own}.",
        )
    return Finding(
        known,
        False,
        f"The values ({spread}) are {SCALES[known].what}, but the voice takes {own}; "
        f"convert them as {known}.",
        _converter(known, config),
    )


def _arrange(array: np.ndarray, config: MelConfig) -> np.ndarray | None:
    """View an array as [N, M], N at least 1; None if its shape doesn't allow it."""
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or not array.size:
        return None
    if array.shape[1] == config.bands:
        return array
    return array.T if array.shape[0] == config.bands else None


def _converter(scale: str, config: MelConfig) -> Convert:
    def convert(array: np.ndarray) -> np.ndarray:
        values_NM = _arrange(np.asarray(array), config)
        assert values_NM is not None, "the array that was examined has this shape"
        return to_voice(values_NM, scale, config)

    return convert


def _misshapen(array: np.ndarray, config: MelConfig) -> Finding:
    M, shape = config.bands, list(array.shape)
    wanted = f"the voice takes [frames, {M}] or [{M}, frames]"
    sizes = [size for size in shape if size != 1]
    if not array.size or array.ndim < 2 or len(sizes) > 2:
        return Finding("shape", False, f"The array has shape {shape}; {wanted}.")
    bands = next((size for size in reversed(sizes) if size in COMMON_BANDS), min(sizes, default=1))
    return Finding(
        "bands",
        False,
        f"The array has shape {shape}, so {bands} bands or so; {wanted}: compute it again with "
        f"{M} bands from {config.low_hz:g} to {config.high_hz:g} Hz.",
    )


def _not_finite(values_NM: np.ndarray, config: MelConfig, statistics: Statistics | None) -> Finding:
    broken, below = int((~np.isfinite(values_NM)).sum()), int(np.isneginf(values_NM).sum())
    if broken == below:
        raised_NM = np.where(np.isneginf(values_NM), config.floor_value, values_NM)
        if recognise(raised_NM, config, statistics).fits:
            return Finding(
                "not-finite",
                False,
                f"{below} of {values_NM.size} values are minus infinity, logarithms of zero; raise "
                f"magnitudes to {config.floor:g} before the logarithm.",
                _converter(config.log, config),
            )
    return Finding(
        "not-finite",
        False,
        f"{broken} of {values_NM.size} values are NaN or infinite; look for the fault in the "
        "front end.",
    )


def _constant(traits: Traits, config: MelConfig) -> Finding:
    if abs(traits.low - config.floor_value) < 0.1:
        sentence = f"The mel fits: {traits.frames} frames of digital silence."
        return Finding(config.log, True, sentence, _converter(config.log, config))
    return Finding(
        "constant",
        False,
        f"All values are {traits.low:.4g}, which no recording gives; silence is "
        f"{config.floor_value:.5g} in this voice.",
    )


def _peak(config: MelConfig) -> float:
    return loudest(config)[0] / (1.0 if config.log == "ln" else LN10)


def _louder_db(mean: float, config: MelConfig, statistics: Statistics) -> float:
    """How much louder a mean on the voice's scale is than its training data."""
    per_db = DB if config.log == "ln" else DB / LN10
    return (mean - float(np.mean(statistics[0]))) / per_db


def _fitting(
    array: np.ndarray, traits: Traits, config: MelConfig, statistics: Statistics | None
) -> str:
    stored = f", stored as {list(array.shape)}" if array.shape[-1] != config.bands else ""
    parts = [
        f"The mel fits: {traits.frames} frames{stored}, {SCALES[config.log].what}, "
        f"{traits.low:.4g} to {traits.high:.4g}"
    ]
    if traits.low < config.floor_value - 0.01:
        parts.append(f"values below {config.floor_value:.5g} are raised to it")
    if statistics is not None:
        louder_db = _louder_db(traits.mean, config, statistics)
        if abs(louder_db) > FAR_DB:
            parts.append(
                f"it is {abs(louder_db):.0f} dB {'louder' if louder_db > 0 else 'quieter'} than "
                "the voice's training data, so check its scale and level"
            )
    return "; ".join(parts) + "."


def _with_reference(
    scale: str,
    candidates: list[str],
    values_NM: np.ndarray,
    traits: Traits,
    config: MelConfig,
    statistics: Statistics | None,
) -> str | None:
    """Choose among scales that differ in their reference level; None if it can't be told."""
    if len(candidates) == 1:
        return scale
    top = {"unit": 1.0, "symmetric": 4.0, "symmetric1": 1.0}.get(scale)
    # speech reaches 0 dB, but not 20 dB, so only the lower reference cuts it off there
    if top is not None and abs(traits.high - top) < 1e-3 and traits.highs >= 3:
        return scale
    if scale == "db":
        peak_db = loudest(config)[0] / DB
        # librosa's ref=np.max, or 16-bit values that weren't divided by full scale
        if abs(traits.high) < 1e-3 or traits.high > peak_db + 12.0:
            return None
        if abs(traits.low + 120.0) < 0.5:
            return "db-20"
        if traits.high > peak_db - 17.0 or abs(traits.low + 100.0) < 1e-2:
            return "db"
    if statistics is None:
        return None
    distance_db = {
        name: abs(_louder_db(float(to_voice(values_NM, name, config).mean()), config, statistics))
        for name in candidates
    }
    best = min(candidates, key=distance_db.__getitem__)
    return best if distance_db[best] < UNLIKE_DB else None
