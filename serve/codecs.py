"""FLAC, Opus, MP3 and AAC by PyAV, written so that each frame leaves as soon as it's coded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import OutputContainer

# what MPEG-1, 2 and 2.5 audio layer III knows; AAC knows these too
_MPEG_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True)
class Codec:
    """How a format is made by FFmpeg's libraries."""

    # names in FFmpeg
    encoder: str
    container: str
    # the only sampling rates it has, rising; none: any rate
    rates_hz: tuple[int, ...] = ()
    bits_per_s: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    container_options: Mapping[str, str] = field(default_factory=dict)

    def rate_hz(self, rate_hz: int) -> int:
        """Returns the rate that holds all of a signal of `rate_hz`, or else the highest."""
        if not self.rates_hz:
            return rate_hz
        return next((rate for rate in self.rates_hz if rate >= rate_hz), self.rates_hz[-1])


CODECS = {
    # a frame of its own choice is 105 ms long; 8 KiB of padding would come before the first
    "flac": Codec(
        "flac",
        "flac",
        options={"frame_size": "512"},
        container_options={"metadata_header_padding": "0"},
    ),
    # the container holds a page back until the next, so that a shorter one comes earlier
    "opus": Codec(
        "libopus",
        "ogg",
        rates_hz=(8_000, 12_000, 16_000, 24_000, 48_000),
        bits_per_s=48_000,
        options={"frame_duration": "10"},
        container_options={"page_duration": "10000"},
    ),
    # a reservoir of bits would hold the first frame back by another, and its header needs a seek
    "mp3": Codec(
        "libmp3lame",
        "mp3",
        rates_hz=_MPEG_RATES_HZ,
        bits_per_s=96_000,
        options={"reservoir": "0"},
        container_options={"write_xing": "0", "id3v2_version": "0"},
    ),
    # half the work of the default search, at a rate of bits that needs none
    "aac": Codec(
        "aac",
        "adts",
        rates_hz=_MPEG_RATES_HZ,
        bits_per_s=96_000,
        options={"aac_coder": "fast"},
    ),
}


def unavailable() -> str | None:
    """Returns why codecs can't be used here, as a sentence, or None."""
    try:
        import av  # noqa: F401
    except ImportError:
        return (
            "needs the package av, which this server doesn't have; "
            "install it with `pip install 'wavernn[codecs]'`, or ask for wav or pcm"
        )
    return None


class CodecWriter:
    """Codes 16-bit values as one stream, into memory, without ever going back in it.

    Values of another rate than the stream's are converted by libswresample, which keeps back
    1.5 ms of them.
    """

    def __init__(
        self, codec: Codec, rate_hz: int, out_rate_hz: int, total_samples: int | None
    ) -> None:
        self._container: OutputContainer | None = None
        import av

        self._rate_hz = rate_hz
        self._sink = _Sink()
        self._resampler: av.AudioResampler | None = None
        if out_rate_hz != rate_hz:
            self._resampler = av.AudioResampler(
                "s16", "mono", out_rate_hz, options={"filter_size": "64"}
            )
        self._container = av.open(
            self._sink,
            "w",
            format=codec.container,
            options={"flush_packets": "1", **codec.container_options},
        )
        stream = self._container.add_stream(
            codec.encoder, rate=out_rate_hz, options={"threads": "1", **codec.options}
        )
        assert isinstance(stream, av.AudioStream)
        self._stream: AudioStream | None = stream
        stream.codec_context.layout = "mono"
        if codec.bits_per_s is not None:
            stream.codec_context.bit_rate = codec.bits_per_s
        # writes the header, which waits in the sink for the first samples
        self._container.start_encoding()
        if codec.container == "flac" and total_samples is not None:
            self._sink.data[:] = _with_total(self._sink.data, total_samples)

    def write(self, values_T: np.ndarray) -> bytes:
        """Takes int16 values [T] and returns the bytes that are ready, which may be none."""
        import av

        if values_T.size:
            frame = av.AudioFrame.from_ndarray(values_T[None, :], "s16", "mono")
            frame.sample_rate = self._rate_hz
            self._code([frame] if self._resampler is None else self._resampler.resample(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        """Returns the rest of the stream and closes the codec."""
        assert self._container is not None and self._stream is not None
        if self._resampler is not None:
            self._code(self._resampler.resample(None))
        self._container.mux(self._stream.encode(None))
        self.close()
        return self._sink.take()

    def _code(self, frames: Iterable[av.AudioFrame]) -> None:
        assert self._container is not None and self._stream is not None
        for frame in frames:
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Frees the codec at once, whether or not the stream came to its end."""
        container, self._container = self._container, None
        self._stream = self._resampler = None
        if container is not None:
            container.close()

    def __del__(self) -> None:
        # a container and its streams hold each other, and would wait for the garbage collector
        self.close()


class _Sink:
    """A file that can only be written to, and is emptied as it grows."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self.data)
        self.data.clear()
        return data


def _with_total(header: bytearray, total_samples: int) -> bytes:
    """Puts the number of samples into a FLAC header: 36 bits from bit 172 (RFC 9639, 8.2)."""
    first = int.from_bytes(header[21:26], "big") | total_samples & (1 << 36) - 1
    return bytes(header[:21]) + first.to_bytes(5, "big") + bytes(header[26:])
