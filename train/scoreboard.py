"""The result of an evaluation as a table: a row a metric, a column a voice or other vocoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# key, what it is, which is better: less, more, or neither
ROWS = (
    ("bits_per_sample", "bits/sample", "less"),
    ("bits_coarse", "coarse bits", "less"),
    ("bits_fine", "fine bits", "less"),
    ("bits_silence", "bits in silence", "less"),
    ("bits_voiced", "bits in voiced frames", "less"),
    ("flac_bits", "FLAC's bits/sample", ""),
    ("bits_below_flac", "bits below FLAC's", "more"),
    ("mel_l1", "log-mel L1", "less"),
    ("mr_stft", "MR-STFT distance", "less"),
    ("mcd_db", "mel-cepstral distortion, dB", "less"),
    ("f0_rmse_hz", "F0 RMSE, Hz", "less"),
    ("vuv_error", "voicing error, share of frames", "less"),
    ("pesq", "PESQ, wide band", "more"),
    ("stoi", "STOI", "more"),
    ("silence_db", "noise in silence, dBFS", ""),
    ("silence_reference_db", "the recording's, dBFS", ""),
    ("silence_above_db", "above the recording's, dB", ""),
    ("align", "alignment with the text", "more"),
    ("align_reference", "the recording's", ""),
    ("align_ratio", "share of the recording's", "more"),
    ("align_ratio_low", "95 % interval, from", ""),
    ("align_ratio_high", "95 % interval, to", ""),
    ("align_clips", "clips aligned", ""),
    ("realtime_factor", "real-time factor", "more"),
    ("clips", "clips", ""),
)
# under these, `evaluate` has the results of others by name
GROUPS = ("compare", "baselines")
NONE = "–"


def columns(name: str, result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The results of a voice of a name, of the voices beside it and of other vocoders, by name."""
    others = {key: row for group in GROUPS for key, row in result.get(group, {}).items()}
    return {name: result, **others}


def cells(key: str, table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A metric of all columns as text; a dash where it has no value."""
    return [short(row.get(key)) for row in table.values()]


def short(value: float | None) -> str:
    """A number in four figures, or a dash."""
    return NONE if value is None else f"{value:.4g}"


def text(name: str, result: Mapping[str, Any]) -> str:
    """The table in lines for a terminal: keys, then a column for each of `columns`."""
    table = columns(name, result)
    lines = [["", *table]]
    lines += [[key, *values] for key, _, _ in ROWS if any(values := cells(key, table))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            word.rjust(width) if i else word.ljust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
