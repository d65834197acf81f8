"""What requests have in common: who asks, and what may be asked of any stream."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

from fastapi import Depends, Request
from pydantic import Field

from wavernn.engine import Engine
from wavernn.serve.errors import bad_request
from wavernn.serve.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, Encoder, UnavailableFormat
from wavernn.serve.security import Client
from wavernn.serve.service import Service

FormatName = Literal["wav", "pcm", "flac", "opus", "mp3", "aac"]
StreamFormat = Literal["audio", "sse"]
Seed = Annotated[
    int | None,
    Field(
        ge=0,
        le=2**64 - 1,
        description="The same seed gives the same samples; one is drawn if none is given.",
    ),
]
Temperature = Annotated[
    float,
    Field(ge=0.01, le=10, allow_inf_nan=False, description="Below 1 is duller, above 1 rougher."),
]
Speed = Annotated[
    float,
    Field(ge=0.25, le=4, allow_inf_nan=False, description="Of text: 2 is twice as fast."),
]
SampleRate = Annotated[
    int | None,
    Field(ge=LOWEST_RATE_HZ, le=HIGHEST_RATE_HZ, description="In Hz; else the voice's own."),
]


def service_of(request: Request) -> Service:
    """The service of the application."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(service_of)]


def client_of(request: Request, service: ServiceDep) -> Client:
    """Who asks; raises ApiError 401 or 429."""
    host = request.client.host if request.client else ""
    return service.authorise(request.headers.get("authorization"), host)


ClientDep = Annotated[Client, Depends(client_of)]


def drawn(seed: int | None) -> int:
    """A seed, if none is given a random one that a JavaScript client can read exactly."""
    return secrets.randbits(32) if seed is None else seed


def encoder_of(
    engine: Engine, format: str, rate_hz: int | None, samples: int | None, param: str
) -> Encoder:
    """Starts an encoder for a voice; raises ApiError 400 for what can't be made."""
    try:
        return Encoder(format, engine.rate_hz, rate_hz, samples)
    except UnavailableFormat as error:
        raise bad_request(str(error), param) from None
