"""The files of the page, and the headers that guard it."""

FILES = {
    "/": "text/html; charset=utf-8",
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
    for name in ("index.html", "page.py", "..%2fpage.py", "%2e%2e/page.py", "%00", "nothing"):
        refused(running.http.get(f"/static/{name}"), 404)


def test_without_an_example_there_is_no_button(running, refused, example):
    button = 'class="quiet" hidden>Try'
    assert button not in running.http.get("/").text
    example.unlink()
    assert button in running.http.get("/").text
    refused(running.http.get("/example.npz"), 404)
