import json
import logging
from collections.abc import Callable, Iterator
from typing import Literal

import pytest

pytest.importorskip("fastapi", reason="the service needs fastapi")

from fastapi import FastAPI, Header, HTTPException, Query
from pydantic import BaseModel, ConfigDict, field_validator
from starlette.testclient import TestClient

from wavernn import errors as core
from wavernn.serve import errors
from wavernn.serve.errors import ApiError
from wavernn.serve.formats import UnavailableFormat

SECRET = "sk-very-secret"


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")
    input: str
    response_format: Literal["wav", "pcm"] = "wav"
    speed: float = 1.0

    @field_validator("speed")
    @classmethod
    def only_one(cls, speed: float) -> float:
        if speed != 1:
            raise ValueError("only a speed of 1 can be made")
        return speed


def app() -> FastAPI:
    app = FastAPI()
    errors.install(app)

    @app.post("/speech")
    def speech(body: Body) -> str:
        return body.input

    @app.get("/query")
    def query(seed: int = Query(ge=0)) -> int:
        return seed

    @app.get("/header")
    def header(x_key: int = Header()) -> int:
        return x_key

    return app


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(app(), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def raised(client: TestClient) -> Callable[[Exception], tuple[int, dict, dict]]:
    """Status, error and headers of the answer to a route that raises."""

    def ask(error: Exception) -> tuple[int, dict, dict]:
        def fail() -> None:
            raise error

        # a path of its own, as the first route of a path wins
        path = f"/fail/{id(error)}"
        client.app.get(path)(fail)
        return told(client.get(path))

    return ask


def told(response) -> tuple[int, dict, dict]:
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert errors.ErrorBody.model_validate(body)
    return response.status_code, body["error"], response.headers


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.bad_request("no", "voice"), 400, "invalid_request_error", None),
        (errors.unauthorized(), 401, "invalid_request_error", "invalid_api_key"),
        (errors.not_found("no", code="model_not_found"), 404, None, "model_not_found"),
        (errors.too_large("no", "input"), 413, "invalid_request_error", "too_large"),
        (errors.unsupported_media("no"), 415, "invalid_request_error", "unsupported_media_type"),
        (errors.rate_limited("no", 2.2), 429, "rate_limit_error", "rate_limit_exceeded"),
        (errors.internal(), 500, "server_error", None),
        (errors.not_implemented("no", "input"), 501, "server_error", "not_implemented"),
        (errors.busy("no", 0.02), 503, "server_error", "overloaded"),
    ],
)
def test_a_built_error_is_sent_as_it_is(raised, error: ApiError, status, kind, code):
    got, body, headers = raised(error)
    assert (got, body["code"]) == (status, code)
    assert body["type"] == (kind or "invalid_request_error")
    assert body == error.error
    assert {name: headers[name] for name in error.headers} == error.headers


def test_a_sentence_may_hold_any_character(raised):
    message = "voice 'ü\ud800\n' isn't served"
    assert raised(errors.bad_request(message))[1]["message"] == message


def test_waiting_is_told_in_whole_seconds_and_never_none(raised):
    assert raised(errors.rate_limited("no", 2.2))[2]["retry-after"] == "3"
    assert raised(errors.busy("no", 0.02))[2]["retry-after"] == "1"
    assert "retry-after" not in raised(errors.bad_request("no"))[2]


def test_a_refused_key_gets_a_challenge_and_a_missing_feature_no_second_try(raised):
    assert raised(errors.unauthorized())[2]["www-authenticate"] == "Bearer"
    assert raised(errors.not_implemented("no"))[2]["x-should-retry"] == "false"


@pytest.mark.parametrize("kind", [core.MelError, core.AudioError, core.ConfigError])
def test_what_is_wrong_with_an_upload_is_told_in_its_own_sentence(raised, kind):
    status, body, _ = raised(kind("expected a mel of shape [frames, 80], got [3, 79]"))
    assert status == 400
    assert body["type"] == "invalid_request_error"
    assert body["message"] == "expected a mel of shape [frames, 80], got [3, 79]"


