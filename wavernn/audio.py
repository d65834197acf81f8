"""Recordings in and out of files, and the 16-bit, pre-emphasised signal that is modelled.

Samples are floats in [-1, 1], mono. A 16-bit value v = 32768 y is stored as a code v + 32768,
split into a coarse byte (the high one) and a fine byte (Kalchbrenner et al. 2018, section 2.1).
"""

from __future__ import annotations

import io
import math
import os
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wavernn.errors import AudioError
from wavernn.files import write_atomic

# file suffix to libsndfile's format and subtype; lossless ones hold 16 bit
FORMATS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS")}

# a peak beyond this isn't an overload but a wrong scale
_LARGEST_PEAK = 16.0

# samples that are read or written at a time
_BLOCK = 65_536


def read_audio(
    path: str | os.PathLike[str] | BinaryIO, rate_hz: int, longest_s: float | None = None
) -> np.ndarray:
    """Read a recording of any format libsndfile knows as float32 [T], mono, at `rate_hz`.

    Channels are averaged, another rate is converted by soxr (VHQ), the result is limited to
    [-1, 1]. `path` may be an open binary file. Raises `AudioError` if there is no such file, it
    can't be opened, isn't audio, is longer than `longest_s`, or holds no samples or ones that
    aren't finite.
    """
    if rate_hz <= 0:
        raise AudioError(f"the sampling rate must be positive, got {rate_hz} Hz")
    if not isinstance(path, str | os.PathLike):
        return _checked(
            *_read(_Upload(path.read()), "the upload", longest_s), "the upload", rate_hz
        )
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise AudioError(f"{name} doesn't exist; give the path of an audio file") from None
    except IsADirectoryError:
        raise AudioError(f"{name} is a folder; give the path of an audio file") from None
    except PermissionError:
        raise AudioError(f"{name} can't be opened: no permission to read it") from None
    except OSError as error:
        raise AudioError(f"{name} can't be read: {error.strerror or error}") from None
    if empty:
        raise AudioError(f"{name} is empty (0 bytes); an audio file was expected")
    return _checked(*_read(name, name, longest_s), name, rate_hz)


class _Upload(io.BytesIO):
    """Bytes as a file in which a damaged header can't seek before the start.

    The callback that soundfile gives libsndfile would print the exception and go on.
    """

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        origin = (0, self.tell(), self.getbuffer().nbytes)[whence]
        return super().seek(max(0, origin + offset))


def _read(file: str | _Upload, name: str, longest_s: float | None) -> tuple[np.ndarray, int]:
    """Decode a file to float32 [T, channels] and its rate in Hz."""
    import soundfile

    try:
        with soundfile.SoundFile(file) as sound:
            blocks = [np.zeros((0, sound.channels), np.float32)]
            # read until they end, as the length in a header may be unknown (piped flac) or false,
            # and don't seek after each block, which soundfile does and which then fails
            sound.seekable = lambda: False
            left = math.inf if longest_s is None else longest_s * sound.samplerate
            while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
                left -= len(block)
                if left < 0:
                    raise AudioError(f"{name} is longer than {longest_s:g} s; send a shorter one")
                blocks.append(block)
            return np.concatenate(blocks), sound.samplerate
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).strip().rstrip(".")
        raise AudioError(
            f"{name} is not an audio file that libsndfile can read ({reason}); "
            "convert it to wav or flac"
        ) from None


def _checked(samples_TC: np.ndarray, from_hz: int, name: str, rate_hz: int) -> np.ndarray:
    if samples_TC.shape[0] == 0:
        raise AudioError(f"{name} holds no samples; a recording of at least one was expected")
    if not np.isfinite(samples_TC).all():
        raise AudioError(f"{name} holds NaN or infinite samples; export it again as 16-bit wav")
    peak = float(np.abs(samples_TC).max())
    if peak > _LARGEST_PEAK:
        raise AudioError(
            f"{name} has samples up to {peak:.6g}, expected at most 1; divide them by full scale"
        )
    samples_T = samples_TC.mean(axis=1)
    if from_hz != rate_hz:
        samples_T = resample(samples_T, from_hz, rate_hz)
    return np.asarray(np.clip(samples_T, -1.0, 1.0))


