"""The body of a request as a mel: what kind of file it is, and whether it fits the voice."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping

import numpy as np
from starlette.requests import ClientDisconnect, Request

from wavernn.audio import read_audio
from wavernn.checkpoint import Checkpoint
from wavernn.errors import AudioError, MelError
from wavernn.melfile import parse_mel
from wavernn.serve.errors import ApiError, bad_request, too_large, unsupported_media
from wavernn.serve.service import Body
from wavernn.synthesis import fitted_mel, recording_mel

AUDIO, RAW = "audio", "raw"
# content types of mels; any audio/* is a recording
MEL_TYPES = {
    "application/x-npy": ".npy",
    "application/x-npz": ".npz",
    "application/zip": ".npz",
    "application/x-safetensors": ".safetensors",
}
RAW_TYPE = "application/octet-stream"
# what clients call a file that they know nothing of; curl's default is the last
_ANY = {"", RAW_TYPE, "application/x-www-form-urlencoded"}
# how files begin that libsndfile reads; in an MP3 without tags eleven bits are set
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b"ID3", b".snd", b"caff")

SHAPE_HEADER = "x-mel-shape"
_SHAPE = re.compile(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*")
# of a refusal's sentence, which may repeat what a file says
_LONGEST_SENTENCE = 600


async def read_body(request: Request, body: Body) -> bytes:
    """Reads a body whose size is limited elsewhere; raises ApiError."""
    parts = []
    try:
        async for part in request.stream():
            body.add(len(part))
            parts.append(part)
    except ClientDisconnect:
        # an answer that nobody gets, and no fault of ours
        raise bad_request("the body ended early", "body") from None
    return b"".join(parts)


def kind_of(headers: Mapping[str, str], start: bytes) -> str:
    """Says what a body is, by its content type or else by how it starts.

    One of AUDIO, RAW and the suffixes of mel files. Raises ApiError 415.
    """
    name = headers.get("content-type", "").partition(";")[0].strip().lower()
    if name.startswith("audio/"):
        return AUDIO
    if name in MEL_TYPES:
        return MEL_TYPES[name]
    if name == RAW_TYPE and SHAPE_HEADER in headers:
        return RAW
    if name in _ANY and (kind := _sniffed(start)):
        return kind
    known = ", ".join(("audio/*", *MEL_TYPES))
    raise unsupported_media(
        f"the body is of no known type: send a content type of {known}, or {RAW_TYPE} with the "
        f"header {SHAPE_HEADER}: frames,bands for float32 values"
    )


def _sniffed(start: bytes) -> str | None:
    if start.startswith(b"\x93NUMPY"):
        return ".npy"
    if start.startswith(b"PK\x03\x04"):
        return ".npz"
    if start.startswith(_MAGIC) or (start[:1] == b"\xff" and start[1:2] >= b"\xe0"):
        return AUDIO
    # the size of a JSON header, and its first character
    return ".safetensors" if start[8:9] == b"{" and start[5:8] == bytes(3) else None


def to_mel(
    body: bytes,
    headers: Mapping[str, str],
    voice: Checkpoint,
    longest_s: float,
    most_bytes: int,
) -> np.ndarray:
    """Makes the mel [N, M] that a voice takes from a body; takes its time, so call it in a thread.

    Raises ApiError: 400 for what can't be read or doesn't fit, 413 for what is too long, 415 for
    what isn't known.
    """
    kind, config = kind_of(headers, body[:16]), voice.config.mel
    longest = int(longest_s * config.rate_hz / config.hop_samples)
    try:
        if kind == AUDIO:
            # some more, so that it's told from one that is just as long
            audio_T = read_audio(io.BytesIO(body), config.rate_hz, longest_s + 1)
            _check_length(-(-len(audio_T) // config.hop_samples), longest, longest_s)
            return recording_mel(audio_T, voice)
        declared: Mapping[str, object]
        if kind == RAW:
            array, declared = _raw(body, headers[SHAPE_HEADER]), {}
        else:
            array, declared = parse_mel(body, kind, "the body", most_bytes)
        # before its values are looked at; the number of bands may be wrong, too
        _check_length(array.size // config.bands, longest, longest_s)
        declared = {**declared, **declared_in(headers)}
        return fitted_mel(array, declared, voice, "the body")
    except (AudioError, MelError) as error:
        raise bad_request(str(error)[:_LONGEST_SENTENCE], "body") from None


def _check_length(frames: int, longest: int, longest_s: float) -> None:
    if frames > longest:
        raise too_large(
            f"the body asks for {frames} mel frames, more than {longest} ({longest_s:g} s); "
            "send it in parts",
            "body",
        )


def _raw(body: bytes, shape: str) -> np.ndarray:
    match = _SHAPE.fullmatch(shape)
    if match is None:
        raise _bad_shape(f"the header {SHAPE_HEADER} must be frames,bands, as 500,80")
    frames, bands = map(int, match.groups())
    if len(body) != 4 * frames * bands:
        raise _bad_shape(
            f"the body has {len(body)} bytes, but {frames} x {bands} float32 values take "
            f"{4 * frames * bands}"
        )
    return np.frombuffer(body, "<f4").reshape(frames, bands)


def _bad_shape(message: str) -> ApiError:
    return bad_request(message, SHAPE_HEADER)


def declared_in(headers: Mapping[str, str]) -> dict[str, object]:
    """Collects a mel's specification from headers: x-mel-hop-samples: 256 is hop_samples = 256."""
    found: dict[str, object] = {}
    for name, value in headers.items():
        if name.startswith("x-mel-") and name != SHAPE_HEADER:
            field = name.removeprefix("x-mel-").replace("-", "_")
            try:
                found[field] = json.loads(value)
            except ValueError:
                # such as slaney, which is no JSON without quotes
                found[field] = value
    return found
