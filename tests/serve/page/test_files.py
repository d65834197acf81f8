"""The files of the page, and the headers that guard it."""

import re

FILES = {
    "/": "text/html; charset=utf-8",
    "/docs": "text/html; charset=utf-8",
    "/static/app.js": "text/javascript; charset=utf-8",
    "/static/style.css": "text/css; charset=utf-8",
    "/static/icon.svg": "image/svg+xml",
    "/example.npz": "application/x-npz",
}


def test_files_say_what_they_are_and_let_nothing_in(running):
    for path, kind in FILES.items():
        answer = running.http.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == kind
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy and "http" not in policy and "*" not in policy


def test_files_are_sent_once(running):
    for path in FILES:
        first = running.http.get(path)
        assert first.headers["cache-control"] == "no-cache"
        tag = first.headers["etag"]
        for known in (tag, f'"other", W/{tag}'):
            again = running.http.get(path, headers={"if-none-match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
        assert running.http.get(path, headers={"if-none-match": '"other"'}).content == first.content
        head = running.http.head(path)
        assert (head.headers["content-length"], head.content) == (str(len(first.content)), b"")


def test_only_files_of_the_page_are_sent(running, refused):
    for name in (
        "index.html",
        "docs.html",
        "page.py",
        "..%2fpage.py",
        "%2e%2e/page.py",
        "%00",
        "nothing",
    ):
        refused(running.http.get(f"/static/{name}"), 404)


def test_without_an_example_there_is_no_button(running, refused, example):
    button = 'class="quiet" hidden>Try'
    assert button not in running.http.get("/").text
    example.unlink()
    assert button in running.http.get("/").text
    refused(running.http.get("/example.npz"), 404)


def test_no_file_names_another_host(running):
    for path, kind in FILES.items():
        if kind.startswith("text/"):
            text = running.http.get(path).text
            # a namespace's name is no address
            assert "//" not in re.sub(r"http://www\.w3\.org/\S+|^\s*//.*$", "", text, flags=re.M), (
                path
            )
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert running.http.get(path).status_code == 404


def test_the_routes_are_told(running):
    text = running.http.get("/docs").text
    document = running.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in text
    for name in document["components"]["schemas"]["SpeechRequest"]["properties"]:
        assert text.count(f"<code>{name}</code>") >= 2
    assert "number of 0.25 to 4, else 1.0" in text
    assert "string or {id: string}" in text
    assert "wav, pcm, flac, opus, mp3, aac, else mp3" in text
    # what a client says to a socket
    assert "response.cancel   drops the utterance" in text
    assert "$" not in text
