"""`/v1/audio/speech`: text to speech in OpenAI's terms."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from wavernn.serve.errors import bad_request, documented, not_implemented, too_large
from wavernn.serve.formats import Encoder
from wavernn.serve.listener import Listener
from wavernn.serve.listing import is_model, models_of
from wavernn.serve.requests import (
    ClientDep,
    FormatName,
    SampleRate,
    Seed,
    ServiceDep,
    Speed,
    StreamFormat,
    Temperature,
    drawn,
    encoder_of,
)
from wavernn.serve.response import AudioResponse, Order
from wavernn.serve.security import Client
from wavernn.serve.service import Service
from wavernn.serve.vocode import STREAM

router = APIRouter(tags=["speech"])

# OpenAI's clients take pcm for this, whatever the voice's own rate is
PCM_RATE_HZ = 24_000
NO_TEXT = (
    "this server can't make speech from text yet; send a mel or a recording to /v1/vocode instead"
)
_RESPONSES = STREAM | documented(400, 401, 408, 413, 429, 501, 503)


class VoiceId(BaseModel):
    """A voice as an object."""

    model_config = ConfigDict(strict=True)

    id: str


class Spoken(BaseModel):
    """What both forms of the request hold."""

    model: str = Field(description="A name of /v1/models, or OpenAI's.", examples=["wavernn"])
    input: str = Field(min_length=1, description="The text.", examples=["Good morning."])
    response_format: FormatName = "mp3"
    speed: Speed = 1.0
    instructions: str | None = Field(None, description="Accepted and not heeded.")
    stream_format: StreamFormat = "audio"
    seed: Seed = None
    temperature: Temperature = 1.0
    sample_rate: SampleRate = None


class SpeechRequest(Spoken):
    """OpenAI's request, with seed, temperature and sample_rate besides."""

    # no true for 1, nor "1"
    model_config = ConfigDict(strict=True)

    voice: str | VoiceId = Field(
        description="A name of /v1/audio/voices; OpenAI's are the default one.",
        examples=["default", {"id": "default"}],
    )


class SpeechQuery(Spoken):
    """The same as a query, for a plain audio element."""

    model: str = "wavernn"
    voice: str = "default"


@router.post("/v1/audio/speech", response_class=Response, responses=_RESPONSES)
async def speech(service: ServiceDep, client: ClientDep, request: SpeechRequest) -> Response:
    """Speak a text."""
    voice = request.voice if isinstance(request.voice, str) else request.voice.id
    return _speak(service, client, request, voice)


@router.get("/v1/audio/speech", response_class=Response, responses=_RESPONSES)
async def speech_by_query(
    service: ServiceDep, client: ClientDep, request: Annotated[SpeechQuery, Query()]
) -> Response:
    """Speak a text that is given in the query, as the source of an audio element."""
    return _speak(service, client, request, request.voice)


def _speak(service: Service, client: Client, request: Spoken, voice: str) -> Response:
    name, engine = service.engine(voice)
    most = service.settings.text_characters
    if len(request.input) > most:
        raise too_large(f"the text has {len(request.input)} characters, more than {most}", "input")
    if not is_model(request.model, service):
        known = ", ".join(models_of(service))
        raise bad_request(
            f"unknown model {request.model[:64]!r}; known: {known}", "model", "model_not_found"
        )
    rate_hz = request.sample_rate
    if rate_hz is None and request.response_format == "pcm":
        rate_hz = PCM_RATE_HZ
    encoder = encoder_of(engine, request.response_format, rate_hz, None, "response_format")
    if service.text is None:
        encoder.close()
        raise not_implemented(NO_TEXT)
    service.check_room(client, name)
    text = service.text

    async def prepare(listener: Listener) -> Encoder:
        listener.feed_from(text.frames(request.input, name, request.speed), service.writers)
        return encoder

    order = Order(
        client=client,
        voice=name,
        seed=drawn(request.seed),
        temperature=request.temperature,
        format=request.response_format,
        prepare=prepare,
        close=encoder.close,
        events=request.stream_format == "sse",
        tokens=len(request.input),
    )
    return AudioResponse(service, order)
