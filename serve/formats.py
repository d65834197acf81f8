"""The formats of a response, and the encoder that makes its bytes while samples come."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np

from wavernn.errors import WaveRNNError
from wavernn.serve import codecs
from wavernn.serve.codecs import CODECS, CodecWriter

# what a client may ask for; a codec may have fewer
LOWEST_RATE_HZ = 8_000
HIGHEST_RATE_HZ = 48_000

# says in a header that the size isn't known; other numbers make strict readers fail
_UNKNOWN_SIZE = 0xFFFFFFFF


class UnavailableFormat(WaveRNNError):
    """The asked-for format or rate isn't known, or can't be made here."""


@dataclass(frozen=True)
class Format:
    """What a value of `response_format` stands for."""

    mime: str
    # its length and its values are those of the samples
    lossless: bool = False


# the names and types of OpenAI's speech endpoint; opus is in Ogg, aac in ADTS, all are mono
FORMATS = {
    "wav": Format("audio/wav", lossless=True),
    "pcm": Format("audio/pcm", lossless=True),
    "flac": Format("audio/flac", lossless=True),
    "opus": Format("audio/opus"),
    "mp3": Format("audio/mpeg"),
    "aac": Format("audio/aac"),
}


def unavailable(name: str) -> str | None:
    """Returns why a format can't be made here, as a sentence, or None."""
    if name not in FORMATS:
        return f"unknown format {name[:40]!r}; known: {', '.join(FORMATS)}"
    reason = codecs.unavailable() if name in CODECS else None
    return reason and f"the format {name} {reason}"


class Encoder:
    """Turns the samples of one stream into the bytes of a response.

    `rate_hz` is the rate of what comes out and `content_length` the number of bytes in all, if
    that is certain before the first. The same samples make the same bytes of wav and pcm, and the
    same decoded ones of flac, however they are cut into blocks. It may be closed while another
    thread encodes, which then raises ValueError.
    """

    def __init__(
        self,
        name: str,
        rate_hz: int,
        out_rate_hz: int | None = None,
        total_samples: int | None = None,
    ) -> None:
        """Starts a stream of the format `name` for samples of `rate_hz`.

        `out_rate_hz` asks for another rate; without it opus, mp3 and aac raise one that they don't
        have to their next. `total_samples` is how many will come, at `rate_hz`, if that is known.
        Raises UnavailableFormat if the format or the rate can't be made.
        """
        if reason := unavailable(name):
            raise UnavailableFormat(reason)
        codec = CODECS.get(name)
        if out_rate_hz is not None:
            _check_rate(name, out_rate_hz)
        self.rate_hz = out_rate_hz or (codec.rate_hz(rate_hz) if codec else rate_hz)
        self.mime = FORMATS[name].mime
        # what is coded with a loss needn't have an exact length, so that its codec's own quicker
        # resampler will do
        made_hz = self.rate_hz if FORMATS[name].lossless else rate_hz
        self._quantizer = Quantizer(rate_hz, made_hz, total_samples)
        total = self._quantizer.total
        self._writer: _Writer
        if codec is not None:
            self._writer = CodecWriter(codec, made_hz, self.rate_hz, total)
            header = None
        else:
            header = wav_header(self.rate_hz, total) if name == "wav" else b""
            self._writer = _Raw(header)
        self.content_length: int | None = None
        if header is not None and total is not None:
            self.content_length = len(header) + 2 * total
        self._open = True
        # FFmpeg would crash on a codec that is freed at work
        self._lock = threading.Lock()

    def encode(self, samples_T: np.ndarray) -> bytes:
        """Takes float samples [T] in [-1, 1), T >= 0; returns the bytes ready, maybe none.

        A header comes with the first call. Raises ValueError if the stream is finished or closed.
        """
        with self._lock:
            self._check_open()
            return self._writer.write(self._quantizer.push(samples_T))

    def finish(self) -> bytes:
        """Returns the rest of the bytes and closes; raises ValueError if that has been done.

        If `total_samples` was given, what was fed beyond them is cut, and what lacks is silence,
        so that the sizes in headers are true.
        """
        with self._lock:
            self._check_open()
            self._open = False
            return self._writer.write(self._quantizer.finish()) + self._writer.finish()

    def close(self) -> None:
        """Frees the codec at once, at whatever place of the stream; may be called twice."""
        with self._lock:
            self._open = False
            self._writer.close()

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError("the encoder is finished or closed; make one for each stream")

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Quantizer:
    """Turns float samples into 16-bit values at another rate, exactly as many as announced.

    `total` is the number of values that will come, if that of the samples is known. Rates are
    converted by soxr (HQ), which keeps back about 42 ms.
    """

    def __init__(self, rate_hz: int, out_rate_hz: int, total_samples: int | None) -> None:
        self._rates_hz = rate_hz, out_rate_hz
        self.total = None if total_samples is None else self._values(total_samples)
        self._fed = self._made = 0
        self._resampler = None
        if rate_hz != out_rate_hz:
            import soxr

            self._resampler = soxr.ResampleStream(rate_hz, out_rate_hz, 1, quality="HQ")

    def _values(self, samples: int) -> int:
        """The nearest number, which is what soxr makes too."""
        rate_hz, out_rate_hz = self._rates_hz
        return (2 * samples * out_rate_hz + rate_hz) // (2 * rate_hz)

    def push(self, samples_T: np.ndarray, last: bool = False) -> np.ndarray:
        """Takes float samples [T] and returns the int16 values that are ready."""
        samples_T = np.ascontiguousarray(samples_T, np.float32)
        self._fed += len(samples_T)
        if self._resampler is not None:
            samples_T = self._resampler.resample_chunk(samples_T, last)
        values_T = np.rint(samples_T * np.float32(32768)).clip(-32768, 32767).astype("<i2")
        if self.total is not None:
            values_T = values_T[: self.total - self._made]
        self._made += len(values_T)
        return values_T

    def finish(self) -> np.ndarray:
        """Returns the values that were kept back, cut or filled with silence to the number."""
        rest_T = self.push(np.zeros(0, np.float32), last=True)
        total = self._values(self._fed) if self.total is None else self.total
        # negative where a resampler made one too many
        lacking = total - self._made
        return np.pad(rest_T, (0, lacking)) if lacking > 0 else rest_T[: len(rest_T) + lacking]


