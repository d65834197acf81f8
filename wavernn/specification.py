"""What a front end says of its mels, against what a voice takes: what values can't show."""

from __future__ import annotations

import math
from collections.abc import Mapping

from wavernn.config import MelConfig

# field of MelConfig, and what other projects call it
ALIASES: Mapping[str, tuple[str, ...]] = {
    "rate_hz": ("sampling_rate", "sample_rate", "samplerate", "sr", "fs"),
    "fft_samples": ("n_fft", "fft_size", "filter_length", "fft_length"),
    "window_samples": ("win_size", "win_length", "window_size"),
    "hop_samples": ("hop_size", "hop_length", "frame_shift"),
    "bands": ("num_mels", "n_mels", "n_mel_channels", "num_mel_bins"),
    "low_hz": ("fmin", "f_min", "mel_fmin"),
    "high_hz": ("fmax", "f_max", "mel_fmax"),
    "scale": (),
    "norm": (),
    "log": (),
    "floor": (),
}
FIELDS = {alias: field for field, aliases in ALIASES.items() for alias in (field, *aliases)}


def declared_mismatch(declared: Mapping[str, object], config: MelConfig) -> list[str]:
    """Say in a sentence each where a declared specification differs from what the voice takes.

    Keys are those of MelConfig or their common aliases; others are ignored. An upper frequency of
    None is half the declared rate.
    """
    rate_hz = next((declared[key] for key in declared if FIELDS.get(key) == "rate_hz"), None)
    sentences = []
    for key, value in declared.items():
        field = FIELDS.get(key)
        if field is None:
            continue
        wanted = getattr(config, field)
        if field == "high_hz" and value is None:
            value = float(rate_hz if isinstance(rate_hz, int | float) else config.rate_hz) / 2
        if field == "low_hz" and value is None:
            value = 0.0
        if not _same(value, wanted):
            sentences.append(
                f"{key} is {_shown(value)} in the specification, but the voice takes "
                f"{_shown(wanted)}; {_advice(field)}."
            )
    return sentences


def _same(value: object, wanted: object) -> bool:
    if isinstance(wanted, str):
        return isinstance(value, str) and value.lower() == wanted
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    assert isinstance(wanted, int | float)
    return math.isclose(value, wanted, rel_tol=1e-6)


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _advice(field: str) -> str:
    if field == "rate_hz":
        return "resample the recordings before the mel, or the speech has another pitch and tempo"
    if field == "hop_samples":
        return "compute the mel with this hop, or the speech has another tempo"
    if field in ("log", "floor"):
        return "convert the values"
    return "compute the mel again with it"


def check_length(frames: int, samples: int, config: MelConfig) -> list[str]:
    """Say in a sentence if a mel and its recording, at the rate of the voice, differ in length.

    A frame more than ceil(T / hop), as centred transforms give, and one transform less, as
    transforms without padding give, are no difference.
    """
    hop = config.hop_samples
    expected = -(-samples // hop)
    if expected - config.fft_samples // hop - 1 <= frames <= expected + 1:
        return []
    sentence = (
        f"The mel has {frames} frames, but a recording of {samples} samples has {expected} at the "
        f"hop of {hop} samples"
    )
    if frames > 0 and samples > 0:
        apparent = samples / frames
        sentence += (
            f"; as it stands, the hop is about {apparent:.0f} samples "
            f"({1e3 * apparent / config.rate_hz:.2f} ms), or they aren't the same utterance"
        )
    return [sentence + "."]