def test_a_format_that_is_missing_is_told_in_its_own_sentence(raised):
    assert raised(UnavailableFormat("mp3 needs av"))[:2] == (
        400,
        errors.bad_request("mp3 needs av").error,
    )


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/srv/voices/tmp8/mel.npy", "mel.npy"),
        ("C:\\Users\\me\\mel.npy", "mel.npy"),
        ("'/tmp/x.wav'", "'x.wav'"),
        ("mel.npy", "mel.npy"),
        ("m/s or 1/2 of audio/wav", "m/s or 1/2 of audio/wav"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_a_sentence_loses_this_machines_folders(raised, path: str, rest: str):
    assert raised(core.MelError(f"{path} holds no mel"))[1]["message"] == f"{rest} holds no mel"


@pytest.mark.parametrize(
    "kind", [core.CheckpointError, core.BackendUnavailable, core.DataError, core.TrainingError]
)
def test_errors_of_the_servers_own_files_stay_in_its_log(raised, caplog, kind):
    status, body, _ = raised(kind(f"/srv/voices/a.safetensors {SECRET}"))
    assert (status, body) == (500, errors.internal().error)
    assert SECRET in caplog.text


def test_a_full_engine_is_busy_and_tells_when_to_come_back(raised):
    error = core.EngineBusy("all 8 channels are taken")
    status, body, headers = raised(error)
    assert (status, headers["retry-after"]) == (503, "1")
    assert body["message"] == "all 8 channels are taken"
    later = core.EngineBusy("all 8 channels are taken")
    later.retry_after_s = 4.5
    assert raised(later)[2]["retry-after"] == "5"


def test_a_bug_is_logged_and_not_told(raised, caplog):
    with caplog.at_level(logging.ERROR, "wavernn.serve.errors"):
        status, body, _ = raised(RuntimeError(f"/srv/app.py {SECRET}"))
    assert (status, body) == (500, errors.internal().error)
    records = [record for record in caplog.records if record.name == "wavernn.serve.errors"]
    assert len(records) == 1
    assert records[0].exc_info and SECRET in str(records[0].exc_info[1])


@pytest.mark.parametrize("status", [400, 404, 405, 413, 418, 500, 503])
def test_a_frameworks_own_error_has_the_shape_and_none_of_its_words(raised, status: int):
    error = HTTPException(status, f"/srv/app.py {SECRET}", headers={"Allow": "POST"})
    got, body, headers = raised(error)
    assert (got, headers["allow"]) == (status, "POST")
    assert SECRET not in json.dumps(body)
    assert body["type"] == ("server_error" if status >= 500 else "invalid_request_error")


def test_unknown_paths_and_methods_have_the_shape(client: TestClient):
    assert told(client.get("/nothing"))[0] == 404
    status, _, headers = told(client.get("/speech"))
    assert (status, headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("body", "param", "sentence"),
    [
        ({}, "input", "input: Field required"),
        ({"input": 5}, "input", "input: Input should be a valid string; got 5"),
        (
            {"input": "a", "response_format": "ogg"},
            "response_format",
            "response_format: Input should be 'wav' or 'pcm'; got 'ogg'",
        ),
        ({"input": "a", "speed": 2}, "speed", "speed: only a speed of 1 can be made; got 2"),
        ({"input": "a", "x": [1]}, "x", "x: Extra inputs are not permitted"),
        ([], None, "the body: Input should be a valid dictionary or object to extract fields from"),
    ],
)
def test_a_field_that_does_not_fit_is_named(client: TestClient, body, param, sentence: str):
    status, error, _ = told(client.post("/speech", json=body))
    assert (status, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert error["message"] == sentence


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"\xff\xfe",
        b'{"input": "\\ud800", "\\udfff": 1}',
        b'{"input": "a", "\\udfff": 1}',
        b'{"input": "a", "response_format": "' + b"x" * 100_000 + b'"}',
        b'{"input": NaN}',
        b'{"input": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"' + b"k" * 100_000 + b'": 1, "input": "a"}',
    ],
)
def test_a_malformed_body_is_a_short_400(client: TestClient, content: bytes):
    response = client.post("/speech", content=content, headers={"Content-Type": "application/json"})
    assert told(response)[0] == 400
    assert len(response.content) < 400


def test_a_query_that_does_not_fit_is_named(client: TestClient):
    status, error, _ = told(client.get("/query", params={"seed": -1}))
    assert (status, error["param"]) == (400, "seed")
    assert error["message"] == "seed: Input should be greater than or equal to 0; got '-1'"


def test_a_header_is_never_repeated(client: TestClient):
    response = client.get("/header", headers={"x-key": SECRET})
    assert told(response)[0] == 400
    assert SECRET not in response.text


def test_errors_are_documented_by_status():
    service = FastAPI()
    service.get("/x", responses=errors.documented(400, 503))(lambda: None)
    answers = service.openapi()["paths"]["/x"]["get"]["responses"]
    assert answers.keys() == {"200", "400", "503"}
    schema = answers["503"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/ErrorBody"}
