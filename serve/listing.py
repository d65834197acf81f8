"""What is served: models and voices."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from wavernn.engine import Engine
from wavernn.serve import aliases
from wavernn.serve.errors import documented, not_found
from wavernn.serve.requests import ServiceDep, client_of
from wavernn.serve.service import Service

router = APIRouter(
    tags=["listing"], dependencies=[Depends(client_of)], responses=documented(401, 429)
)

MODEL = "wavernn"
_STARTED = int(time.time())


class Model(BaseModel):
    """A model in OpenAI's terms."""

    id: str
    object: str = "model"
    created: int = _STARTED
    owned_by: str = MODEL


class Models(BaseModel):
    """All models."""

    object: str = "list"
    data: list[Model]


class Voice(BaseModel):
    """A voice, and the mel that it takes."""

    id: str
    name: str
    sample_rate: int = Field(description="In Hz.")
    default: bool
    delay_ms: float = Field(
        description="How far audio is behind the mel: look-ahead, and a subscale voice's lanes."
    )
    mel: dict[str, Any] = Field(description="How a mel for /v1/vocode must be computed.")


class Voices(BaseModel):
    """All voices."""

    voices: list[Voice]


class SpeechModel(BaseModel):
    """A model in Open WebUI's terms."""

    id: str
    name: str


class SpeechModels(BaseModel):
    """All models."""

    models: list[SpeechModel]


def models_of(service: Service) -> tuple[str, ...]:
    """The models by their own names."""
    return (MODEL, *service.engines)


def is_model(name: str, service: Service) -> bool:
    """True for a name that a request may give as its model, be it OpenAI's."""
    return name in models_of(service) or name in aliases.MODELS


def _delay_ms(engine: Engine) -> float:
    ahead = engine.voice.config.model.lookahead_frames * engine.hop_samples
    return 1000 * (ahead + engine.delay_samples) / engine.rate_hz


@router.get("/v1/models")
async def models(service: ServiceDep) -> Models:
    """List what may be given as a request's model."""
    return Models(data=[Model(id=name) for name in models_of(service)])


@router.get("/v1/models/{model}", responses=documented(404))
async def model(model: str, service: ServiceDep) -> Model:
    """Look a model up."""
    if not is_model(model, service):
        raise not_found(f"no model is called {model[:64]!r}", "model", "model_not_found")
    return Model(id=model)


@router.get("/v1/audio/models")
async def speech_models(service: ServiceDep) -> SpeechModels:
    """List the same in the shape that Open WebUI asks for."""
    return SpeechModels(models=[SpeechModel(id=name, name=name) for name in models_of(service)])


@router.get("/v1/audio/voices")
async def voices(service: ServiceDep) -> Voices:
    """List the voices, the default one first."""
    found = [
        Voice(
            id=name,
            name=name,
            sample_rate=engine.rate_hz,
            default=number == 0,
            delay_ms=_delay_ms(engine),
            mel=asdict(engine.voice.config.mel),
        )
        for number, (name, engine) in enumerate(service.engines.items())
    ]
    return Voices(voices=found)
