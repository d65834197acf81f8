"""The page at `/`, where a voice can be tried: the files of `static/`, and a mel to begin with."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from string import Template

from fastapi import APIRouter, Request
from starlette.responses import Response

from wavernn import voices
from wavernn.serve.errors import not_found

router = APIRouter(include_in_schema=False)

STATIC = Path(__file__).resolve().parent / "static"
# in the source tree only
EXAMPLE = voices.FOLDER / "samples" / "demo.npz"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".npz": "application/x-npz",
}
# nothing from outside, nothing inline, and no page of others around this one
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "Content-Security-Policy": "; ".join(f"{part} {source}" for part, source in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # asked for each time by its tag, so that files of two versions are never mixed
    "Cache-Control": "no-cache",
}


@router.api_route("/", methods=["GET", "HEAD"])
def page(request: Request) -> Response:
    """The page itself, without the example's button where there's no example."""
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    text = Template(text).substitute(example="" if EXAMPLE.is_file() else "hidden")
    return answer(request, text.encode(), ".html")


@router.api_route("/static/{name}", methods=["GET", "HEAD"])
def static(request: Request, name: str) -> Response:
    """A file of the page; 404 for any other name."""
    # the page is a template, and only names that were listed are opened
    paths = {path.name: path for path in STATIC.iterdir() if path.suffix != ".html"}
    return _file(request, paths.get(name))


@router.api_route("/example.npz", methods=["GET", "HEAD"])
def example(request: Request) -> Response:
    """A mel with its specification; 404 where none came with this installation."""
    return _file(request, EXAMPLE if EXAMPLE.is_file() else None)


def _file(request: Request, path: Path | None) -> Response:
    if path is None or path.suffix not in _TYPES:
        raise not_found("no such file; the page is at /")
    return answer(request, path.read_bytes(), path.suffix)


def answer(request: Request, content: bytes, suffix: str) -> Response:
    """Sends a file's content, unless the browser has it, with the headers that guard a page."""
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag}
    # a proxy that compresses makes the tag a weak one
    known = request.headers.get("If-None-Match", "").replace("W/", "").split(",")
    if tag in (one.strip() for one in known):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_TYPES[suffix])
