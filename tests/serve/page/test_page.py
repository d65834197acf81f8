"""The page in a real browser, against a real server."""

import io
import math
import re

import httpx
import pytest
import soundfile

pytest.importorskip("playwright", reason="playwright isn't installed")

from playwright.sync_api import Error, expect

# in which the page is reached by Tab
ORDER = ["text", "speak", "file", "example", "voice", "seed", "temperature", "stop", "again"]
RATE_HZ = 8000
SECONDS = 0.8
QUERY = "seed=5&temperature=0.7"


def sentence(answer, refused, status):
    message = refused(answer, status)["message"]
    return re.compile(re.escape(message) + r"\.?$", re.IGNORECASE)


def test_the_page_asks_no_other_host_and_complains_of_nothing(running, visit):
    at = visit(running)
    page = at.page
    assert at.said == []
    assert len(at.asked) > 8
    assert {httpx.URL(url).copy_with(raw_path=b"/") for url in at.asked} == {running.url + "/"}
    assert page.locator("#voice option").all_inner_texts() == ["tiny"]
    assert page.locator("#key").is_hidden()
    # and the browser would not let it
    with pytest.raises(Error, match="Failed to fetch"):
        page.evaluate("fetch('http://127.0.0.2:9/').then(() => 1)")
    assert any("Content Security Policy" in line for line in at.said)


def test_the_routes_page_asks_no_other_host_either(running, visit):
    at = visit(running)
    at.asked.clear()
    at.page.goto("/docs")
    expect(at.page.locator("h2").first).to_have_text("POST /v1/audio/speech")
    at.page.set_viewport_size({"width": 360, "height": 640})
    assert at.page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    assert at.said == []
    assert at.asked
    assert {httpx.URL(url).copy_with(raw_path=b"/") for url in at.asked} == {running.url + "/"}


@pytest.mark.parametrize("kind", ["example.npz", "speech.npy", "speech.wav", "speech.mp3"])
def test_each_sample_is_played_and_kept(
    connection, running, visit, make_audio, make_npy, example, kind
):
    audio = io.BytesIO()
    if kind.endswith(("wav", "mp3")):
        soundfile.write(audio, make_audio(0, SECONDS), RATE_HZ, format=kind[-3:])
    content = audio.getvalue() or make_npy(0, SECONDS)
    at = visit(running)
    page = at.page
    page.fill("#seed", "5")
    page.fill("#temperature", "0.7")
    if kind == "example.npz":
        content = example.read_bytes()
        page.click("#example")
    else:
        at.give(kind, content)
    made, heard, underruns = at.finish(kind)
    wav = running.http.post(f"/v1/vocode?format=wav&{QUERY}", content=content).content
    assert made == heard == (len(wav) - 44) // 2 > 0.9 * SECONDS * RATE_HZ
    assert underruns == "0"
    assert at.downloaded() == wav
    assert all(at.drawn("wave")) and all(at.drawn("spectrogram"))
    assert re.fullmatch(r"\d+ ms", page.inner_text("#first"))
    assert float(page.inner_text("#factor").removesuffix("×")) > 0
    assert at.said == []


