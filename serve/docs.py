"""The page at `/docs`: the OpenAPI document and the words of the sockets, in plain HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from wavernn.serve import protocol
from wavernn.serve.page import STATIC, answer

router = APIRouter(include_in_schema=False)

Json = Mapping[str, Any]


@router.api_route("/docs", methods=["GET", "HEAD"])
def docs(request: Request) -> Response:
    """All routes with what they take, made from `/openapi.json`."""
    document = request.app.openapi()
    routes = "".join(
        _operation(method, path, operation, document)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    text = (STATIC / "docs.html").read_text(encoding="utf-8")
    words = escape(protocol.__doc__ or "")
    content = text.replace("$routes", routes).replace("$protocol", words)
    return answer(request, content.encode(), ".html")


def _operation(method: str, path: str, operation: Json, document: Json) -> str:
    rows = [
        _row(p["name"], p["schema"], p.get("required", False), p["in"], document, p)
        for p in operation.get("parameters", [])
    ]
    body = operation.get("requestBody", {})
    for schema in (content.get("schema", {}) for content in body.get("content", {}).values()):
        rows += _fields(_resolved(schema, document), document)
    answers = ", ".join(
        f"{status} {escape(found['description'].rstrip('.'))}"
        for status, found in operation["responses"].items()
    )
    parts = [
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>",
        f"<p>{escape(operation.get('description', ''))}</p>",
        f"<p>{escape(body.get('description', ''))}</p>" if "description" in body else "",
        f"<table>{''.join(rows)}</table>" if rows else "",
    ]
    if body:
        parts.append(f'<p class="hint">Body: {escape(", ".join(body["content"]))}</p>')
    return "".join([*parts, f'<p class="hint">Answers: {answers}</p></section>\n'])


def _fields(schema: Json, document: Json) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield _row(name, field, name in schema.get("required", ()), "body", document, field)


def _row(name: str, schema: Json, required: bool, place: str, document: Json, about: Json) -> str:
    kind = escape(_kind(schema, document))
    if "default" in schema:
        kind += f", else {escape(str(schema['default']))}"
    said = escape(about.get("description", ""))
    where = escape(f"{place}, needed" if required else place)
    return (
        f'<tr><th scope="row"><code>{escape(name)}</code></th>'
        f"<td>{where}</td><td>{kind}</td><td>{said}</td></tr>"
    )


def _kind(schema: Json, document: Json) -> str:
    """What a value may be, in words."""
    schema = _resolved(schema, document)
    if "anyOf" in schema:
        kinds = [_kind(one, document) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(kinds)
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("properties"):
        inner = (f"{name}: {_kind(one, document)}" for name, one in schema["properties"].items())
        return f"{{{', '.join(inner)}}}"
    kind = str(schema.get("type", "any"))
    if "minimum" in schema and "maximum" in schema:
        kind += f" of {schema['minimum']:g} to {schema['maximum']:g}"
    return kind


def _resolved(schema: Json, document: Json) -> Json:
    if "$ref" not in schema:
        return schema
    found: Json = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found