def resample(samples_T: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Converts samples [T], at least one, to another rate by soxr (VHQ); at least one comes out."""
    import soxr

    resampled_T = np.asarray(soxr.resample(samples_T, from_hz, to_hz, quality="VHQ"))
    # fewer samples than half an output step would round to none
    return resampled_T if resampled_T.size else samples_T[:1]


def write_audio(path: str | os.PathLike[str], samples_T: np.ndarray, rate_hz: int) -> None:
    """Write samples, float in [-1, 1] or int16, mono, as the format that the suffix names.

    The file appears whole or not at all. Raises `AudioError` for an unknown suffix, samples that
    can't be written, a missing folder, or a place that can't be written to.
    """
    target = Path(path)
    packed = pack_audio(samples_T, rate_hz, target.suffix.removeprefix("."))
    if not target.parent.is_dir():
        raise AudioError(f"the folder {target.parent} doesn't exist; make it first")
    if target.is_dir():
        raise AudioError(f"{target} is a folder; give the path of the file to write")
    try:
        write_atomic(target, packed)
    except OSError as error:
        raise AudioError(f"{target} can't be written: {error.strerror or error}") from None


def pack_audio(samples_T: np.ndarray, rate_hz: int, kind: str) -> bytes:
    """Return the bytes of an audio file of a kind of `FORMATS`, see `write_audio`."""
    import soundfile

    if kind.lower() not in FORMATS:
        raise AudioError(f"unknown audio format {kind!r}; known: {', '.join(FORMATS)}")
    samples_T = np.asarray(samples_T)
    if samples_T.ndim != 1 or samples_T.size == 0:
        raise AudioError(f"audio to write must have shape [samples], got {list(samples_T.shape)}")
    if rate_hz <= 0:
        raise AudioError(f"the sampling rate must be positive, got {rate_hz} Hz")
    container, subtype = FORMATS[kind.lower()]
    values_T = _values(samples_T).astype(np.int16)
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", rate_hz, channels=1, format=container, subtype=subtype
    ) as file:
        # libvorbis takes a write onto its stack, and a long one would overrun it
        for start in range(0, values_T.size, _BLOCK):
            file.write(values_T[start : start + _BLOCK])
    return buffer.getvalue()


def _values(samples: np.ndarray) -> np.ndarray:
    """Quantise floats in [-1, 1) to int32 values -32768 .. 32767; int16 is taken as it is."""
    if samples.dtype == np.int16:
        return samples.astype(np.int32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(f"samples must be floats in [-1, 1] or int16, got {samples.dtype}")
    if not np.isfinite(samples).all():
        raise AudioError("samples are NaN or infinite; finite ones in [-1, 1] were expected")
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int32)


def encode(samples: np.ndarray) -> np.ndarray:
    """Split samples [...], float in [-1, 1) or int16, into bytes [..., 2]: coarse, fine; uint8.

    v = round(32768 y), half to even, clipped to 16 bit; coarse and fine are the high and the low
    byte of v + 32768.
    """
    code = _values(np.asarray(samples)) + 32768
    return np.stack([code >> 8, code & 255], axis=-1).astype(np.uint8)


def decode(codes_T2: np.ndarray) -> np.ndarray:
    """Join bytes [..., 2] to samples [...] in [-1, 1), float32, exactly: `encode` undoes it."""
    codes = np.asarray(codes_T2).astype(np.int32)
    value = codes[..., 0] * 256 + codes[..., 1] - 32768
    return np.asarray(value.astype(np.float32) / np.float32(32768.0))


def pre_emphasis(x_T: np.ndarray, a: float, memory: float = 0.0) -> tuple[np.ndarray, float]:
    """Filter y[n] = x[n] - a x[n-1]; return y_T, float64, and the last x as the next memory.

    `memory` is x before the first sample. y lies in (-1 - a, 1 + a); `encode` clips it. Bit-equal
    however the signal is cut.
    """
    x_T = np.asarray(x_T, dtype=np.float64)
    if x_T.size == 0:
        return x_T.copy(), memory
    previous_T = np.concatenate(([memory], x_T[:-1]))
    return x_T - a * previous_T, float(x_T[-1])


def de_emphasis(y_T: np.ndarray, a: float, memory: float = 0.0) -> tuple[np.ndarray, float]:
    """Invert `pre_emphasis`: x[n] = y[n] + a x[n-1]; return x_T, float64, and the last x.

    The product and the sum are rounded separately, in order: bit-equal however it is cut.
    """

    def step(x: float, y: float) -> float:
        return y + a * x

    x = list(accumulate(np.asarray(y_T, dtype=np.float64).tolist(), step, initial=float(memory)))
    return np.array(x[1:], dtype=np.float64), x[-1]