def test_what_comes_late_is_an_underrun_and_lost_to_nobody(connection, running, visit):
    # half of the speech, 0.4 s
    connection.holds_after = SECONDS * RATE_HZ
    at = visit(running)
    page = at.page
    page.click("#example")
    expect(page.locator("#underruns")).to_have_text("1")
    half = at.samples("made")
    assert 0.4 * RATE_HZ < half < 0.6 * RATE_HZ
    assert at.samples("heard") == half
    # the pictures grow
    for canvas in ("wave", "spectrogram"):
        columns = at.drawn(canvas)
        assert all(columns[: len(columns) // 3]) and not any(columns[2 * len(columns) // 3 :])
    connection.holds_after = math.inf
    made, heard, underruns = at.finish("example.npz")
    assert made == heard > 1.6 * half
    assert underruns == "1"
    assert all(at.drawn("wave")) and all(at.drawn("spectrogram"))


@pytest.mark.parametrize("how", ["button", "key", "another", "leaving"])
def test_stopping_gives_the_channel_back(connection, running, visit, how):
    connection.holds_after = 4000
    at = visit(running)
    page = at.page
    page.click("#example")
    expect(page.locator("#made")).to_have_text(re.compile(r"0\.\d\d s"))
    assert running.open_channels == 1
    count = {"voice": "tiny", "transport": "audio", "reason": "cancelled"}
    before = running.number("wavernn_streams_total", **count)
    if how == "button":
        page.click("#stop")
    elif how == "key":
        page.keyboard.press("Escape")
    elif how == "another":
        page.fill("#text", "hello")
        page.click("text=Speak")
    else:
        page.goto("about:blank")
    running.wait(lambda: running.open_channels == 0)
    # because the page said so, and not since it took nothing for too long
    assert running.number("wavernn_streams_total", **count) == before + 1
    connection.holds_after = math.inf
    if how in ("button", "key"):
        expect(at.status).to_have_text(re.compile(r"Stopped after 0\.\d\d s\."))
        expect(page.locator("#stop")).to_have_attribute("aria-disabled", "true")
        page.click("#again")
        made, heard, _ = at.finish("example.npz")
        assert made == heard > 0


def test_a_broken_connection_is_told(connection, running, visit):
    connection.holds_after = 4000
    at = visit(running)
    page = at.page
    page.click("#example")
    # what is on its way when a connection is aborted may be lost, up to the head of the answer
    running.wait(lambda: at.samples("made") > 0)
    connection.breaks_after, connection.holds_after = 4000, math.inf
    told = re.compile(r"The connection broke off after 0\.\d\d s of speech\.")
    expect(at.status).to_have_text(told)
    expect(at.status).to_have_class("error")
    running.wait(lambda: running.open_channels == 0)


def test_refusals_are_shown_in_the_servers_words(running, visit, refused):
    at = visit(running)
    page = at.page
    status = at.status
    bad = b"\x93NUMPY and nothing more"
    at.give("bad.npy", bad)
    answer = running.http.post("/v1/vocode?format=pcm", content=bad)
    expect(status).to_have_text(sentence(answer, refused, 400))
    page.fill("#text", "Good morning.")
    page.click("text=Speak")
    spoken = {"model": "wavernn", "input": "x", "voice": "tiny"}
    answer = running.http.post("/v1/audio/speech", json=spoken)
    expect(status).to_have_text(sentence(answer, refused, 501))
    channels = [running.service.engines["tiny"].open() for _ in range(4)]
    page.click("#example")
    answer = running.http.post("/v1/vocode", content=b"")
    expect(status).to_have_text(sentence(answer, refused, 503))
    for channel in channels:
        channel.cancel()
    page.click("#again")
    at.finish("example.npz")
    expect(status).not_to_have_class("error")


def test_a_key_is_asked_for_and_kept_in_the_tab_only(start, visit):
    with start(api_keys=("the-right-key",)) as server:
        at = visit(server, status=re.compile("API key"))
        page = at.page
        expect(page.locator("#key")).to_be_focused()
        page.fill("#key", "a-wrong-key")
        page.keyboard.press("Enter")
        expect(page.locator("#key")).to_be_focused()
        page.fill("#key", "the-right-key")
        page.keyboard.press("Enter")
        expect(at.status).to_have_text("Ready.")
        page.reload()
        expect(at.status).to_have_text("Ready.")
        assert page.locator("#key").is_hidden()
        page.click("#example")
        at.finish("example.npz")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        assert not any("right" in url for url in at.asked)


def test_all_is_reached_by_keyboard(connection, running, visit):
    at = visit(running)
    page = at.page
    press, status = page.keyboard.press, at.status
    reached = []
    for _ in ORDER:
        press("Tab")
        name, label, outline = page.evaluate(
            """() => {
              const at = document.activeElement;
              const ring = at.id === "file" ? document.getElementById("drop") : at;
              const label = at.labels?.[0]?.textContent || at.textContent;
              return [at.id || "speak", label.trim(), getComputedStyle(ring).outlineStyle];
            }"""
        )
        assert label and outline == "solid", name
        reached.append(name)
    assert reached == ORDER
    page.focus("#text")
    page.keyboard.type("hello")
    press("Control+Enter")
    expect(status).to_have_class("error")
    press("Tab")
    press("Tab")
    with page.expect_file_chooser() as chooser:
        press("Enter")
    chooser.value.set_files({"name": "no.npy", "mimeType": "", "buffer": b"no"})
    expect(status).to_have_text(re.compile("no known type"))
    press("Tab")
    connection.holds_after = 4000
    press("Enter")
    expect(status).to_have_text("Speaking example.npz…")
    press("Escape")
    expect(status).to_have_text(re.compile("Stopped"))
    connection.holds_after = math.inf
    page.focus("#again")
    press("Enter")
    at.finish("example.npz")
    press("Tab")
    expect(page.locator("#download")).to_be_focused()
    with page.expect_download() as download:
        press("Enter")
    assert download.value.suggested_filename == "example-tiny.wav"
    # what is told to a screen reader
    assert status.get_attribute("role") == "status"
    expect(page.locator("#wave")).to_have_attribute("aria-label", re.compile(r"Waveform of 0\.8"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(running, visit, make_npy, scheme):
    at = visit(running, viewport={"width": 360, "height": 640}, color_scheme=scheme, has_touch=True)
    page = at.page
    wide = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(wide) == 0
    name = "a_long_name_" * 15 + ".npy"
    at.give(name, make_npy(0, SECONDS))
    at.finish(name)
    assert page.evaluate(wide) == 0
    # the result was brought into sight
    expect(page.locator("#wave")).to_be_in_viewport()
    # large enough for a thumb
    heights = page.evaluate("[...document.querySelectorAll('button')].map((b) => b.offsetHeight)")
    assert min(height for height in heights if height) >= 44
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    (red, *_) = map(int, re.findall(r"\d+", ground))
    assert (red < 64) == (scheme == "dark")


# as a person does it, of which a browser doesn't let sound begin; what playwright does would
DROP = """addEventListener("load", async () => {
  const status = document.getElementById("status");
  new MutationObserver(() => console.log(status.textContent)).observe(status, { childList: true });
  const drop = document.getElementById("drop");
  const file = new File([await (await fetch("example.npz")).blob()], "dropped.npz");
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(file);
  for (const kind of ["dragover", "drop"]) {
    const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer });
    drop.dispatchEvent(event);
    if (!event.defaultPrevented) console.error("the browser would open the file");
  }
})"""


def test_a_dropped_file_is_heard_once_a_key_is_pressed(running, visit):
    at = visit(running, status=None, script=DROP, reduced_motion="reduce")
    page = at.page
    told = "Press any key, or touch the page, to hear it."
    if told not in at.said:
        page.wait_for_event("console", lambda message: message.text == told)
    assert at.samples("heard") == 0
    page.keyboard.press("Shift")
    made, heard, _ = at.finish("dropped.npz")
    assert made == heard > 0
    expect(page.locator("#drop")).to_have_class("drop")
    duration = "getComputedStyle(document.querySelector('button')).transitionDuration"
    assert page.evaluate(duration) == "0s"
    assert not any("would open" in line for line in at.said)


def test_without_sound_there_is_something_to_keep(running, visit):
    at = visit(running, script="delete window.AudioContext")
    page = at.page
    page.click("#example")
    expect(at.status).to_have_text(re.compile("this browser can't play it"))
    assert len(at.downloaded()) == 44 + 2 * at.samples("made") > 44


def test_voices_that_are_being_loaded_are_waited_for(running, visit):
    at = visit(running)
    page = at.page
    answers = [{"status": 200, "json": {"voices": []}}]
    page.route(
        "**/v1/audio/voices",
        lambda route: route.fulfill(**answers.pop()) if answers else route.fallback(),
    )
    page.reload()
    expect(at.status).to_have_text("The voices are being loaded…")
    expect(at.status).to_have_text("Ready.")
    assert page.locator("#voice option").all_inner_texts() == ["tiny"]
