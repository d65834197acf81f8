"""The page in a browser, and what may happen on the way to it."""

import asyncio
import math
import re
import shutil

import numpy as np
import pytest

from wavernn.serve import page as served

LONG_MS = 30_000
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
SECONDS = 0.8
DRAWN = """(id) => {
  const canvas = document.getElementById(id);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return Array.from({ length: canvas.width }, (_, x) => {
    for (let y = 0; y < canvas.height; y++)
      if (data[4 * (y * canvas.width + x) + 3]) return true;
    return false;
  });
}"""


class Connection:
    """Passes speech on in pieces that end within a sample; may hold it or break off on the way."""

    def __init__(self, app):
        self.app, self.piece = app, 1601
        # bytes that go through before it does
        self.holds_after = self.breaks_after = math.inf

    async def __call__(self, scope, receive, send):
        if scope.get("path") != "/v1/vocode":
            return await self.app(scope, receive, send)
        sent, held = 0, bytearray()

        async def cut(message):
            nonlocal sent
            if message["type"] != "http.response.body":
                return await send(message)
            held.extend(message.get("body", b""))
            more = message.get("more_body", False)
            while held and (len(held) >= self.piece or not more):
                if sent >= self.breaks_after:
                    scope["state"]["transport"].abort()
                while sent >= self.holds_after:
                    await asyncio.sleep(0.005)
                piece = bytes(held[: self.piece])
                del held[: self.piece]
                sent += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if not more:
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self.app(scope, receive, cut)


class Visit:
    """The page as it was opened once."""

    def __init__(self, page, expect):
        self.page, self.status, self._expect = page, page.locator("#status"), expect
        # lines of the console, addresses that were asked for, and exceptions
        self.said, self.asked, self.wrong = [], [], []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        # else a chooser that a key opens may come before it's waited for
        page.on("filechooser", lambda chooser: None)

    def samples(self, name):
        return int(self.page.get_attribute(f"#{name}", "data-samples"))

    def give(self, name, content):
        file = {"name": name, "mimeType": "", "buffer": content}
        self.page.set_input_files("#file", file)

    def finish(self, name):
        """Waits for the end; returns samples made, samples heard and underruns."""
        told = re.compile(rf"Finished: 0\.\d\d s of speech from {re.escape(name)}\.")
        self._expect(self.status).to_have_text(told)
        return self.samples("made"), self.samples("heard"), self.page.inner_text("#underruns")

    def drawn(self, canvas):
        """Which columns of a canvas hold anything."""
        return self.page.evaluate(DRAWN, canvas)

    def downloaded(self):
        with self.page.expect_download() as download:
            self.page.click("#download")
        return download.value.path().read_bytes()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH; Debian's package chromium has one")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens the page of a server; whatever its script does wrong fails the test."""
    from playwright.sync_api import expect

    expect.set_options(timeout=LONG_MS)
    contexts, visits = [], []

    def open_page(running, status="Ready.", script=None, **options):
        context = browser.new_context(base_url=running.url, **options)
        contexts.append(context)
        context.set_default_timeout(LONG_MS)
        visit = Visit(context.new_page(), expect)
        visits.append(visit)
        if script:
            visit.page.add_init_script(script)
        visit.page.goto("/")
        if status is not None:
            expect(visit.status).to_have_text(status)
        return visit

    yield open_page
    for context in contexts:
        context.close()
    assert [line for visit in visits for line in visit.wrong] == []


@pytest.fixture(autouse=True)
def example(monkeypatch, tmp_path, make_mel):
    """An example that fits the voice."""
    path = tmp_path / "example.npz"
    np.savez(path, mel=make_mel(0, SECONDS))
    monkeypatch.setattr(served, "EXAMPLE", path)
    return path


@pytest.fixture
def connection(running):
    """What lies between server and browser; ask for it before the page is opened."""
    config = running.server.config
    app = config.loaded_app
    config.loaded_app = connection = Connection(app)
    yield connection
    connection.holds_after = math.inf
    config.loaded_app = app
