"""The application: routes, limits and the OpenAPI document around a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from wavernn import __version__
from wavernn.serve import docs, errors, health, listing, live, page, socket, speech, vocode
from wavernn.serve.response import HEADERS
from wavernn.serve.security import BodyLimit
from wavernn.serve.service import Service

ROUTERS = tuple(part.router for part in (speech, vocode, listing, health, socket, live, page, docs))


def create_app(service: Service) -> FastAPI:
    """Makes the application of a service, whose engines it closes when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = Application(
        title="wavernn",
        description="Streams speech, sample by sample, from mels, recordings and text.",
        version=__version__,
        lifespan=lifespan,
        # FastAPI's own load their scripts from another host
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    errors.install(app)
    app.add_exception_handler(405, _wrong_method)
    for router in ROUTERS:
        app.include_router(router)
    settings = service.settings
    app.add_middleware(
        BodyLimit,
        most_bytes=settings.body_bytes,
        most_s=settings.body_s,
        small={"/v1/audio/speech": settings.text_bytes},
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=HEADERS,
        )
    return app


async def _wrong_method(request: Request, error: Exception) -> Response:
    """Names all methods of a path; Starlette names those of the first of its routes."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    here = [route for route in routes if route.path_regex.match(request.url.path)]
    methods = sorted({method for route in here for method in route.methods or ()})
    headers = {"Allow": ", ".join(methods)} if methods else None
    return errors.as_api_error(HTTPException(405, headers=headers)).response()


class Application(FastAPI):
    """FastAPI with a document that says what is true here of errors and keys."""

    def openapi(self) -> dict[str, Any]:
        """Makes the OpenAPI document, once."""
        if self.openapi_schema is None:
            document = super().openapi()
            locked = self.state.service.doorkeeper.locked
            for methods in document["paths"].values():
                for operation in methods.values():
                    # it's answered with 400 and OpenAI's shape
                    operation["responses"].pop("422", None)
                    if locked and "401" in operation["responses"]:
                        operation["security"] = [{"key": []}]
            parts = document.setdefault("components", {})
            for name in ("HTTPValidationError", "ValidationError"):
                parts.get("schemas", {}).pop(name, None)
            if locked:
                parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        return super().openapi()