class _Writer(Protocol):
    def write(self, values_T: np.ndarray) -> bytes: ...
    def finish(self) -> bytes: ...
    def close(self) -> None: ...


class _Raw:
    """The values as they are, behind a header."""

    def __init__(self, header: bytes) -> None:
        self._header = header

    def write(self, values_T: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + values_T.tobytes()

    def finish(self) -> bytes:
        return b""

    def close(self) -> None:
        pass


def wav_header(rate_hz: int, total: int | None) -> bytes:
    """Returns the 44 bytes before `total` mono values of 16 bit, or before an unknown number."""
    size = _UNKNOWN_SIZE if total is None else 2 * total
    riff_size = size + 36
    if riff_size >= _UNKNOWN_SIZE:
        # nor can the header say more than 4 GiB
        size = riff_size = _UNKNOWN_SIZE
    return struct.pack(
        "<4sI8sIHHIIHH4sI",
        *(b"RIFF", riff_size, b"WAVEfmt "),
        # 16 bytes of: integers, channels, rate, bytes a second, bytes and bits a sample
        *(16, 1, 1, rate_hz, 2 * rate_hz, 2, 16),
        *(b"data", size),
    )


def _check_rate(name: str, rate_hz: int) -> None:
    rates_hz = CODECS[name].rates_hz if name in CODECS else ()
    if rates_hz and rate_hz not in rates_hz:
        known = ", ".join(map(str, rates_hz))
        raise UnavailableFormat(f"{name} can't have {rate_hz} Hz; ask for one of {known}")
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        raise UnavailableFormat(
            f"a rate of {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz was expected, got {rate_hz}"
        )
