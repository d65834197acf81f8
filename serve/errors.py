"""Errors as OpenAI's clients expect them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from wavernn.errors import (
    BackendUnavailable,
    CheckpointError,
    DataError,
    EngineBusy,
    TrainingError,
    WaveRNNError,
)

log = logging.getLogger(__name__)

# causes that lie with this server; their sentences name its files
_OURS = (BackendUnavailable, CheckpointError, DataError, TrainingError)

# what frameworks raise by themselves; their own words aren't passed on
_SENTENCES = {
    400: "the request can't be read; check its headers and body",
    401: "an API key is needed: send the header Authorization: Bearer KEY",
    404: "no such path; /docs lists those there are",
    405: "this path doesn't know the method; the header Allow lists those it knows",
    413: "the body is too large",
    415: "the body's content type isn't known here",
    429: "too many requests; try again later",
    503: "the server is busy; try again later",
}

# the most characters of a request that are repeated in an answer
_ECHO = 64

# the folders of an absolute path, in POSIX's or Windows's way
_FOLDERS = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:;,'\"()]+[/\\])+")


class ErrorDetail(BaseModel):
    """What went wrong, and with which field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that isn't a success."""

    error: ErrorDetail


class ApiError(Exception):
    """A refused request: what is sent, before the first byte of a success."""

    def __init__(
        self,
        status: int,
        message: str,
        type: str,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": type, "param": param, "code": code}
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            # the header takes whole seconds, and none would be an invitation to hurry
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))

    def response(self) -> Response:
        """The answer, JSON in ASCII since half a surrogate pair can't be sent as it is."""
        body = json.dumps({"error": self.error}).encode("ascii")
        return Response(body, self.status, self.headers, "application/json")


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: a field that is missing, unknown or has an illegal value."""
    return ApiError(400, message, "invalid_request_error", param, code)


def unauthorized() -> ApiError:
    """401: no API key or a wrong one; the same words for both."""
    message = "the API key is missing or wrong; send the header Authorization: Bearer KEY"
    challenge = {"WWW-Authenticate": "Bearer"}
    return ApiError(
        401, message, "invalid_request_error", code="invalid_api_key", headers=challenge
    )


def not_found(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """404: such as a model that isn't served."""
    return ApiError(404, message, "invalid_request_error", param, code)


def too_large(message: str, param: str | None = None) -> ApiError:
    """413: a body, text, mel or recording beyond its limit."""
    return ApiError(413, message, "invalid_request_error", param, "too_large")


def unsupported_media(message: str) -> ApiError:
    """415: a content type that isn't known."""
    return ApiError(415, message, "invalid_request_error", code="unsupported_media_type")


def rate_limited(message: str, retry_after_s: float) -> ApiError:
    """429: this client has had its share."""
    return ApiError(429, message, "rate_limit_error", None, "rate_limit_exceeded", retry_after_s)


def not_implemented(message: str, param: str | None = None) -> ApiError:
    """501: what this server doesn't have; OpenAI's clients are told not to try again."""
    return ApiError(
        501,
        message,
        "server_error",
        param,
        "not_implemented",
        headers={"x-should-retry": "false"},
    )


def busy(message: str, retry_after_s: float) -> ApiError:
    """503: all channels are taken, or the server is about to stop."""
    return ApiError(503, message, "server_error", None, "overloaded", retry_after_s)


def internal() -> ApiError:
    """500: a bug or a broken installation; what it was is in the log only."""
    return ApiError(500, "the server failed on this request; its log says why", "server_error")


def as_api_error(error: Exception) -> ApiError:
    """Returns the answer to any exception, also for a stream that has begun.

    A `WaveRNNError` keeps its sentence, with files in place of paths, unless its cause lies with
    the server; anything unforeseen becomes `internal()`.
    """
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _invalid(error.errors())
        case HTTPException():
            return _http(error)
        case EngineBusy():
            return busy(_sentence(error), getattr(error, "retry_after_s", 1.0))
        case WaveRNNError() if not isinstance(error, _OURS):
            return bad_request(_sentence(error))
    return internal()


def install(app: FastAPI) -> None:
    """Makes `app` answer every error in this shape.

    WebSocket routes see to their own: these handlers answer HTTP only.
    """
    kinds = (ApiError, WaveRNNError, RequestValidationError, HTTPException, Exception)
    for kind in kinds:
        app.add_exception_handler(kind, _answer)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns `responses` for a route, so that the OpenAPI document tells of its errors."""
    return {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase}
        for status in statuses
    }


async def _answer(request: Request, error: Exception) -> Response:
    answer = as_api_error(error)
    if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %r failed", request.method, request.url.path, exc_info=error)
    return answer.response()


def _http(error: HTTPException) -> ApiError:
    status = error.status_code
    kind = "server_error" if status >= 500 else "invalid_request_error"
    message = _SENTENCES.get(status, "the request failed")
    return ApiError(status, message, kind, headers=error.headers)


def _invalid(errors: Sequence[Any]) -> ApiError:
    """Tells of the first field that doesn't fit."""
    first = errors[0]
    place, *names = first["loc"] or ("body",)
    if first["type"] == "json_invalid":
        return bad_request(f"the body isn't JSON: {first['ctx']['error']}", code="invalid_json")
    param = ".".join(map(str, names))[:_ECHO] or None
    # pydantic begins some with its own word for an exception
    message = str(first["msg"]).removeprefix("Value error, ")
    came = first.get("input")
    # a header may be a secret, and what is missing has its parent as input
    if place in ("body", "query", "path") and isinstance(came, str | int | float):
        message += f"; got {repr(came)[:_ECHO]}"
    return bad_request(f"{param or f'the {place}'}: {message}", param)


def _sentence(error: WaveRNNError) -> str:
    """An error's words without this machine's folders."""
    return _FOLDERS.sub("", str(error))
