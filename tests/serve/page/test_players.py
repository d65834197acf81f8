"""A browser's own player, fed by the GET form of the speech route while the speech is made."""

import threading
from urllib.parse import urlencode

import numpy as np
import pytest

from wavernn import kernels, voices
from wavernn.melfile import read_mel
from wavernn.serve.formats import Encoder
from wavernn.vocoder import Vocoder

pytest.importorskip("playwright", reason="playwright isn't installed")

LONG_MS = 30_000
# so that the browser's blocks are soon full
RATE_HZ = 48_000
LAST_S = 1.0
HOP_SAMPLES = 256
# what a browser calls it, and the seconds of speech with which Chromium has enough to begin: 32 KiB
# of what is compressed, 224 KiB of wav
FORMATS = {
    "wav": ("audio/wav", 2.8),
    "flac": ("audio/flac", 1.5),
    "mp3": ("audio/mpeg", 3.2),
    "aac": ("audio/aac", 4.0),
    "opus": ('audio/ogg; codecs="opus"', 6.0),
}
PLAYER = """<!doctype html><audio id="audio" muted></audio><script>
  const audio = document.getElementById("audio"), heard = [];
  for (const kind of ["playing", "ended", "error"])
    audio.addEventListener(kind, () => heard.push(audio.error ? audio.error.message : kind));
</script>"""


class Paced:
    """A front end that takes a text of two numbers for seconds of noise, and pauses between."""

    def __init__(self, make_mel):
        self.make_mel, self.go_on, self.paused = make_mel, threading.Event(), threading.Event()

    def frames(self, text, voice, speed):
        first_s, last_s = map(float, text.split())
        yield self.make_mel(0, first_s)
        self.paused.set()
        assert self.go_on.wait(60)
        yield self.make_mel(1, last_s)


@pytest.fixture
def front(make_mel):
    return Paced(make_mel)


@pytest.fixture
def player(browser, start, front):
    """A server, and a page of its own with an audio element that was given nothing yet."""
    with start(text=front, channels=1) as server:
        context = browser.new_context(base_url=server.url)
        context.set_default_timeout(LONG_MS)
        page = context.new_page()
        # the service's own page lets no audio element load anything
        page.route("**/player", lambda route: route.fulfill(body=PLAYER, content_type="text/html"))
        page.goto("/player")
        try:
            yield server, page
        finally:
            front.go_on.set()
            context.close()


def source(format, first_s):
    asked = {"input": f"{first_s} {LAST_S}", "response_format": format, "sample_rate": RATE_HZ}
    return "/v1/audio/speech?" + urlencode(asked)


@pytest.mark.parametrize("format", FORMATS)
def test_a_browser_plays_while_it_streams(player, front, format):
    if format != "wav":
        pytest.importorskip("av")
    server, page = player
    kind, first_s = FORMATS[format]
    if not page.evaluate("(kind) => audio.canPlayType(kind)", kind):
        pytest.skip(f"this build of Chromium has no decoder for {kind}")
    requests = []
    page.on("request", lambda request: requests.append(request))
    # nothing that may never come is awaited within the page
    page.evaluate(
        "(url) => { audio.src = url; audio.play().catch(() => 0); }", source(format, first_s)
    )
    page.wait_for_function("heard.length > 0 && (audio.currentTime > 0 || audio.error)")
    assert page.evaluate("heard") == ["playing"]
    assert page.evaluate("audio.readyState") >= 2
    # the server waits for more text, and the player doesn't know how much there will be
    assert front.paused.is_set() and not front.go_on.is_set()
    assert server.open_channels == 1
    assert page.evaluate("audio.duration === Infinity && !audio.ended")
    front.go_on.set()
    page.evaluate("audio.playbackRate = 8")
    page.wait_for_function("heard.at(-1) === 'ended' || audio.error")
    assert page.evaluate("audio.error") is None
    assert page.evaluate("audio.currentTime") == pytest.approx(first_s + LAST_S, abs=0.15)
    # one request, for a range that need not be honoured
    (request,) = requests
    assert request.all_headers()["range"] == "bytes=0-"
    answer = request.response()
    assert answer.status == 200 and "accept-ranges" not in answer.headers


def test_a_player_that_is_stopped_gives_its_channel_back(player, front):
    server, page = player
    url = source("wav", FORMATS["wav"][1])
    page.evaluate("(url) => { audio.src = url; audio.play().catch(() => 0); }", url)
    page.wait_for_function("audio.currentTime > 0")
    assert server.open_channels == 1
    page.evaluate("audio.removeAttribute('src'); audio.load()")
    server.wait(lambda: server.open_channels == 0)


def test_a_refusal_is_an_error_of_the_player(player):
    _, page = player
    page.evaluate("(url) => { audio.src = url; }", "/v1/audio/speech?input=x&voice=nobody")
    page.wait_for_function("audio.error")
    assert page.evaluate("audio.error.code === MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED")


# what Chromium takes before it begins, and the seconds of the shipped voice that this is at most
NEEDED = {
    "wav": (7 << 15, 5.3),
    "flac": (1 << 15, 2.0),
    "mp3": (1 << 15, 2.8),
    "aac": (1 << 15, 2.8),
    "opus": (1 << 15, 5.5),
}


@pytest.fixture(scope="module")
def speech():
    if reason := kernels.unavailable("cpu"):
        pytest.skip(reason)
    voice = voices.open_voice("default")
    mel_NM, _ = read_mel(voices.FOLDER / "samples" / "demo.npz")
    return voice.config.mel.rate_hz, Vocoder(voice, "cpu").synthesize(mel_NM, 1)


@pytest.mark.parametrize("format", NEEDED)
def test_so_much_speech_is_needed_before_a_browser_begins(speech, format):
    if format != "wav":
        pytest.importorskip("av")
    rate_hz, samples_T = speech
    size, most_s = NEEDED[format]
    sent = samples = 0
    with Encoder(format, rate_hz) as encoder:
        for block_T in np.tile(samples_T, 9).reshape(-1, HOP_SAMPLES):
            sent += len(encoder.encode(block_T))
            samples += HOP_SAMPLES
            if sent >= size:
                break
    # shown by `pytest -s -k needed`
    needed_s = samples / rate_hz
    print(f"\n| {format} | {size >> 10} | {needed_s:.1f} |")
    assert sent >= size and needed_s <= most_s
