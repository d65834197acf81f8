"""Whether the service lives, whether it takes streams, and its numbers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import Response

from wavernn.serve.errors import busy, documented
from wavernn.serve.requests import ServiceDep, client_of
from wavernn.serve.service import FAILED, READY, RETRY_S

router = APIRouter(tags=["health"])

_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}


class Health(BaseModel):
    """How the service is: loading, ready, draining or failed."""

    status: str


@router.get("/health")
async def health(service: ServiceDep) -> Health:
    """Say how the service is; always 200."""
    return Health(status=service.state)


@router.get("/health/live", responses=documented(503))
async def live(service: ServiceDep) -> Health:
    """Answer 503 where only a new start of the process helps."""
    if service.state == FAILED:
        raise busy("an engine has failed; start the service again", RETRY_S)
    return Health(status=service.state)


@router.get("/health/ready", responses=documented(503))
async def ready(service: ServiceDep) -> Health:
    """Answer 503 while no stream would be taken: loading, draining, failed."""
    if service.state != READY:
        raise busy(f"the service is {service.state}", RETRY_S)
    return Health(status=service.state)


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[Depends(client_of)],
    responses=documented(401, 429) | _TEXT,
)
async def metrics(service: ServiceDep) -> Response:
    """Give the numbers in Prometheus' text format."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
