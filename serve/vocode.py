"""`POST /v1/vocode`: a mel, or a recording for copy synthesis, to speech."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from wavernn.serve import sse, upload
from wavernn.serve.errors import documented
from wavernn.serve.formats import FORMATS, Encoder
from wavernn.serve.listener import Listener
from wavernn.serve.requests import (
    ClientDep,
    FormatName,
    SampleRate,
    Seed,
    ServiceDep,
    StreamFormat,
    Temperature,
    drawn,
    encoder_of,
)
from wavernn.serve.response import HEADERS, AudioResponse, Order

router = APIRouter(tags=["speech"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
# what a route that streams says of its answer
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The speech, as it is made.",
        "content": {**dict.fromkeys((f.mime for f in FORMATS.values()), _BINARY), sse.MIME: {}},
        "headers": {name: {"schema": {"type": "string"}} for name in HEADERS},
    }
}
_BODY = {
    "required": True,
    "description": (
        "A recording, or mel frames [frames, bands]. Raw ones are little-endian float32 and need "
        "the header x-mel-shape: frames,bands. Headers such as x-mel-hop-samples: 256 declare "
        "the mel's specification, which is refused where it isn't the voice's."
    ),
    "content": dict.fromkeys(("audio/*", *upload.MEL_TYPES, upload.RAW_TYPE), _BINARY),
}


@router.post(
    "/v1/vocode",
    response_class=Response,
    responses=STREAM | documented(400, 401, 408, 413, 415, 429, 503),
    openapi_extra={"requestBody": _BODY},
)
async def vocode(
    request: Request,
    service: ServiceDep,
    client: ClientDep,
    voice: Annotated[str | None, Query(description="A name of /v1/audio/voices.")] = None,
    seed: Annotated[Seed, Query()] = None,
    temperature: Annotated[Temperature, Query()] = 1.0,
    format: Annotated[FormatName | None, Query(description="wav, if none is given.")] = None,
    response_format: Annotated[FormatName | None, Query(description="The same.")] = None,
    sample_rate: Annotated[SampleRate, Query()] = None,
    stream_format: Annotated[StreamFormat, Query()] = "audio",
) -> Response:
    """Speak a mel, or a recording's own mel. Its length is known, and so are sizes in headers."""
    name, engine = service.engine(voice)
    service.check_room(client, name)
    kind, param = (
        response_format or format or "wav",
        "response_format" if response_format else "format",
    )
    # what can't be made is refused before the body is read
    encoder_of(engine, kind, sample_rate, None, param).close()
    held = service.body()
    try:
        bodies = [await upload.read_body(request, held)]
    except BaseException:
        held.close()
        raise

    async def prepare(listener: Listener) -> Encoder:
        settings = service.settings
        mel_NM = await asyncio.get_running_loop().run_in_executor(
            service.analysts,
            upload.to_mel,
            # which isn't held while it's spoken
            bodies.pop(),
            request.headers,
            engine.voice,
            settings.mel_s,
            settings.body_bytes,
        )
        held.close()
        listener.feed(mel_NM)
        return encoder_of(engine, kind, sample_rate, len(mel_NM) * engine.hop_samples, param)

    order = Order(
        client=client,
        voice=name,
        seed=drawn(seed),
        temperature=temperature,
        format=kind,
        prepare=prepare,
        close=held.close,
        events=stream_format == "sse",
    )
    return AudioResponse(service, order)
