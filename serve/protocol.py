"""The words of a speech socket: what a client may send, and the events it gets.

A client sends JSON, and binary messages of mel frames (float32, little-endian, row by row) or of
microphone audio:

    session.config    voice, seed, temperature, speed (of text), format, input (of binary messages:
                      mel or audio; text: none), input_format (s16le or f32le, of audio), numbered;
                      what isn't named stays as it was. An utterance keeps the configuration that it
                      began with.
    input.text        text: more of an utterance's text, in pieces of any size, as it is written.
                      What is spoken is each sentence as soon as a space after it has come. An
                      utterance is of text or of binary messages.
    input.flush       ends the utterance: all of it is spoken, and what follows begins another
    input.done        does the same, and asks for session.done after the last sample
    response.cancel   drops the utterance that sounds and all that was sent before this
    session.close     drops everything and closes the socket

It gets JSON, and binary messages of audio of the utterance that began last:

    session.created   the configuration, voices with their rate, hop and bands, limits
    session.updated   the configuration
    audio.start       utterance_index, format, sample_rate, voice, seed; for audio also its delay
    audio.done        utterance_index, samples, bytes, chunks, reason (done, cancelled, error),
                      time_to_first_audio_s; for audio also deadlines
    session.done      utterances
    response.cancelled  utterance_index or null; no audio of it comes after this
    error             error: message, type, param, code; what it answers was dropped (of text, the
                      sentence that can't be spoken), the session goes on, unless the socket is
                      closed: 4408 after idle_s without input and output, 1012 when the service
                      ends, which finishes what it was sent

With `numbered`, each binary message of audio begins with two uint32, little-endian: its
utterance's index and its own in the utterance.
"""

from __future__ import annotations

import json
import struct
from typing import Annotated, Any, Literal

import numpy as np
from fastapi.exceptions import RequestValidationError
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from wavernn.serve import formats
from wavernn.serve.errors import ApiError, bad_request, not_implemented, too_large
from wavernn.serve.requests import Seed, Speed, Temperature
from wavernn.vocoder import check_mel

# of one message
MOST_BYTES = 1 << 20
MOST_TEXT = 1 << 16
# of input that waits for the engine, beyond which no more is read from the socket
AHEAD_BYTES = 4 << 20
# a subprotocol that brings a key, since pages can't set headers; OpenAI's realtime API takes it too
KEY_PROTOCOL = "openai-insecure-api-key."
# a session without input or progress, as HTTP's 408
IDLE_CODE = 4408
# the server ends (RFC 6455's registry: service restart)
RESTART_CODE = 1012

CHUNK_HEADER = struct.Struct("<II")


class SessionConfig(BaseModel):
    """What `session.config` sets."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    voice: str | None = None
    seed: Seed = None
    temperature: Temperature = 1.0
    speed: Speed = 1.0
    format: Annotated[str, Field(validation_alias=AliasChoices("format", "response_format"))] = (
        "pcm"
    )
    input: Literal["mel", "audio", "text"] = "mel"
    input_format: Literal["s16le", "f32le"] = "s16le"
    numbered: bool = False

    def updated(self, fields: dict[str, Any]) -> SessionConfig:
        """Lays a message's fields over it; raises ApiError for one that is unknown or illegal."""
        renamed = {"format" if k == "response_format" else k: v for k, v in fields.items()}
        try:
            config = SessionConfig.model_validate(self.model_dump() | renamed)
        except ValidationError as error:
            places = [e | {"loc": ("body", *e["loc"])} for e in error.errors()]
            raise RequestValidationError(places) from None
        if reason := formats.unavailable(config.format):
            raise bad_request(reason, "format")
        return config


def no_text() -> ApiError:
    """The answer to text where nothing can read it."""
    return not_implemented(
        "this server can't make speech from text; send mel frames, or audio to be said again",
        "input",
    )


def text_of(fields: dict[str, Any]) -> str:
    """Reads the only field of `input.text`; raises ApiError."""
    if set(fields) != {"text"} or not isinstance(text := fields["text"], str):
        raise bad_request("input.text has one field, text, which is a string", "text")
    return text


def message(text: str) -> tuple[str, dict[str, Any]]:
    """Reads a JSON message: its type and its other fields. Raises ApiError."""
    if len(text) > MOST_TEXT:
        raise too_large(f"a JSON message has at most {MOST_TEXT} characters, got {len(text)}")
    try:
        fields = json.loads(text)
    # nesting without end
    except (ValueError, RecursionError):
        raise bad_request("a text message must be JSON", code="invalid_json") from None
    if not isinstance(fields, dict) or not isinstance(kind := fields.pop("type", None), str):
        raise bad_request("a message is a JSON object with a type, such as session.config", "type")
    return kind, fields


def mel_frames(data: bytes, bands: int) -> np.ndarray:
    """Reads float32 mel frames [n, M], at least one; raises ApiError or MelError."""
    _check_size(data, 4 * bands, f"a whole number of mel frames of {bands} float32 values")
    return check_mel(np.frombuffer(data, "<f4").reshape(-1, bands), bands)


def audio_samples(data: bytes, kind: str) -> np.ndarray:
    """Reads s16le or f32le samples [T], at least one, as float32; raises ApiError."""
    if kind == "s16le":
        _check_size(data, 2, "16-bit samples")
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768
    _check_size(data, 4, "float32 samples")
    return np.frombuffer(data, "<f4").astype(np.float32)


def _check_size(data: bytes, unit: int, what: str) -> None:
    if len(data) > MOST_BYTES:
        raise too_large(f"a message has at most {MOST_BYTES} bytes, got {len(data)}; send several")
    if not data or len(data) % unit:
        raise bad_request(
            f"a binary message holds {what}, {unit} bytes each; got {len(data)} bytes", "input"
        )
